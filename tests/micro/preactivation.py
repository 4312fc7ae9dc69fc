"""Pattern 2: BatchNormalization before Conv over a Concat with several readers; BatchNorm in all its forms."""

from tests.micro.build import Net, case


def dense_layer(net: Net, features: list[str], width: int, growth: int) -> str:
    """Draw DenseNet's Concat -> BN -> Relu -> Conv1x1 -> BN -> Relu -> Conv3x3."""
    x = net.Concat(*features, axis=1) if len(features) > 1 else features[0]
    y = net.conv(net.Relu(net.norm(x, width)), width, 16, kernel=1, bias=False)
    return net.conv(net.Relu(net.norm(y, 16)), 16, growth, bias=False)


@case(share=0.35)
@case("opset7", share=0.35, opset=7)
@case("opset9_constants", share=0.35, opset=9, weights="constant")
@case("opset18", share=0.35, opset=18)
def densenet(net):
    features = [net.conv(net.input("batch", 3, 8, 8), 3, 16, bias=False)]
    for step in range(3):
        features.append(dense_layer(net, features, 16 + 8 * step, 8))
    y = net.Relu(net.norm(net.Concat(*features, axis=1), 40))
    y = net.AveragePool(net.conv(y, 40, 16, kernel=1), kernel_shape=[2, 2], strides=[2, 2])
    net.output(net.gemm(net.Flatten(net.GlobalAveragePool(y)), 16, 10))


@case(share=0.3)
@case("opset21", share=0.3, opset=21)
def preactivation_resnet(net):
    y = net.conv(net.input("batch", 3, 8, 8), 3, 16, bias=False)
    for _ in range(2):
        z = net.conv(net.Relu(net.norm(y, 16)), 16, 16, bias=False)
        y = net.Add(y, net.conv(net.Relu(net.norm(z, 16)), 16, 16, bias=False))
    net.output(net.gemm(net.Flatten(net.GlobalAveragePool(net.Relu(net.norm(y, 16)))), 16, 10))


@case(share=0.3)
@case("opset7", share=0.3, opset=7)
@case("opset14", share=0.3, opset=14)
def resnet_block_live_batch_norm(net):
    y = net.Relu(net.norm(net.conv(net.input("batch", 3, 8, 8), 3, 16, bias=False), 16))
    z = net.Relu(net.norm(net.conv(y, 16, 16, bias=False), 16))
    z = net.norm(net.conv(z, 16, 16, bias=False), 16)
    y = net.Relu(net.Add(z, y))
    z = net.norm(net.conv(y, 16, 24, bias=False, strides=[2, 2]), 24)
    short = net.norm(net.conv(y, 16, 24, kernel=1, bias=False, strides=[2, 2]), 24)
    net.output(net.gemm(net.Flatten(net.GlobalAveragePool(net.Relu(net.Add(short, z)))), 24, 10))


@case(share=0.55)
def batch_norm_on_the_input(net):
    """The first BatchNorm scales the input, which stays."""
    y = net.conv(net.norm(net.input("batch", 3, 8, 8), 3), 3, 16)
    net.output(net.conv(net.norm(net.Relu(y), 16), 16, 5))


@case(share=0.4)
def batch_norm_shared_by_two_readers(net):
    y = net.Relu(net.norm(net.conv(net.input("batch", 3, 8, 8), 3, 16), 16))
    a, b = net.conv(y, 16, 8), net.conv(y, 16, 8, kernel=1)
    net.output(net.conv(net.Sub(a, b), 8, 4))


@case(share=0.55)
def batch_norm_1d_over_concat(net):
    x = net.input("batch", 12)
    y = net.norm(net.Concat(net.gemm(x, 12, 16), net.gemm(x, 12, 8), axis=1), 24)
    net.output(net.gemm(net.Relu(y), 24, 4))
