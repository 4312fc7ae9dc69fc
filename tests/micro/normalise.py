"""Pattern 9: normalisations and gates across channels."""

import numpy as np

from tests.micro.build import Net, case


def start(net: Net, size: int = 16) -> str:
    """Draw the input and one Conv."""
    return net.conv(net.input("batch", 3, 6, 6), 3, size)


def close(net: Net, y: str, size: int = 16) -> None:
    """Draw Conv -> pooled head."""
    y = net.GlobalAveragePool(net.Relu(net.conv(net.Relu(y), size, 8)))
    net.output(net.gemm(net.Flatten(y), 8, 4))


@case(share=0.4, exact=True)
@case("opset9", share=0.4, opset=9)
@case("constants", share=0.4, weights="constant")
def group_norm_by_reshape(net):
    """torch: (B, C, H, W) -> (B, G, -1) -> InstanceNormalization -> back -> scale and shift."""
    y = net.reshape(start(net), 0, 4, -1)
    y = net.InstanceNormalization(y, net.constant(np.ones(4, np.float32)), net.constant(np.zeros(4, np.float32)))
    y = net.reshape(y, -1, 16, 6, 6)
    y = net.Add(net.Mul(y, net.vector(16, shape=(16, 1, 1))), net.vector(16, shape=(16, 1, 1)))
    close(net, y)


@case(share=0.35)
def group_norm_computed_shape(net):
    """The way back takes the shape from the tensor before."""
    x = start(net)
    y = net.reshape(x, 0, 4, -1)
    y = net.InstanceNormalization(y, net.constant(np.ones(4, np.float32)), net.constant(np.zeros(4, np.float32)))
    y = net.Reshape(y, net.Shape(x))
    close(net, net.Add(net.Mul(y, net.vector(16, shape=(1, 16, 1, 1))), net.vector(16, shape=(1, 16, 1, 1))))


@case("opset21", share=0.35, opset=21)
@case("opset24", share=0.35, opset=24)
def group_norm(net):
    """Scale and shift have one value a channel since opset 21; the form of opset 18 is deprecated."""
    close(net, net.GroupNormalization(start(net), net.vector(16), net.vector(16), num_groups=4))


@case(share=0.35)
@case("opset22", share=0.35, opset=22)
def instance_norm(net):
    """Every channel by itself: exact."""
    close(net, net.InstanceNormalization(start(net), net.vector(16), net.vector(16)))


@case(share=0.35)
def channel_constants(net):
    """Mul, Add, Sub, Div and PRelu by per-channel constants of several shapes."""
    y = net.Mul(start(net), net.vector(16, shape=(1, 16, 1, 1)))
    y = net.Add(net.vector(16, shape=(16, 1, 1)), y)
    y = net.Div(y, net.vector(16, shape=(16, 1, 1)))
    y = net.Sub(y, net.vector(16, shape=(1, 16, 1, 1)))
    close(net, net.PRelu(y, net.vector(16, 0.1, 0.3, shape=(16, 1, 1))))


@case(share=0.35)
def constants_by_unsqueeze(net):
    """A vector made broadcastable inside the graph."""
    y = net.Mul(start(net), net.unsqueeze(net.vector(16), 1, 2))
    close(net, net.Add(y, net.reshape(net.vector(16), 1, -1, 1, 1)))


@case(share=0.4)
def gemm_batch_norm_1d_gemm(net):
    y = net.Relu(net.norm(net.gemm(net.input("batch", 8), 8, 32), 32))
    y = net.norm(net.gemm(y, 32, 32), 32)
    net.output(net.gemm(net.Relu(y), 32, 5))


@case(share=0.55)
def matmul_batch_norm_through_unsqueeze(net):
    """PP-OCR and tf2onnx: (B, C) made (B, C, 1, 1) for a BatchNorm and back."""
    y = net.unsqueeze(net.linear(net.input("batch", 8), 8, 32), 2, 3)
    net.output(net.linear(net.squeeze(net.norm(y, 32), 2, 3), 32, 5))


@case(share=0.35)
@case("opset11", share=0.35, opset=11)
def squeeze_excite_by_conv(net):
    y = net.Relu(start(net))
    s = net.Relu(net.conv(net.GlobalAveragePool(y), 16, 8, kernel=1))
    close(net, net.Mul(y, net.Sigmoid(net.conv(s, 8, 16, kernel=1))))


@case(share=0.35)
@case("opset9", share=0.35, opset=9)
@case("constants", share=0.35, weights="constant")
def squeeze_excite_by_gemm(net):
    y = net.Relu(start(net))
    s = net.Relu(net.gemm(net.computed_reshape(net.GlobalAveragePool(y), 0, 16), 16, 8))
    s = net.computed_reshape(net.Sigmoid(net.gemm(s, 8, 16)), 0, 16, 1, 1)
    close(net, net.Mul(s, y))


@case(share=0.35)
def squeeze_excite_by_matmul_nhwc(net):
    """TensorFlow: mean over (1, 2), dense, reshaped to (B, 1, 1, C)."""
    y = net.transpose(net.Relu(start(net)), 0, 2, 3, 1)
    s = net.Relu(net.linear(net.reduce("Mean", y, [1, 2], keepdims=0), 16, 8))
    s = net.reshape(net.HardSigmoid(net.linear(s, 8, 16)), -1, 1, 1, 16)
    close(net, net.transpose(net.Mul(y, s), 0, 3, 1, 2))


@case(share=0.35)
def cbam(net):
    """Channel gate by shared MLP, then a spatial gate from the mean and maximum over the channels."""
    y = net.Relu(start(net))
    down, up = net.weight(8, 16, 1, 1), net.weight(16, 8, 1, 1)
    gates = [net.Conv(net.Relu(net.Conv(pool(y), down)), up) for pool in (net.GlobalAveragePool, net.GlobalMaxPool)]
    y = net.Mul(y, net.Sigmoid(net.Add(*gates)))
    seen = net.Concat(net.reduce("Mean", y, [1]), net.reduce("Max", y, [1]), axis=1)
    close(net, net.Mul(y, net.Sigmoid(net.conv(seen, 2, 1, bias=False))))


@case(share=0.3)
@case("opset11", share=0.3, opset=11)
def weight_standardisation(net):
    """NFNet: the weight is normalised inside the graph, per output channel, before the Conv."""

    def standard(weight: str) -> str:
        centred = net.Sub(weight, net.reduce("Mean", weight, [1, 2, 3]))
        spread = net.Sqrt(net.Add(net.reduce("Mean", net.Mul(centred, centred), [1, 2, 3]), net.number(1e-4)))
        return net.Mul(net.Div(centred, spread), net.vector(16, shape=(16, 1, 1, 1)))

    y = net.Conv(net.Relu(start(net)), standard(net.weight(16, 16, 3, 3)), net.weight(16), pads=[1] * 4)
    close(net, y)


@case(share=0.35)
def weight_norm(net):
    """torch's weight_norm left in the graph: g * v / |v|, the norm taken per output."""
    v = net.weight(32, 16)
    size = net.ReduceL2(v, axes=[1], keepdims=1)
    weight = net.Mul(net.Div(v, size), net.vector(32, shape=(32, 1)))
    y = net.linear(net.input("batch", 16), 16, 16)
    y = net.Relu(net.Gemm(y, weight, net.weight(32), transB=1))
    net.output(net.gemm(net.Relu(net.gemm(y, 32, 16)), 16, 4))


@case(share=0.55)
def efficient_channel_attention(net):
    """ECA: Conv1d along the channel axis mixes neighbours, so it locks the gated tensor; the rest is free."""
    y = net.Relu(net.conv(net.Relu(start(net, 24)), 24, 16))
    s = net.transpose(net.squeeze(net.GlobalAveragePool(y), 3), 0, 2, 1)
    s = net.Conv(s, net.weight(1, 1, 3), pads=[1, 1])
    close(net, net.Mul(y, net.Sigmoid(net.unsqueeze(net.transpose(s, 0, 2, 1), 3))))


@case(share=0.55)
@case("opset22", share=0.55, opset=22)
def lp_normalisation(net):
    """Dividing by the L2 norm is exact: a removed channel adds nothing to it."""
    y = net.linear(net.input("batch", 8), 8, 16)
    net.output(net.linear(net.LpNormalization(y, axis=1, p=2), 16, 5))


@case(share=0.35)
def local_response(net):
    """LRN sees a window of channels: what enters it stays, what follows is free."""
    y = net.LRN(net.Relu(net.conv(net.Relu(start(net, 24)), 24, 8)), size=5)
    close(net, y, 8)


@case(share=0.4)
def softmax_over_channels(net):
    """Split attention (ResNeSt): softmax over the radix, not over the channels."""
    y = net.Relu(start(net, 32))
    halves = net.reshape(y, -1, 2, 16, 6, 6)
    pooled = net.GlobalAveragePool(net.reduce("Sum", halves, [1], keepdims=0))
    s = net.conv(net.Relu(net.conv(pooled, 16, 8, kernel=1)), 8, 32, kernel=1)
    s = net.Softmax(net.reshape(s, -1, 2, 16), axis=1)
    s = net.reshape(s, -1, 2, 16, 1, 1)
    close(net, net.reduce("Sum", net.Mul(halves, s), [1], keepdims=0))


@case(share=0.35)
def normalise_by_mean_variance(net):
    """MeanVarianceNormalization over the pixels has no epsilon: a zeroed channel is 0 / 0, so not exact."""
    close(net, net.MeanVarianceNormalization(start(net), axes=[0, 2, 3]))


@case(share=0.35)
def global_response_norm(net):
    """ConvNeXt v2: the mean over the channels is not exact; the layer after it is free."""
    y = net.transpose(start(net), 0, 2, 3, 1)
    size = net.ReduceL2(y, axes=[1, 2], keepdims=1)
    share = net.Div(size, net.Add(net.reduce("Mean", size, [-1]), net.number(1e-6)))
    y = net.Add(net.Mul(net.vector(16), net.Mul(y, share)), y)
    close(net, net.transpose(y, 0, 3, 1, 2))
