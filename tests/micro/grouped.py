"""Pattern 3: channel shuffle, grouped and depthwise convolutions."""

import numpy as np

from tests.micro.build import Net, case


def shuffle(net: Net, x: str, channels: int, groups: int, size: int, computed: bool = False) -> str:
    """Draw ShuffleNet's Reshape -> Transpose -> Reshape."""
    reshape = net.computed_reshape if computed else net.reshape
    lead = 0 if computed else -1
    y = net.transpose(reshape(x, lead, groups, channels // groups, size, size), 0, 2, 1, 3, 4)
    return reshape(y, lead, channels, size, size)


def head(net: Net, x: str, channels: int) -> None:
    """Draw GlobalAveragePool -> Gemm and declare the output."""
    net.output(net.gemm(net.Flatten(net.GlobalAveragePool(x)), channels, 5))


@case(share=0.5)
@case("opset9", share=0.5, opset=9)
def grouped_conv(net):
    """ResNeXt: 1x1 -> grouped 3x3 -> 1x1."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16, kernel=1))
    y = net.Relu(net.conv(y, 16, 16, group=4))
    head(net, net.Relu(net.conv(y, 16, 16, kernel=1)), 16)


@case(share=0.3)
def two_grouped_convs_in_a_row(net):
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16, kernel=1))
    y = net.Relu(net.conv(y, 16, 32, group=4))
    y = net.Relu(net.conv(y, 32, 16, group=4))
    head(net, y, 16)


@case(share=0.3)
def mixed_group_counts_in_one_residual(net):
    """One residual stream is read in groups of 2, of 4 and as a whole."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    y = net.Add(y, net.conv(y, 16, 16, group=2))
    y = net.Add(y, net.conv(y, 16, 16, group=4))
    y = net.Add(y, net.conv(y, 16, 16))
    head(net, net.Relu(y), 16)


@case(share=0.45)
@case("opset7", share=0.45, opset=7)
@case("opset13_constants", share=0.45, opset=13, weights="constant")
def inverted_residual(net):
    """MobileNetV2: expand, depthwise, project, add."""
    y = net.conv(net.input("batch", 3, 6, 6), 3, 8)
    z = net.Clip(
        net.norm(net.conv(y, 8, 32, kernel=1), 32),
        *([0.0, 6.0] if net.opset >= 11 else []),
        **({} if net.opset >= 11 else {"min": 0.0, "max": 6.0}),
    )
    z = net.Relu(net.norm(net.conv(z, 32, 32, group=32, bias=False), 32))
    head(net, net.Add(y, net.norm(net.conv(z, 32, 8, kernel=1), 8)), 8)


@case(share=0.45)
@case("constants", share=0.45, weights="constant")
def depthwise_multiplier(net):
    """Depthwise with two outputs per input: they live and die together."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 8))
    y = net.Relu(net.conv(y, 8, 16, group=8))
    head(net, net.Relu(net.conv(y, 16, 16, kernel=1)), 16)


@case(share=0.3)
def depthwise_multiplier_on_the_input(net):
    """The three input channels stay, but each keeps some of its four outputs."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 12, group=3))
    head(net, net.Relu(net.conv(y, 12, 16)), 16)


@case(share=0.45)
@case("opset7", share=0.45, opset=7)
def conv_transpose(net):
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    y = net.ConvTranspose(y, net.weight(16, 8, 2, 2), net.weight(8), strides=[2, 2])
    net.output(net.conv(net.Relu(y), 8, 3))


@case(share=0.45)
def grouped_conv_transpose(net):
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    y = net.ConvTranspose(y, net.weight(16, 4, 3, 3), net.weight(16), strides=[2, 2], group=4)
    y = net.ConvTranspose(net.Relu(y), net.weight(16, 1, 2, 2), strides=[2, 2], group=16)
    net.output(net.conv(net.Relu(y), 16, 3))


@case(share=0.45)
@case("computed", share=0.45, opset=11)
@case("opset9", share=0.45, opset=9)
def shuffle_v1(net):
    """ShuffleNet v1: grouped 1x1 -> shuffle -> depthwise -> grouped 1x1 + residual."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    z = net.Relu(net.conv(y, 16, 16, kernel=1, group=2))
    z = shuffle(net, z, 16, 2, 6, computed=net.opset == 11)
    z = net.conv(net.conv(z, 16, 16, group=16), 16, 16, kernel=1, group=2)
    y = net.Relu(net.Add(y, z))
    head(net, net.Relu(net.conv(y, 16, 16, kernel=1)), 16)


@case(share=0.45)
@case("opset11", share=0.45, opset=11)
@case("opset18", share=0.45, opset=18)
def shuffle_v2(net):
    """ShuffleNet v2: split, branch, concat, shuffle."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    for _ in range(2):
        a, b = net.split(y, [8, 8], equal=True)
        b = net.Relu(net.conv(b, 8, 8, kernel=1))
        b = net.conv(net.conv(b, 8, 8, group=8), 8, 8, kernel=1)
        y = shuffle(net, net.Concat(a, net.Relu(b), axis=1), 16, 2, 6)
    head(net, net.Relu(net.conv(y, 16, 16, kernel=1)), 16)


@case(share=0.35)
def shuffle_by_gather(net):
    """A channel permutation by static indices."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    y = net.Gather(y, np.arange(16).reshape(2, 8).T.ravel(), axis=1)
    head(net, net.Relu(net.conv(y, 16, 16)), 16)


@case(share=0.5)
def depthwise_after_concat(net):
    x = net.input("batch", 3, 6, 6)
    y = net.Concat(net.Relu(net.conv(x, 3, 8)), net.Relu(net.conv(x, 3, 12, kernel=1)), axis=1)
    head(net, net.conv(net.Relu(net.conv(y, 20, 20, group=20)), 20, 8, kernel=1), 8)


@case(share=0.45)
def ghost_module(net):
    """GhostNet: cheap depthwise features beside the primary ones, then a Slice."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 10, kernel=1))
    y = net.Concat(y, net.Relu(net.conv(y, 10, 10, group=10)), axis=1)
    head(net, net.conv(net.slice(y, 0, 18), 18, 12, kernel=1), 12)
