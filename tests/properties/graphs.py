"""A hypothesis strategy of random networks: blocks of every family stacked on images, tokens and vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.micro.build import Net

Draw = Callable[[st.SearchStrategy], int]
WIDTHS = (4, 6, 8, 12, 16)


@dataclass
class Stream:
    """A tensor while the network is drawn: (batch, width, *size) images, (batch, *size, width) tokens, vectors."""

    name: str
    width: int
    size: tuple[int, ...] = ()


@dataclass
class Canvas:
    """The net, the choices, and earlier tensors that later blocks may join."""

    net: Net
    draw: Draw
    earlier: list[Stream] = field(default_factory=list)
    weights: dict[int, str] = field(default_factory=dict)

    def pick(self, *options):
        """Choose one."""
        return self.draw(st.sampled_from(options))

    def width(self) -> int:
        """Choose a width."""
        return self.pick(*WIDTHS)

    def divisor(self, number: int) -> int:
        """Choose a number of groups."""
        return self.pick(*(d for d in (1, 2, 4) if number % d == 0))

    def partner(self, stream: Stream) -> Stream | None:
        """Choose an earlier tensor of the same rank and size."""
        fitting = [e for e in self.earlier if e.size == stream.size]
        return self.pick(*fitting) if fitting else None


Block = Callable[[Canvas, Stream], Stream]
IMAGE: list[Block] = []
TOKENS: list[Block] = []
VECTOR: list[Block] = []
ANY: list[Block] = []


def block(*families: list[Block]) -> Callable[[Block], Block]:
    """Register a block for families of streams."""

    def register(function: Block) -> Block:
        for family in families:
            family.append(function)
        return function

    return register


def axis_of(stream: Stream) -> int:
    """Return the channel axis."""
    return 2 if len(stream.size) == 1 else 1


def mixed(c: Canvas, s: Stream, width: int) -> str:
    """Draw the plainest layer that writes `width` channels."""
    if len(s.size) == 2:
        return c.net.conv(s.name, s.width, width, kernel=1)
    return c.net.linear(s.name, s.width, width)


@block(IMAGE)
def convolution(c: Canvas, s: Stream) -> Stream:
    width = c.width()
    return Stream(c.net.conv(s.name, s.width, width, c.pick(1, 3), c.pick(True, False)), width, s.size)


@block(IMAGE)
def grouped(c: Canvas, s: Stream) -> Stream:
    groups = c.divisor(s.width)
    width = groups * c.pick(2, 3, 4)
    return Stream(c.net.conv(s.name, s.width, width, group=groups), width, s.size)


@block(IMAGE)
def depthwise(c: Canvas, s: Stream) -> Stream:
    times = c.pick(1, 1, 2)
    return Stream(c.net.conv(s.name, s.width, s.width * times, group=s.width), s.width * times, s.size)


@block(IMAGE)
def transposed(c: Canvas, s: Stream) -> Stream:
    groups = c.divisor(s.width)
    each = c.pick(2, 3, 4)
    bias, weight = c.net.weight(each * groups), c.net.weight(s.width, each, 1, 1)
    return Stream(c.net.ConvTranspose(s.name, weight, bias, group=groups), each * groups, s.size)


@block(IMAGE)
def pooled(c: Canvas, s: Stream) -> Stream:
    kind = c.pick("MaxPool", "AveragePool")
    return Stream(c.net.op(kind, s.name, kernel_shape=[3, 3], pads=[1] * 4), s.width, s.size)


@block(IMAGE)
def normalised(c: Canvas, s: Stream) -> Stream:
    kind = c.pick("batch", "instance", "group")
    if kind == "batch":
        return Stream(c.net.norm(s.name, s.width), s.width, s.size)
    if kind == "instance":
        return Stream(
            c.net.InstanceNormalization(s.name, c.net.vector(s.width), c.net.weight(s.width)), s.width, s.size
        )
    groups = c.divisor(s.width)
    ones, zeros = c.net.constant(np.ones(groups, np.float32)), c.net.constant(np.zeros(groups, np.float32))
    y = c.net.InstanceNormalization(c.net.reshape(s.name, 0, groups, -1), ones, zeros)
    y = c.net.reshape(y, -1, s.width, *s.size)
    return Stream(c.net.Mul(y, c.net.vector(s.width, shape=(s.width, 1, 1))), s.width, s.size)


@block(IMAGE)
def shuffled(c: Canvas, s: Stream) -> Stream:
    groups = c.divisor(s.width)
    y = c.net.reshape(s.name, -1, groups, s.width // groups, *s.size)
    y = c.net.reshape(c.net.transpose(y, 0, 2, 1, 3, 4), -1, s.width, *s.size)
    return Stream(y, s.width, s.size)


@block(IMAGE)
def excited(c: Canvas, s: Stream) -> Stream:
    pooled_ = c.net.GlobalAveragePool(s.name)
    if c.pick(True, False):
        gate = c.net.conv(c.net.Relu(c.net.conv(pooled_, s.width, 4, kernel=1)), 4, s.width, kernel=1)
    else:
        gate = c.net.gemm(c.net.Relu(c.net.gemm(c.net.Flatten(pooled_), s.width, 4)), 4, s.width)
        gate = c.net.reshape(gate, 0, -1, 1, 1)
    return Stream(c.net.Mul(s.name, c.net.Sigmoid(gate)), s.width, s.size)


@block(IMAGE)
def pixels(c: Canvas, s: Stream) -> Stream:
    mode = c.pick("DCR", "CRD")
    wide = c.net.conv(s.name, s.width, 16, kernel=1)
    y = c.net.Relu(c.net.DepthToSpace(wide, blocksize=2, mode=mode))
    return Stream(c.net.SpaceToDepth(y, blocksize=2), 16, s.size)


@block(IMAGE)
def padded(c: Canvas, s: Stream) -> Stream:
    front, back = c.pick(0, 2), c.pick(0, 3)
    return Stream(c.net.pad(s.name, [0, front, 0, 0, 0, back, 0, 0]), s.width + front + back, s.size)


@block(IMAGE)
def last_axis(c: Canvas, s: Stream) -> Stream:
    """NHWC and back, with a dense layer between."""
    width = c.width()
    y = c.net.Relu(c.net.linear(c.net.transpose(s.name, 0, 2, 3, 1), s.width, width))
    return Stream(c.net.transpose(y, 0, 3, 1, 2), width, s.size)


@block(TOKENS, VECTOR)
def dense(c: Canvas, s: Stream) -> Stream:
    width = c.width()
    return Stream(c.net.linear(s.name, s.width, width, c.pick(True, False)), width, s.size)


@block(TOKENS)
def layer_norm(c: Canvas, s: Stream) -> Stream:
    return Stream(c.net.layer_norm(s.name, s.width, c.pick(True, c.net.opset < 17)), s.width, s.size)


@block(TOKENS)
def attention(c: Canvas, s: Stream) -> Stream:
    tokens, heads, dim = s.size[0], c.pick(1, 2, 4), c.pick(2, 4)
    if c.pick(True, False):
        packed = c.net.reshape(c.net.linear(s.name, s.width, 3 * heads * dim), -1, tokens, 3, heads, dim)
        packed = c.net.transpose(packed, 2, 0, 3, 1, 4)
        q, k, v = (c.net.Gather(packed, c.net.constant(np.array(i)), axis=0) for i in range(3))
    else:
        parts = (c.net.linear(s.name, s.width, heads * dim) for _ in range(3))
        q, k, v = (c.net.transpose(c.net.reshape(p, 0, 0, heads, dim), 0, 2, 1, 3) for p in parts)
    scores = c.net.Softmax(c.net.MatMul(q, c.net.transpose(k, 0, 1, 3, 2)), axis=-1)
    y = c.net.reshape(c.net.transpose(c.net.MatMul(scores, v), 0, 2, 1, 3), -1, tokens, heads * dim)
    return Stream(c.net.linear(y, heads * dim, s.width), s.width, s.size)


@block(TOKENS)
def recurrent(c: Canvas, s: Stream) -> Stream:
    kind, hidden, ways = c.pick("LSTM", "GRU", "RNN"), c.pick(4, 6), c.pick(1, 2)
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden
    weights = [c.net.weight(ways, rows, size, gain=0.4) for size in (s.width, hidden)]
    more = {"hidden_size": hidden, "direction": "bidirectional" if ways == 2 else "forward"}
    y = c.net.op(kind, c.net.transpose(s.name, 1, 0, 2), *weights, c.net.weight(ways, 2 * rows), **more)
    y = c.net.reshape(c.net.transpose(y, 2, 0, 1, 3), -1, s.size[0], ways * hidden)
    return Stream(y, ways * hidden, s.size)


@block(TOKENS)
def token_mixing(c: Canvas, s: Stream) -> Stream:
    y = c.net.linear(c.net.transpose(s.name, 0, 2, 1), s.size[0], 10)
    y = c.net.linear(c.net.Relu(y), 10, s.size[0])
    return Stream(c.net.transpose(y, 0, 2, 1), s.width, s.size)


@block(VECTOR)
def gemm(c: Canvas, s: Stream) -> Stream:
    width = c.width()
    y = c.net.gemm(s.name, s.width, width, c.pick(True, False))
    return Stream(c.net.norm(y, width) if c.pick(True, False) else y, width)


@block(ANY)
def activation(c: Canvas, s: Stream) -> Stream:
    kind = c.pick("Relu", "Sigmoid", "Tanh", "Softplus", "LeakyRelu", "swish")
    y = c.net.Mul(s.name, c.net.Sigmoid(s.name)) if kind == "swish" else c.net.op(kind, s.name)
    return Stream(y, s.width, s.size)


@block(ANY)
def constants(c: Canvas, s: Stream) -> Stream:
    shape = (s.width, 1, 1) if len(s.size) == 2 else (s.width,)
    return Stream(
        c.net.op(c.pick("Mul", "Add", "Div", "Sub"), s.name, c.net.vector(s.width, shape=shape)), s.width, s.size
    )


@block(ANY)
def residual(c: Canvas, s: Stream) -> Stream:
    """Add, multiply or take the maximum of this tensor and an earlier one."""
    other = c.partner(s) or s
    name = other.name if other.width == s.width else mixed(c, other, s.width)
    return Stream(c.net.op(c.pick("Add", "Mul", "Max"), s.name, name), s.width, s.size)


@block(ANY)
def concatenated(c: Canvas, s: Stream) -> Stream:
    other = c.partner(s) or s
    if other.width + s.width > 40:
        return s
    return Stream(c.net.Concat(s.name, other.name, axis=axis_of(s)), s.width + other.width, s.size)


@block(ANY)
def gated(c: Canvas, s: Stream) -> Stream:
    a, b = c.net.split(mixed(c, s, 2 * s.width), [s.width, s.width], axis=axis_of(s), equal=c.pick(True, False))
    return Stream(c.net.Mul(a, c.net.Sigmoid(b)), s.width, s.size)


@block(ANY)
def cut(c: Canvas, s: Stream) -> Stream:
    """Split unequally, treat one part, put it back in another order."""
    first = s.width // 3 + 1
    a, b = c.net.split(s.name, [first, s.width - first], axis=axis_of(s))
    part = mixed(c, Stream(a, first, s.size), 6)
    return Stream(c.net.Concat(b, c.net.Relu(part), axis=axis_of(s)), s.width - first + 6, s.size)


@block(ANY)
def sliced(c: Canvas, s: Stream) -> Stream:
    if s.width < 6:
        return s
    start, step = c.pick(0, 1, 2), c.pick(1, 1, 2)
    width = len(range(start, s.width - 1, step))
    return Stream(c.net.slice(s.name, start, s.width - 1, axis_of(s), step), width, s.size)


@block(ANY)
def gathered(c: Canvas, s: Stream) -> Stream:
    """Static indices: a permutation, or a choice with repeats."""
    rng = np.random.default_rng(c.pick(*range(20)))
    index = rng.permutation(s.width) if c.pick(True, False) else rng.integers(0, s.width, s.width)
    return Stream(c.net.Gather(s.name, index, axis=axis_of(s)), s.width, s.size)


@block(TOKENS, VECTOR)
def shared(c: Canvas, s: Stream) -> Stream:
    """One matrix for several layers of one width: an unrolled network."""
    weight = c.weights.setdefault(s.width, c.net.weight(s.width, s.width))
    return Stream(c.net.Tanh(c.net.MatMul(s.name, weight)), s.width, s.size)


@block(TOKENS, VECTOR)
def einsum(c: Canvas, s: Stream) -> Stream:
    width = c.width()
    return Stream(c.net.Einsum(s.name, c.net.weight(s.width, width), equation="...i,io->...o"), width, s.size)


@block(TOKENS, VECTOR)
def stored_as_integers(c: Canvas, s: Stream) -> Stream:
    width, axis = c.width(), c.pick(0, 1)
    codes = c.net.constant(c.net.rng.integers(-90, 90, size=(s.width, width)).astype(np.int8))
    scale = c.net.vector((s.width, width)[axis], 0.002, 0.01)
    point = c.net.constant(c.net.rng.integers(-3, 3, size=(s.width, width)[axis]).astype(np.int8))
    weight = c.net.DequantizeLinear(codes, scale, point, axis=axis)
    return Stream(c.net.MatMul(s.name, weight), width, s.size)


@block(TOKENS)
def computed_heads(c: Canvas, s: Stream) -> Stream:
    """Heads by targets from Shape, scores scaled by a size read from a shape."""
    heads, dim = c.pick(2, 4), c.pick(2, 4)
    parts = (c.net.linear(s.name, s.width, heads * dim) for _ in range(3))
    q, k, v = (c.net.transpose(c.net.computed_reshape(p, 0, 0, heads, dim), 0, 2, 1, 3) for p in parts)
    size = c.net.Cast(c.net.Gather(c.net.Shape(q), c.net.constant(np.array(-1)), axis=0), to=1)
    scores = c.net.Div(c.net.MatMul(q, c.net.transpose(k, 0, 1, 3, 2)), c.net.Sqrt(size))
    y = c.net.transpose(c.net.MatMul(c.net.Softmax(scores, axis=-1), v), 0, 2, 1, 3)
    return Stream(c.net.computed_reshape(y, 0, 0, -1), heads * dim, s.size)


@block(ANY)
def branches(c: Canvas, s: Stream) -> Stream:
    """An If whose branches read this tensor."""
    flag = c.net.Greater(c.net.reduce("Max", s.name, list(range(2 + len(s.size))), keepdims=0), c.net.number(0.3))
    bodies = []
    for kind in ("Relu", "Neg"):
        child = c.net.child()
        child.output(child.op(kind, s.name))
        bodies.append(child.graph())
    return Stream(c.net.If(flag, then_branch=bodies[0], else_branch=bodies[1]), s.width, s.size)


def start(c: Canvas) -> Stream:
    """Draw the input and a first layer, so that some width is free."""
    kind, width = c.pick("image", "tokens", "vector"), c.pick(8, 12, 16)
    if kind == "image":
        return Stream(c.net.conv(c.net.input("batch", 3, 4, 4), 3, width), width, (4, 4))
    shape = ("batch", 5, 6) if kind == "tokens" else ("batch", 6)
    return Stream(c.net.linear(c.net.input(*shape), 6, width), width, (5,) if kind == "tokens" else ())


def onward(c: Canvas, s: Stream) -> Stream:
    """Turn an image into tokens or a vector, tokens into a vector."""
    if len(s.size) == 2 and c.pick(True, False):
        tokens = s.size[0] * s.size[1]
        return Stream(c.net.transpose(c.net.reshape(s.name, 0, -1, tokens), 0, 2, 1), s.width, (tokens,))
    if len(s.size) == 2:
        if c.pick(True, False):
            return Stream(c.net.Flatten(c.net.GlobalAveragePool(s.name)), s.width)
        return Stream(c.net.Flatten(s.name), s.width * s.size[0] * s.size[1])
    if len(s.size) == 1 and c.pick(True, False):
        return Stream(c.net.reshape(s.name, -1, s.size[0] * s.width), s.size[0] * s.width)
    return Stream(c.net.reduce("Mean", s.name, [1], keepdims=0), s.width) if s.size else s


@st.composite
def networks(draw) -> onnx.ModelProto:
    """Draw a network of 3 to 9 blocks and a head."""
    opset, style = draw(st.sampled_from((13, 17, 18, 21))), draw(st.sampled_from(("initializer", "constant")))
    net = Net(opset, style, seed=draw(st.integers(0, 99)))
    canvas = Canvas(net, draw)
    stream = start(canvas)
    for _ in range(draw(st.integers(3, 9))):
        canvas.earlier.append(stream)
        if canvas.pick(*[False] * 6, True):
            stream = onward(canvas, stream)
            continue
        own = (VECTOR, TOKENS, IMAGE)[len(stream.size)]
        stream = canvas.pick(*own, *ANY)(canvas, stream)
    while stream.size:
        stream = onward(canvas, stream)
    net.output(net.gemm(net.Relu(net.gemm(stream.name, stream.width, 8)), 8, 3))
    return net.model()
