"""Operators that index, pad, resize or count along the channels."""

import numpy as np

from tests.micro.build import Net, case


def start(net: Net, size: int = 16) -> str:
    """Draw the input and one Conv."""
    return net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, size))


def close(net: Net, y: str, size: int) -> None:
    """Draw Conv -> Conv -> output."""
    net.output(net.conv(net.Relu(net.conv(y, size, 16)), 16, 4))


@case(share=0.3)
@case("opset9", share=0.3, opset=9)
def pad_channels(net):
    """Option A shortcuts: zero channels are appended and added to real ones."""
    y = start(net)
    short = net.pad(y, [0, 4, 0, 0, 0, 4, 0, 0])
    close(net, net.Add(short, net.conv(y, 16, 24)), 24)


@case(share=0.35)
def pad_pixels(net):
    y = net.pad(start(net), [0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")
    close(net, net.pad(y, [0, 0, 1, 0, 0, 0, 0, 1], mode="edge"), 16)


@case(share=0.35)
@case("opset18_axes", share=0.35, opset=18)
def pad_with_a_value(net):
    y = start(net)
    pads = [net.constant(np.array([2, 1])), net.number(0.5)]
    y = (
        net.Pad(y, *pads, net.constant(np.array([1])))
        if net.opset == 18
        else net.Pad(y, np.array([0, 2, 0, 0, 0, 1, 0, 0]), pads[1])
    )
    close(net, y, 19)


@case(share=0.35)
@case("opset11", share=0.35, opset=11)
def resize_by_sizes_from_shape(net):
    """torch's interpolate: the first two sizes are sliced from the shape, the last two computed."""
    a = start(net)
    b = net.Relu(net.conv(net.MaxPool(a, kernel_shape=[2, 2], strides=[2, 2]), 16, 12))
    sizes = net.Concat(net.slice(net.Shape(b), 0, 2, 0), net.slice(net.Shape(a), 2, 4, 0), axis=0)
    empty = net.constant(np.zeros(0, np.float32))
    up = net.Resize(
        b, empty, empty if net.opset < 13 else None, sizes, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    close(net, net.Concat(a, up, axis=1), 28)


@case(share=0.35)
def resize_by_static_sizes(net):
    x = net.input(2, 3, 6, 6)
    y = net.Relu(net.conv(x, 3, 16))
    close(net, net.Resize(y, None, None, np.array([2, 16, 9, 9]), mode="nearest"), 16)


@case(share=0.45)
def gather_some_channels(net):
    """Static indices, with one channel taken twice and some not at all."""
    y = net.Gather(start(net), np.array([0, 3, 3, 5, 6, 7, 9, -1, -2, 12]), axis=1)
    close(net, y, 10)


@case(share=0.35)
def slice_with_steps_and_negative_bounds(net):
    y = start(net)
    a, b = net.slice(y, -1, -17, 1, -1), net.slice(y, 1, 2**40, 1, 3)
    close(net, net.Concat(a, b, axis=1), 21)


@case(share=0.35)
def slice_drops_channels(net):
    y = net.slice(net.conv(start(net), 16, 24), 2, 18)
    close(net, y, 16)


@case(share=0.4)
def argmax_over_channels(net):
    """The answer is an index, so the classes stay and the layers before go."""
    y = net.conv(net.Relu(net.conv(start(net), 16, 16)), 16, 6)
    net.output(net.ArgMax(y, axis=1, keepdims=0))


@case(share=0.55)
@case("opset10", share=0.55, opset=10)
def top_k_of_features(net):
    y = net.linear(net.Relu(net.linear(net.input("batch", 8), 8, 32)), 32, 12)
    values, _ = net.TopK(y, np.array([4]), axis=1, outputs=2)
    net.output(net.linear(net.Relu(net.linear(values, 4, 24)), 24, 3))


@case(share=0.55)
def one_hot(net):
    tokens = net.input("batch", 6, name="tokens", dtype=np.int64)
    y = net.OneHot(tokens, net.constant(np.array(10)), net.constant(np.array([0, 1], np.float32)), axis=-1)
    net.output(net.linear(net.Relu(net.linear(y, 10, 32)), 32, 3))


@case(share=0.55)
def embedding_sum(net):
    """Embedding rows stay, columns go."""
    tokens = net.input("batch", 6, name="tokens", dtype=np.int64)
    y = net.reduce("Sum", net.Gather(net.weight(20, 16), tokens, axis=0), [1], keepdims=0)
    net.output(net.linear(y, 16, 3))


@case(share=0.45)
def max_over_positions(net):
    """ReduceMax over the pixels keeps the channels apart."""
    y = net.reduce("Max", start(net), [2, 3], keepdims=0)
    net.output(net.linear(net.Relu(net.linear(y, 16, 12)), 12, 3))


@case(share=0.35)
def sum_over_channels(net):
    """A sum is exact: a removed channel adds zero."""
    y = net.reduce("Sum", net.Mul(net.conv(start(net), 16, 12), net.vector(12, shape=(12, 1, 1))), [1])
    net.output(net.conv(y, 1, 4))


@case(share=0.4)
def dot_product_of_two_towers(net):
    """CLIP: both towers end in one contraction."""
    a, b = (net.linear(net.Relu(net.linear(net.input("batch", 8, name=n), 8, 32)), 32, 16) for n in ("image", "text"))
    net.output(net.reduce("Sum", net.Mul(a, b), [1]))


@case(share=0.55)
def where_by_static_mask(net):
    y = net.linear(net.input("batch", 8), 8, 16)
    mask = net.constant(np.arange(16) % 3 > 0)
    net.output(net.linear(net.Where(mask, y, net.number(0.25)), 16, 3))


@case(share=0.4)
def scatter_elements_pins(net):
    """ScatterND writes pixels by static indices; channels behind it stay or follow, never break."""
    y = net.linear(net.Relu(net.linear(net.input(2, 4, 8), 8, 24)), 24, 8)
    index = np.array([[[0, 1]], [[1, 2]]])
    y = net.ScatterND(y, net.constant(index), net.weight(2, 1, 8))
    net.output(net.linear(net.Relu(net.linear(y, 8, 24)), 24, 3))


@case(share=0.4)
def grid_sample(net):
    y = start(net)
    grid = net.constant(net.rng.uniform(-1, 1, size=(2, 5, 5, 2)).astype(np.float32))
    y = net.GridSample(net.slice(net.Concat(y, y, axis=0), 0, 2, 0), grid)
    close(net, y, 16)


@case(share=0.55)
def cumulative_sum_over_positions(net):
    y = net.CumSum(net.linear(net.input("batch", 6, 8), 8, 16), np.array(1))
    net.output(net.linear(y, 16, 3))


@case(share=0.55)
def cumulative_sum_over_channels(net):
    """CumSum mixes the channels, so they stay."""
    y = net.CumSum(net.linear(net.Relu(net.linear(net.input("batch", 6, 8), 8, 32)), 32, 8), np.array(2))
    net.output(net.linear(y, 8, 3))


@case(share=0.45)
def shape_arithmetic_with_a_channel_count(net):
    """Reshape((B, -1, C)) with C read from the tensor's own shape."""
    y = start(net)
    sizes = net.Shape(y)
    batch, channels = (net.unsqueeze(net.Gather(sizes, net.constant(np.array(i)), axis=0), 0) for i in (0, 1))
    pixels = net.unsqueeze(net.Mul(*(net.Gather(sizes, net.constant(np.array(i)), axis=0) for i in (2, 3))), 0)
    flat = net.Reshape(net.transpose(y, 0, 2, 3, 1), net.Concat(batch, pixels, channels, axis=0))
    net.output(net.linear(net.Relu(net.linear(flat, 16, 24)), 24, 3))


@case(share=0.55)
def expand_like_another(net):
    """A per-channel token expanded to the shape of the stream."""
    y = net.linear(net.input("batch", 6, 8), 8, 16)
    y = net.Add(y, net.Expand(net.weight(1, 1, 16), net.Shape(y)))
    net.output(net.linear(y, 16, 3))


@case(share=0.55)
def zeros_of_the_shape(net):
    """ConstantOfShape(Shape(y)) follows the pruned width."""
    y = net.linear(net.input("batch", 6, 8), 8, 16)
    y = net.Concat(y, net.ConstantOfShape(net.Shape(y)), axis=1)
    net.output(net.linear(y, 16, 3))
