"""Pattern 1: convolutions into a dense head through Flatten or Reshape."""

import numpy as np

from tests.micro.build import Net, case


def trunk(net: Net, x: str, size: int = 16) -> str:
    """Draw Conv -> Relu -> Conv -> Relu, 3 to `size` channels."""
    y = net.Relu(net.conv(x, 3, size))
    return net.Relu(net.conv(y, size, size))


@case(share=0.3)
@case("opset7", share=0.3, opset=7)
@case("opset9", share=0.3, opset=9)
@case("opset13_constants", share=0.3, opset=13, weights="constant")
@case("opset21", share=0.3, opset=21)
@case("newest", share=0.3, opset=26)
def conv_flatten_gemm(net):
    y = net.MaxPool(trunk(net, net.input("batch", 3, 8, 8)), kernel_shape=[2, 2], strides=[2, 2])
    net.output(net.gemm(net.Relu(net.gemm(net.Flatten(y, axis=1), 16 * 16, 32)), 32, 10))


@case(share=0.45)
@case("opset11", share=0.45, opset=11)
def conv_flatten_matmul_in_x_out(net):
    y = net.Flatten(trunk(net, net.input("batch", 3, 4, 4)), axis=-3)
    net.output(net.linear(y, 256, 10))


@case(share=0.45)
@case("opset9", share=0.45, opset=9)
@case("opset20", share=0.45, opset=20)
def conv_computed_reshape_gemm(net):
    y = trunk(net, net.input("batch", 3, 4, 4))
    net.output(net.gemm(net.computed_reshape(y, 0, -1), 256, 10, transposed=False))


@case(share=0.45)
@case("opset18", share=0.45, opset=18)
def conv_reshape_spelled_out(net):
    y = trunk(net, net.input("batch", 3, 4, 4))
    net.output(net.gemm(net.reshape(y, -1, 256), 256, 10))


@case(share=0.45)
def conv_reshape_zero_and_minus_one(net):
    y = trunk(net, net.input("batch", 3, 4, 4))
    net.output(net.gemm(net.reshape(net.reshape(y, 0, 0, -1), 0, -1), 256, 10))


@case(share=0.45)
@case("opset9", share=0.45, opset=9)
def conv_nhwc_flatten_gemm(net):
    """tf2onnx: NHWC input and output, transposes around the convolutions."""
    x = net.transpose(net.input("batch", 4, 4, 3), 0, 3, 1, 2)
    y = net.transpose(trunk(net, x), 0, 2, 3, 1)
    net.output(net.linear(net.reshape(y, -1, 256), 256, 10))


@case(share=0.45)
def conv_nhwc_bias_after_transpose(net):
    """Keras: bias and activation are drawn on the NHWC side."""
    x = net.transpose(net.input("batch", 4, 4, 3), 0, 3, 1, 2)
    y = net.Relu(net.Add(net.transpose(net.conv(x, 3, 16, bias=False), 0, 2, 3, 1), net.weight(16)))
    y = net.conv(net.transpose(y, 0, 3, 1, 2), 16, 16, bias=False)
    y = net.Relu(net.Add(net.transpose(y, 0, 2, 3, 1), net.weight(1, 1, 1, 16)))
    net.output(net.linear(net.computed_reshape(y, 0, 256), 256, 10))


@case(share=0.35)
@case("opset11", share=0.35, opset=11)
def conv_pool_squeeze_gemm(net):
    y = net.GlobalAveragePool(trunk(net, net.input("batch", 3, 8, 8)))
    net.output(net.gemm(net.squeeze(y, 2, 3), 16, 10))


@case(share=0.35)
@case("opset18", share=0.35, opset=18)
def conv_reduce_mean_gemm(net):
    y = net.reduce("Mean", trunk(net, net.input("batch", 3, 8, 8)), [2, 3], keepdims=0)
    net.output(net.gemm(y, 16, 10))


@case(share=0.35)
def fully_convolutional_head(net):
    """SqueezeNet: the last Conv writes the classes."""
    y = net.GlobalAveragePool(net.conv(trunk(net, net.input("batch", 3, 8, 8)), 16, 10, kernel=1))
    net.output(net.Softmax(net.Flatten(y)))


@case(share=0.45)
def conv_dropout_identity_cast(net):
    y = net.Identity(net.Cast(net.Cast(trunk(net, net.input("batch", 3, 4, 4)), to=11), to=1))
    y = net.Dropout(y, np.float32(0.5), np.array(False))
    net.output(net.gemm(net.Flatten(y), 256, 10))


@case(share=0.4)
def conv1d_flatten(net):
    y = net.Conv(net.input("batch", 4, 12), net.weight(16, 4, 3), net.weight(16))
    y = net.Conv(net.Tanh(y), net.weight(16, 16, 3), net.weight(16), strides=[2], dilations=[2])
    net.output(net.gemm(net.Flatten(y), 48, 5))


@case(share=0.5)
def conv3d_flatten(net):
    y = net.Relu(net.Conv(net.input("batch", 2, 4, 4, 4), net.weight(8, 2, 3, 3, 3), net.weight(8)))
    y = net.Relu(net.Conv(y, net.weight(8, 8, 1, 1, 1), net.weight(8)))
    net.output(net.gemm(net.Flatten(y), 64, 5))


@case(share=0.4)
@case("folded", share=0.4, opset=13)
def mlp(net):
    y = net.Relu(net.linear(net.input("batch", 12), 12, 32))
    y = net.Relu(net.linear(y, 32, 32))
    net.output(net.linear(y, 32, 5))


@case(share=0.55)
def gemm_with_factors_and_matrix_bias(net):
    """Gemm with transposed input, alpha, beta and a bias of shape (1, n)."""
    x = net.input(12, 4)
    y = net.Gemm(x, net.weight(12, 32), net.weight(1, 32), transA=1, alpha=0.5, beta=2.0)
    net.output(net.Gemm(net.Relu(y), net.weight(32, 5), alpha=2.0))
