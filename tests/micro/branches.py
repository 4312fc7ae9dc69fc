"""Pattern 8: concatenations that meet plain branches, splits, cascades."""

import numpy as np

from tests.micro.build import Net, case


def start(net: Net, size: int = 16) -> str:
    """Draw the input and one Conv."""
    return net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, size))


def close(net: Net, y: str, size: int) -> None:
    """Draw Conv -> output."""
    net.output(net.conv(net.Relu(net.conv(y, size, 8)), 8, 4))


@case(share=0.35)
@case("opset9", share=0.35, opset=9)
def add_of_concat_and_plain(net):
    y = start(net)
    parts = net.Concat(net.conv(y, 16, 6), net.conv(y, 16, 10, kernel=1), axis=1)
    close(net, net.Relu(net.Add(parts, net.conv(y, 16, 16))), 16)


@case(share=0.35)
def add_of_two_concats_with_other_borders(net):
    y = start(net)
    a = net.Concat(net.conv(y, 16, 6), net.conv(y, 16, 10, kernel=1), axis=1)
    b = net.Concat(net.conv(y, 16, 12, kernel=1), net.conv(y, 16, 4), axis=1)
    close(net, net.Add(a, b), 16)


@case(share=0.4)
def concat_with_the_input_added(net):
    """The first three channels meet the graph input, the others are free."""
    x = net.input("batch", 3, 6, 6)
    y = net.Relu(net.conv(x, 3, 16))
    zeros = net.constant(np.zeros((1, 13, 6, 6), np.float32))
    wide = net.Concat(
        x, net.Expand(zeros, net.Concat(net.slice(net.Shape(x), 0, 1, 0), np.array([13, 6, 6]), axis=0)), axis=1
    )
    close(net, net.Add(wide, net.conv(y, 16, 16)), 16)


@case(share=0.35)
@case("constants", share=0.35, weights="constant")
@case("opset11", share=0.35, opset=11)
def c2f_by_split(net):
    """YOLOv8: split, a chain of bottlenecks, everything concatenated."""
    y = net.Relu(net.conv(start(net), 16, 16, kernel=1))
    parts = list(net.split(y, [8, 8]))
    for _ in range(2):
        z = net.Relu(net.conv(net.Relu(net.conv(parts[-1], 8, 8)), 8, 8))
        parts.append(net.Add(parts[-1], z))
    close(net, net.Relu(net.conv(net.Concat(*parts, axis=1), 32, 16, kernel=1)), 16)


@case(share=0.35)
@case("opset9", share=0.35, opset=9)
def c2f_by_slice(net):
    y = net.Relu(net.conv(start(net), 16, 16, kernel=1))
    half = net.slice(y, 8, 16)
    z = net.Add(half, net.conv(half, 8, 8))
    close(net, net.Concat(y, z, axis=1), 24)


@case(share=0.35)
@case("opset18", share=0.35, opset=18)
def res2net(net):
    """A cascade: every quarter adds the previous one's output."""
    parts = net.split(start(net), [4, 4, 4, 4], equal=True)
    outs = [parts[0], net.Relu(net.conv(parts[1], 4, 4))]
    for part in parts[2:]:
        outs.append(net.Relu(net.conv(net.Add(part, outs[-1]), 4, 4)))
    close(net, net.Concat(*outs, axis=1), 16)


@case(share=0.35)
def concat_of_the_same_twice(net):
    y = start(net)
    close(net, net.Concat(y, y, axis=1), 32)


@case(share=0.35)
def concat_of_a_tensor_and_its_activation(net):
    """CReLU."""
    y = start(net)
    close(net, net.Relu(net.Concat(y, net.Neg(y), axis=1)), 32)


@case(share=0.35)
def tile_of_channels(net):
    y = start(net)
    close(net, net.Tile(y, np.array([1, 2, 1, 1])), 32)


@case(share=0.4)
def split_into_unequal_parts(net):
    a, b, c = net.split(start(net), [4, 8, 4])
    a = net.Mul(net.conv(a, 4, 8), b)
    close(net, net.Concat(a, c, axis=1), 12)


@case(share=0.3)
@case("opset11", share=0.3, opset=11)
@case("opset13", share=0.3, opset=13)
def gated_linear_unit(net):
    a, b = net.split(net.conv(start(net), 16, 32), [16, 16], equal=True)
    close(net, net.Mul(a, net.Sigmoid(b)), 16)


@case(share=0.35)
def swiglu_packed(net):
    """Gate and value in one MatMul, cut by Slice."""
    y = net.linear(net.linear(net.input("batch", 6, 8), 8, 16), 16, 64)
    a, b = net.slice(y, 0, 32, 2), net.slice(y, 32, 64, 2)
    net.output(net.linear(net.Mul(net.Mul(a, net.Sigmoid(a)), b), 32, 5))


@case(share=0.35)
def inception(net):
    y = start(net)
    parts = [net.conv(y, 16, 6, kernel=1), net.conv(net.Relu(net.conv(y, 16, 8, kernel=1)), 8, 10)]
    parts.append(net.conv(net.MaxPool(y, kernel_shape=[3, 3], pads=[1] * 4), 16, 4, kernel=1))
    close(net, net.Relu(net.Concat(*parts, axis=1)), 20)


@case(share=0.35)
@case("opset9", share=0.35, opset=9)
@case("opset11", share=0.35, opset=11)
def unet(net):
    """Down, up by Resize, skip by Concat."""
    a = start(net, 8)
    b = net.Relu(net.conv(net.MaxPool(a, kernel_shape=[2, 2], strides=[2, 2]), 8, 16))
    scales = np.array([1, 1, 2, 2], np.float32)
    up = (
        net.Upsample(b, scales)
        if net.opset == 9
        else net.Resize(b, None if net.opset > 11 else np.zeros(0, np.float32), scales)
    )
    up = net.ConvTranspose(
        net.MaxPool(up, kernel_shape=[2, 2], strides=[2, 2]), net.weight(16, 8, 2, 2), strides=[2, 2]
    )
    close(net, net.Concat(a, up, axis=1), 16)


@case(share=0.45)
def concat_of_many_plain_features(net):
    """MLP with the raw input beside the hidden layer."""
    x = net.input("batch", 8)
    y = net.Concat(x, net.Relu(net.gemm(x, 8, 16)), axis=1)
    net.output(net.gemm(net.Relu(net.gemm(y, 24, 16)), 16, 3))


@case(share=0.3)
def sum_mean_max_of_branches(net):
    y = start(net)
    a, b, c = (net.conv(y, 16, 12) for _ in range(3))
    close(net, net.Add(net.Max(a, b, c), net.Add(net.Sum(a, b), net.Mean(b, c))), 12)
