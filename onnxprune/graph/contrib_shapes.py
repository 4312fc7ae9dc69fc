"""Output shapes and types of operators that onnx has no schema for (source: onnxruntime, ContribOperators.md).

Those that compute with weights have theirs in their description (`onnxprune/operators`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import TensorProto

from onnxprune.graph.view import Node
from onnxprune.operators.call import Call, Shape, UnknownShapeError
from onnxprune.operators.operator import operator_of
from onnxprune.operators.shapes import Shapes, broadcast, placed, space, windows

DOMAINS = ("", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")

TYPE_SOURCES = {
    "DequantizeLinear": 1,
    "QuantizeLinear": 2,
    "QLinearConcat": 1,
    "QLinearWhere": 1,
    "QGemm": 8,
    "EmbedLayerNormalization": 2,
    "MatMulIntegerToFloat": 2,
    "GatherBlockQuantized": 2,
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


def contrib_shapes(node: Node, inputs: Sequence[Shape | None]) -> list[Shape | None]:
    """Return the shape of each output, None where it is unknown."""
    rule = _rule(node)
    if rule is None or node.domain not in DOMAINS or not inputs or inputs[0] is None:
        return [None] * len(node.outputs)
    given = tuple((shape or ()) if node.has_input(index) else None for index, shape in enumerate(inputs))
    try:
        found = rule(Call(node.op_type, node.attributes, given))
    except (TypeError, IndexError, ValueError, ZeroDivisionError, UnknownShapeError):
        found = []
    return [*found, *[None] * len(node.outputs)][: len(node.outputs)]


def _rule(node: Node) -> _Rule | None:
    operator = operator_of(node)
    return operator.shapes if operator is not None and operator.shapes is not None else _RULES.get(node.op_type)


def _like_first(call: Call) -> Shapes:
    return [call.input(0)]


def _normalised(call: Call) -> Shapes:
    x = call.input(0)
    axis = call.attribute("axis", -1) % len(x)
    statistics = (*x[:axis], *[1] * (len(x) - axis))
    return [x, statistics, statistics, x]


def _embedded(call: Call) -> Shapes:
    embedded = (*call.input(0), call.input(2)[1])
    return [embedded, call.input(0)[:1], embedded]


def _halved(call: Call) -> Shapes:
    x = call.input(0)
    return [(*x[:-1], x[-1] // 2)]


def _twice(call: Call) -> Shapes:
    return [call.input(0), call.input(0)]


def _pool(call: Call) -> Shapes:
    channels, size = space(call)
    return placed(call, channels, windows(call, size, tuple(call.attribute("kernel_shape"))))


def _global_pool(call: Call) -> Shapes:
    channels, size = space(call)
    return placed(call, channels, (1,) * len(size))


def _binary(call: Call) -> Shapes:
    return [broadcast(call.input(0), call.input(1))]


def _quantized_binary(call: Call) -> Shapes:
    return [broadcast(call.input(0), call.input(3))]


def _quantized_where(call: Call) -> Shapes:
    return [broadcast(call.input(0), call.input(1), call.input(4))]


def _quantized_concat(call: Call) -> Shapes:
    parts = [call.input(index) for index in range(2, len(call.inputs), 3)]
    axis = int(call.attribute("axis")) % len(parts[0])
    return [(*parts[0][:axis], sum(p[axis] for p in parts), *parts[0][axis + 1 :])]


def _looked_up_in_blocks(call: Call) -> Shapes:
    """Rows of numbers of 4 or 8 bits: bytes may hold two, as the number of blocks tells."""
    data, blocks = call.input(0), call.input(2)[-1] * int(call.attribute("block_size", 128))
    packed = 8 // int(call.attribute("bits", 4))
    size = data[-1] * packed if data[-1] * packed <= blocks else data[-1]
    return [(*call.input(1), *data[1:-1], size)]


def _mixed(call: Call) -> Shapes:
    """What experts give: their second weights are (experts, outputs, inner)."""
    return [(*call.input(0)[:-1], call.input(4)[1])]


def _mixed_of_packed(call: Call) -> Shapes:
    return [(*call.input(0)[:-1], call.input(5)[1])]


_Rule = Callable[[Call], Shapes]

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "BiasAdd", "BiasSoftmax", "Inverse"), _like_first),
    **dict.fromkeys(("RotaryEmbedding", "GroupNorm", "QuantizeLinear", "DequantizeLinear"), _like_first),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), _like_first),
    **dict.fromkeys(("LayerNormalization", "SimplifiedLayerNormalization"), _normalised),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _normalised),
    **dict.fromkeys(("QLinearAveragePool", "NhwcMaxPool"), _pool),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _quantized_binary),
    **dict.fromkeys(("GroupNormalization", "MeanVarianceNormalization"), _like_first),
    **dict.fromkeys(("Scaler", "Normalizer", "Imputer", "Binarizer"), _like_first),
    **dict.fromkeys(COMPARISONS, _binary),
    "SkipGroupNorm": _twice,
    "EmbedLayerNormalization": _embedded,
    "BiasSplitGelu": _halved,
    "QLinearGlobalAveragePool": _global_pool,
    "MoE": _mixed,
    "QMoE": _mixed_of_packed,
    "GatherBlockQuantized": _looked_up_in_blocks,
    "QLinearWhere": _quantized_where,
    "QLinearConcat": _quantized_concat,
}
