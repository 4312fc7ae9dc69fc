"""Output shapes of com.microsoft operators, which onnx does not know (source: onnxruntime, ContribOperators.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.graph.view import Node

Shape = tuple[int, ...]
Shapes = list[Shape | None]

LIKE_FIRST = frozenset(
    [
        "BiasGelu",
        "FastGelu",
        "Gelu",
        "QuickGelu",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "EmbedLayerNormalization",
        "GroupNorm",
        "SkipGroupNorm",
        "RotaryEmbedding",
        "BiasAdd",
        "BiasSplitGelu",
        "Inverse",
        "QLinearSigmoid",
        "QLinearLeakyRelu",
        "QLinearSoftmax",
        "DequantizeLinear",
        "QuantizeLinear",
        "NhwcMaxPool",
        "LayerNormalization",
        "SimplifiedLayerNormalization",
        "DynamicQuantizeLSTM",
        "BifurcationDetector",
    ]
)


def contrib_shapes(node: Node, inputs: Shapes) -> Shapes:
    """Return the shape of each output, None where it is unknown."""
    if not inputs or inputs[0] is None:
        return [None] * len(node.outputs)
    rule = _RULES.get(node.op_type)
    if rule is not None and node.domain in ("com.microsoft", "com.microsoft.nchwc"):
        try:
            return rule(node, inputs)
        except (TypeError, IndexError, ValueError):
            return [None] * len(node.outputs)
    return [None] * len(node.outputs)


def _like_first(node: Node, inputs: Shapes) -> Shapes:
    first = inputs[0]
    if node.op_type.startswith("Skip") and len(node.outputs) > 1:
        return [first, None, None, first][: len(node.outputs)]
    return [first] + [None] * (len(node.outputs) - 1)


def _broadcast(*shapes: Shape | None) -> Shape:
    return tuple(int(d) for d in np.broadcast_shapes(*[s for s in shapes if s is not None]))


def _matmul(a: Shape, b: Shape) -> Shape:
    if len(b) == 1:
        return a[:-1]
    if len(a) == 1:
        return (*b[:-2], b[-1])
    return (*_broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def _fused_matmul(node: Node, inputs: Shapes) -> Shapes:
    a, b = inputs[0], inputs[1]
    assert a is not None and b is not None
    if node.attribute("transA", 0):
        a = (*a[:-2], a[-1], a[-2])
    if node.attribute("transB", 0):
        b = (*b[:-2], b[-1], b[-2])
    return [_matmul(a, b)]


def _attention(node: Node, inputs: Shapes) -> Shapes:
    x, w = inputs[0], inputs[1]
    assert x is not None and w is not None
    sizes = node.attribute("qkv_hidden_sizes")
    return [(*x[:2], sizes[2] if sizes else w[1] // 3)] + [None] * (len(node.outputs) - 1)


def _multi_head_attention(node: Node, inputs: Shapes) -> Shapes:
    q = inputs[0]
    v = inputs[2] if len(inputs) > 2 else None
    assert q is not None
    if len(q) == 5:
        return [(q[0], q[1], q[2] * q[4])] + [None] * (len(node.outputs) - 1)
    width = v[1] * v[3] if v is not None and len(v) == 4 else (v[-1] if v is not None else q[-1])
    return [(q[0], q[1], width)] + [None] * (len(node.outputs) - 1)


def _group_query_attention(node: Node, inputs: Shapes) -> Shapes:
    q = inputs[0]
    assert q is not None
    heads, kv_heads = node.attribute("num_heads"), node.attribute("kv_num_heads")
    packed = len(inputs) < 2 or inputs[1] is None
    width = q[-1] * heads // (heads + 2 * kv_heads) if packed else q[-1]
    head = width // heads
    past = inputs[3] if len(inputs) > 3 else None
    length = q[1] + (past[2] if past is not None else 0)
    present = (q[0], kv_heads, length, head)
    return [(q[0], q[1], width), present, present][: len(node.outputs)]


def _conv(x: Shape, w: Shape, node: Node) -> Shape:
    rank = len(x) - 2
    kernel = node.attribute("kernel_shape") or list(w[2:])
    strides = node.attribute("strides") or [1] * rank
    dilations = node.attribute("dilations") or [1] * rank
    pads = node.attribute("pads") or [0] * (2 * rank)
    spatial = []
    for i in range(rank):
        extent = (kernel[i] - 1) * dilations[i] + 1
        if node.attribute("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
            spatial.append(-(-x[i + 2] // strides[i]))
        else:
            spatial.append((x[i + 2] + pads[i] + pads[i + rank] - extent) // strides[i] + 1)
    return (x[0], w[0], *spatial)


def _fused_conv(node: Node, inputs: Shapes) -> Shapes:
    x, w = inputs[0], inputs[1]
    assert x is not None and w is not None
    return [_conv(x, w, node)]


def _quantized_binary(node: Node, inputs: Shapes) -> Shapes:
    return [_broadcast(inputs[0], inputs[3])]


def _matmul_nbits(node: Node, inputs: Shapes) -> Shapes:
    x = inputs[0]
    assert x is not None
    return [(*x[:-1], int(node.attribute("N")))]


def _matmul_integer_to_float(node: Node, inputs: Shapes) -> Shapes:
    a, b = inputs[0], inputs[1]
    assert a is not None and b is not None
    return [_matmul(a, b)]


def _quantized_global_pool(node: Node, inputs: Shapes) -> Shapes:
    x = inputs[0]
    assert x is not None
    if node.attribute("channels_last", 0):
        return [(x[0], *[1] * (len(x) - 2), x[-1])]
    return [(*x[:2], *[1] * (len(x) - 2))]


_RULES: dict[str, Callable[[Node, Shapes], Shapes]] = {
    **dict.fromkeys(LIKE_FIRST, _like_first),
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "FusedGemm": lambda node, s: _gemm(node, s),
    "FusedMatMulActivation": _fused_matmul,
    "Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "FusedConv": _fused_conv,
    "QLinearAdd": _quantized_binary,
    "QLinearMul": _quantized_binary,
    "QLinearGlobalAveragePool": _quantized_global_pool,
    "MatMulNBits": _matmul_nbits,
    "MatMulIntegerToFloat": _matmul_integer_to_float,
    "DynamicQuantizeMatMul": _matmul_integer_to_float,
}


def _gemm(node: Node, inputs: Shapes) -> Shapes:
    a, b = inputs[0], inputs[1]
    assert a is not None and b is not None
    rows = a[1] if node.attribute("transA", 0) else a[0]
    columns = b[0] if node.attribute("transB", 0) else b[1]
    return [(rows, columns)]
