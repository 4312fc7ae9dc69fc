"""Output shapes and types of operators that onnx has no schema for (source: onnxruntime, ContribOperators.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from onnxprune.graph.view import Node

Shape = tuple[int, ...]
Shapes = list[Shape | None]
Known = list[Shape]

DOMAINS = ("", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")

TYPE_SOURCES = {
    "DequantizeLinear": 1,
    "QuantizeLinear": 2,
    "QLinearConcat": 1,
    "QLinearWhere": 1,
    "QGemm": 8,
    "EmbedLayerNormalization": 2,
    "MatMulIntegerToFloat": 2,
}
"""Operator -> the input whose type its output has; the first one for all others."""

COMPARISONS = ("GreaterOrEqual", "LessOrEqual")
"""Functions of opset 12, for which onnx infers nothing."""


def contrib_type(node: Node, inputs: list[int]) -> int:
    """Return the `onnx.TensorProto` data type of the first output, 0 where it is unknown."""
    if node.op_type in COMPARISONS:
        return int(TensorProto.BOOL)
    source = TYPE_SOURCES.get(node.op_type, 0)
    if source < len(inputs) and inputs[source]:
        return inputs[source]
    if node.op_type == "QuantizeLinear":
        return int(TensorProto.UINT8)
    return int(TensorProto.FLOAT) if source else 0


def contrib_shapes(node: Node, inputs: Shapes) -> Shapes:
    """Return the shape of each output, None where it is unknown."""
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain not in DOMAINS or not inputs or inputs[0] is None:
        return [None] * len(node.outputs)
    try:
        found = rule(node, [() if shape is None else shape for shape in inputs])
    except (TypeError, IndexError, ValueError, ZeroDivisionError):
        found = []
    return [*found, *[None] * len(node.outputs)][: len(node.outputs)]


def _has(node: Node, index: int) -> bool:
    return node.has_input(index)


def _like_first(node: Node, inputs: Known) -> Shapes:
    return [inputs[0]]


def _normalised(node: Node, inputs: Known) -> Shapes:
    x = inputs[0]
    axis = node.attribute("axis", -1) % len(x)
    statistics = (*x[:axis], *[1] * (len(x) - axis))
    return [x, statistics, statistics, x]


def _embedded(node: Node, inputs: Known) -> Shapes:
    embedded = (*inputs[0], inputs[2][1])
    return [embedded, inputs[0][:1], embedded]


def _halved(node: Node, inputs: Known) -> Shapes:
    return [(*inputs[0][:-1], inputs[0][-1] // 2)]


def _twice(node: Node, inputs: Known) -> Shapes:
    return [inputs[0], inputs[0]]


def _broadcast(*shapes: Shape) -> Shape:
    return tuple(int(d) for d in np.broadcast_shapes(*shapes))


# --- matrix products --------------------------------------------------------------------------------------------


def _multiplied(a: Shape, b: Shape) -> Shape:
    if len(b) == 1:
        return a[:-1]
    if len(a) == 1:
        return (*b[:-2], b[-1])
    return (*_broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def _matmul(node: Node, inputs: Known) -> Shapes:
    return [_multiplied(inputs[0], inputs[1])]


def _fused_matmul(node: Node, inputs: Known) -> Shapes:
    a, b = inputs[0], inputs[1]
    if node.attribute("transA", 0):
        a = (*a[:-2], a[-1], a[-2])
    if node.attribute("transB", 0):
        b = (*b[:-2], b[-1], b[-2])
    return [_multiplied(a, b)]


def _gemm(node: Node, inputs: Known) -> Shapes:
    a, b = inputs[0], inputs[3 if node.op_type == "QGemm" else 1]
    rows = a[1] if node.attribute("transA", 0) else a[0]
    columns = b[0] if node.attribute("transB", 0) else b[1]
    return [(rows, columns)]


def _packed_matmul(node: Node, inputs: Known) -> Shapes:
    return [(*inputs[0][:-1], int(node.attribute("N")))]


# --- attention --------------------------------------------------------------------------------------------------


def _attention(node: Node, inputs: Known) -> Shapes:
    x, w = inputs[0], inputs[1]
    sizes = node.attribute("qkv_hidden_sizes")
    width, heads = sizes[2] if sizes else w[1] // 3, node.attribute("num_heads")
    past = inputs[4][3] if _has(node, 4) else 0
    return [(*x[:2], width), (2, x[0], heads, past + x[1], width // heads)]


def _multi_head_attention(node: Node, inputs: Known) -> Shapes:
    q, heads = inputs[0], node.attribute("num_heads")
    if len(q) == 5:
        return [(q[0], q[1], q[2] * q[4])]
    key = inputs[1] if _has(node, 1) else q
    length = key[2] if len(key) == 4 else key[1]
    value = inputs[2] if _has(node, 2) else key if len(key) == 5 else q
    value_width = value[-1] if len(value) > 3 else value[-1] // heads
    length += inputs[6][2] if _has(node, 6) else 0
    present = [(q[0], heads, length, width) for width in (q[-1] // heads, value_width)]
    return [(q[0], q[1], heads * value_width), *present, (q[0], heads, q[1], length)]


def _group_query_attention(node: Node, inputs: Known) -> Shapes:
    q = inputs[0]
    heads, shared = node.attribute("num_heads"), node.attribute("kv_num_heads")
    width = q[-1] if _has(node, 1) else q[-1] * heads // (heads + 2 * shared)
    length = q[1] + (inputs[3][2] if _has(node, 3) else 0)
    present = (q[0], shared, length, width // heads)
    return [(q[0], q[1], width), present, present, (q[0], heads, q[1], length)]


# --- convolutions and pooling -----------------------------------------------------------------------------------


def _windows(node: Node, size: Shape, kernel: Shape) -> Shape:
    """Sizes after a window has moved over each spatial axis."""
    rank = len(size)
    strides = node.attribute("strides") or [1] * rank
    dilations = node.attribute("dilations") or [1] * rank
    pads = node.attribute("pads") or [0] * (2 * rank)
    same = node.attribute("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    result = []
    for axis in range(rank):
        room = size[axis] + pads[axis] + pads[axis + rank] - (kernel[axis] - 1) * dilations[axis] - 1
        steps = -(-room // strides[axis]) if node.attribute("ceil_mode", 0) else room // strides[axis]
        result.append(-(-size[axis] // strides[axis]) if same else steps + 1)
    return tuple(result)


def _placed(node: Node, x: Shape, channels: int, size: Shape) -> Shapes:
    last = node.attribute("channels_last", 0) or node.op_type.startswith("Nhwc")
    return [(x[0], *size, channels) if last else (x[0], channels, *size)]


def _space(node: Node, x: Shape) -> tuple[int, Shape]:
    """Channels and spatial sizes."""
    last = node.attribute("channels_last", 0) or node.op_type.startswith("Nhwc")
    return (x[-1], x[1:-1]) if last else (x[1], x[2:])


def _conv(node: Node, inputs: Known) -> Shapes:
    x, w = inputs[0], inputs[3 if node.op_type == "QLinearConv" else 1]
    return _placed(node, x, w[0], _windows(node, _space(node, x)[1], w[2:]))


def _pool(node: Node, inputs: Known) -> Shapes:
    channels, size = _space(node, inputs[0])
    return _placed(node, inputs[0], channels, _windows(node, size, tuple(node.attribute("kernel_shape"))))


def _global_pool(node: Node, inputs: Known) -> Shapes:
    channels, size = _space(node, inputs[0])
    return _placed(node, inputs[0], channels, (1,) * len(size))


# --- others -----------------------------------------------------------------------------------------------------


def _binary(node: Node, inputs: Known) -> Shapes:
    return [_broadcast(inputs[0], inputs[1])]


def _quantized_binary(node: Node, inputs: Known) -> Shapes:
    return [_broadcast(inputs[0], inputs[3])]


def _quantized_where(node: Node, inputs: Known) -> Shapes:
    return [_broadcast(inputs[0], inputs[1], inputs[4])]


def _quantized_concat(node: Node, inputs: Known) -> Shapes:
    parts = inputs[2::3]
    axis = int(node.attribute("axis")) % len(parts[0])
    return [(*parts[0][:axis], sum(p[axis] for p in parts), *parts[0][axis + 1 :])]


def _lstm(node: Node, inputs: Known) -> Shapes:
    steps, batch = inputs[0][:2]
    directions, hidden = inputs[2][:2]
    state = (directions, batch, hidden)
    return [(steps, *state), state, state]


_Rule = Callable[[Node, Known], Shapes]

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "BiasAdd", "BiasSoftmax", "Inverse"), _like_first),
    **dict.fromkeys(("RotaryEmbedding", "GroupNorm", "QuantizeLinear", "DequantizeLinear"), _like_first),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), _like_first),
    **dict.fromkeys(("LayerNormalization", "SimplifiedLayerNormalization"), _normalised),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _normalised),
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul", "FusedMatMulActivation"), _fused_matmul),
    **dict.fromkeys(("MatMulIntegerToFloat", "DynamicQuantizeMatMul"), _matmul),
    **dict.fromkeys(("FusedGemm", "QGemm"), _gemm),
    **dict.fromkeys(("FusedConv", "NhwcFusedConv", "QLinearConv"), _conv),
    **dict.fromkeys(("QLinearAveragePool", "NhwcMaxPool"), _pool),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _quantized_binary),
    **dict.fromkeys(("GroupNormalization", "MeanVarianceNormalization"), _like_first),
    **dict.fromkeys(("Scaler", "Normalizer", "Imputer", "Binarizer"), _like_first),
    **dict.fromkeys(COMPARISONS, _binary),
    "SkipGroupNorm": _twice,
    "EmbedLayerNormalization": _embedded,
    "BiasSplitGelu": _halved,
    "MatMulNBits": _packed_matmul,
    "Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "QLinearGlobalAveragePool": _global_pool,
    "QLinearWhere": _quantized_where,
    "QLinearConcat": _quantized_concat,
    "DynamicQuantizeLSTM": _lstm,
}
