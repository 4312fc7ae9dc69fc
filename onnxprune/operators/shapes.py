"""Shapes that operators give which onnx has no schema for (source: onnxruntime, ContribOperators.md)."""

from __future__ import annotations

import numpy as np

from onnxprune.operators.call import Call, Shape

Shapes = list[Shape]


def broadcast(*shapes: Shape) -> Shape:
    """Return the common shape of operands that are combined element by element."""
    return tuple(int(d) for d in np.broadcast_shapes(*shapes))


def multiplied(a: Shape, b: Shape) -> Shape:
    """Return the shape of a matrix product with broadcast stacks."""
    if len(b) == 1:
        return a[:-1]
    if len(a) == 1:
        return (*b[:-2], b[-1])
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def windows(call: Call, size: Shape, kernel: Shape) -> Shape:
    """Return the sizes after a window has moved over each spatial axis."""
    rank = len(size)
    strides = call.attribute("strides") or [1] * rank
    dilations = call.attribute("dilations") or [1] * rank
    pads = call.attribute("pads") or [0] * (2 * rank)
    same = call.attribute("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    result = []
    for axis in range(rank):
        room = size[axis] + pads[axis] + pads[axis + rank] - (kernel[axis] - 1) * dilations[axis] - 1
        steps = -(-room // strides[axis]) if call.attribute("ceil_mode", 0) else room // strides[axis]
        result.append(-(-size[axis] // strides[axis]) if same else steps + 1)
    return tuple(result)


def space(call: Call) -> tuple[int, Shape]:
    """Return channels and spatial sizes of the first input."""
    x = call.input(0)
    return (x[-1], x[1:-1]) if _channels_last(call) else (x[1], x[2:])


def placed(call: Call, channels: int, size: Shape) -> Shapes:
    """Return an output of so many channels and these spatial sizes."""
    batch = call.input(0)[0]
    return [(batch, *size, channels) if _channels_last(call) else (batch, channels, *size)]


def _channels_last(call: Call) -> bool:
    return bool(call.attribute("channels_last", 0)) or call.op_type.startswith("Nhwc")


def convolved(call: Call) -> Shapes:
    """Return the output of a convolution; that of integers has its weight at input 3."""
    weight = call.input(3 if call.op_type == "QLinearConv" else 1)
    return placed(call, weight[0], windows(call, space(call)[1], weight[2:]))


def product(call: Call) -> Shapes:
    """Return a matrix product, its operands turned where attributes say so."""
    a, b = call.input(0), call.input(1)
    if call.attribute("transA", 0):
        a = (*a[:-2], a[-1], a[-2])
    if call.attribute("transB", 0):
        b = (*b[:-2], b[-1], b[-2])
    return [multiplied(a, b)]


def general_product(call: Call) -> Shapes:
    """Return the product of two matrices; that of integers has its weight at input 3."""
    a, b = call.input(0), call.input(3 if call.op_type == "QGemm" else 1)
    rows = a[1] if call.attribute("transA", 0) else a[0]
    columns = b[0] if call.attribute("transB", 0) else b[1]
    return [(rows, columns)]


def packed_product(call: Call) -> Shapes:
    """Return a product with a weight whose size an attribute tells."""
    return [(*call.input(0)[:-1], int(call.attribute("N")))]


def recurrence(call: Call) -> Shapes:
    """Return all states, the last one, and the last cell."""
    steps, batch = call.input(0)[:2]
    directions, hidden = call.input(2)[:2]
    state = (directions, batch, hidden)
    return [(steps, *state), state, state]


def packed_attention(call: Call) -> Shapes:
    """Return the output and keys with values of all positions."""
    x, w = call.input(0), call.input(1)
    sizes = call.attribute("qkv_hidden_sizes")
    width, heads = sizes[2] if sizes else w[1] // 3, call.attribute("num_heads")
    past = call.optional(4)
    length = x[1] + (past[3] if past is not None else 0)
    return [(*x[:2], width), (2, x[0], heads, length, width // heads)]


def multi_head_attention(call: Call) -> Shapes:
    """Return the output, keys, values and scores."""
    q, heads = call.input(0), call.attribute("num_heads")
    if len(q) == 5:
        return [(q[0], q[1], q[2] * q[4])]
    key, value, past = call.optional(1), call.optional(2), call.optional(6)
    key = q if key is None else key
    length = key[2] if len(key) == 4 else key[1]
    value = (key if len(key) == 5 else q) if value is None else value
    value_width = value[-1] if len(value) > 3 else value[-1] // heads
    length += past[2] if past is not None else 0
    present = [(q[0], heads, length, width) for width in (q[-1] // heads, value_width)]
    return [(q[0], q[1], heads * value_width), *present, (q[0], heads, q[1], length)]


def group_query_attention(call: Call) -> Shapes:
    """Return the output, keys, values and scores; query, key and value may be packed in one."""
    q = call.input(0)
    heads, shared = call.attribute("num_heads"), call.attribute("kv_num_heads")
    width = q[-1] if call.optional(1) is not None else q[-1] * heads // (heads + 2 * shared)
    past = call.optional(3)
    length = q[1] + (past[2] if past is not None else 0)
    present = (q[0], shared, length, width // heads)
    return [(q[0], q[1], width), present, present, (q[0], heads, q[1], length)]
