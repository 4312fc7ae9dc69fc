"""Parameters, bytes and multiply-accumulates, counted from concrete shapes.

Shapes are given, so the same functions count the original and a pruned network that was never built. Only contractions
are counted as MACs (convolutions, matrix products, recurrent layers, attention); elementwise work, pooling and
normalisation are not, which is the convention of the published figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import NamedTuple

from onnx import TensorProto

from onnxprune.graph.view import Node, View

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

ONNX = ""
MICROSOFT = "com.microsoft"

WEIGHT_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
}
"""Bits of one element of the types that weights are stored in; 32 and 64 bit integers are indices and shapes."""


class Call(NamedTuple):
    """One node with the shapes around it; an omitted input or a tensor of unknown shape is None."""

    node: Node
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]

    def input(self, index: int) -> Shape:
        """Return the shape of an input that must be known."""
        shape = self.optional(index)
        if shape is None:
            raise _UnknownShapeError
        return shape

    def optional(self, index: int) -> Shape | None:
        """Return the shape of an input, None where it is missing."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def output(self) -> Shape:
        """Shape of the first output, which must be known."""
        if not self.outputs or self.outputs[0] is None:
            raise _UnknownShapeError
        return self.outputs[0]


class _UnknownShapeError(Exception):
    """A shape that a rule needs is not known: the node is left out of the count."""


Rule = Callable[[Call], int]
RULES: dict[tuple[str, str], Rule] = {}


def counts(*op_types: str, domain: str = ONNX) -> Callable[[Rule], Rule]:
    """Register a rule that gives the MACs of one node of the named operators."""

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            if (domain, op_type) in RULES:
                raise ValueError(f"the MACs of operator {domain}:{op_type} are registered twice")
            RULES[domain, op_type] = rule
        return rule

    return register


def node_key(node: Node) -> str:
    """Return the name of a node, or of its first output where it has none."""
    return node.name or next((output for output in node.outputs if output), "")


def macs(view: View, shapes: Shapes) -> dict[str, int]:
    """Return the multiply-accumulates of every node that contracts something.

    Args:
        view: the model.
        shapes: tensor key -> concrete shape, of the original or as it would be after pruning.

    Returns:
        node key -> MACs of one run at these shapes. A node with an unknown shape is missing; of an If every branch
        is counted, the bodies of Loop and Scan are not.
    """
    table: dict[str, int] = {}
    for node in view.nodes:
        rule = RULES.get((node.domain, node.op_type))
        if rule is None:
            continue
        inputs = tuple(shapes.get(key) if key else None for key in node.inputs)
        outputs = tuple(shapes.get(key) if key else None for key in node.outputs)
        try:
            amount = rule(Call(node, inputs, outputs))
        except _UnknownShapeError:
            continue
        key = node_key(node)
        table[key] = table.get(key, 0) + amount
    return table


def params(view: View, shapes: Shapes) -> dict[str, int]:
    """Return the elements of every weight: tensor key -> count.

    Weights are parameters of a float or a quantised type; constants of 32 and 64 bit integers or bool are not.
    """
    return {
        key: prod(shapes.get(key, parameter.dims))
        for key, parameter in view.parameters.items()
        if parameter.data_type in WEIGHT_BITS
    }


def size_bytes(view: View, shapes: Shapes) -> dict[str, int]:
    """Return the bytes that every weight takes in the file: tensor key -> bytes."""
    return {
        key: (elements * WEIGHT_BITS[view.parameters[key].data_type] + 7) // 8
        for key, elements in params(view, shapes).items()
    }


@counts("Conv", "ConvInteger", "DeformConv")
@counts("FusedConv", "NhwcFusedConv", domain=MICROSOFT)
def _conv(call: Call) -> int:
    """y[n, m, p] = sum over c of a group and taps k of x[n, c, p + k] * w[m, c, k]."""
    return prod(call.output) * prod(call.input(1)[1:])


@counts("QLinearConv")
@counts("QLinearConv", domain=MICROSOFT)
def _quantized_conv(call: Call) -> int:
    """As Conv; the weight is input 3."""
    return prod(call.output) * prod(call.input(3)[1:])


@counts("ConvTranspose")
def _conv_transpose(call: Call) -> int:
    """Every x[n, c, p] is multiplied by w[c, :, :]."""
    return prod(call.input(0)) * prod(call.input(1)[1:])


@counts("Gemm")
@counts("FusedGemm", "QGemm", domain=MICROSOFT)
def _gemm(call: Call) -> int:
    """y[i, j] = sum over k of a[i, k] * b[k, j]."""
    return prod(call.output) * call.input(0)[0 if call.node.attribute("transA", 0) else -1]


@counts("MatMul", "MatMulInteger", "QLinearMatMul")
@counts("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", domain=MICROSOFT)
def _matmul(call: Call) -> int:
    """y[.., i, j] = sum over k of a[.., i, k] * b[.., k, j]."""
    a = call.input(0)
    return prod(call.output) * (a[-1] if a else 1)


@counts("FusedMatMul", domain=MICROSOFT)
def _fused_matmul(call: Call) -> int:
    """As MatMul; transA moves k to the axis before the last, transBatchA further to the front."""
    a, node = call.input(0), call.node
    if not node.attribute("transA", 0):
        return prod(call.output) * a[-1]
    return prod(call.output) * a[0 if node.attribute("transBatchA", 0) else -2]


@counts("Einsum")
def _einsum(call: Call) -> int:
    """One multiplication for every operand after the first, over the product of all index sizes."""
    equation = str(call.node.attribute("equation", "")).replace(" ", "")
    sizes: dict[str, int] = {}
    terms = equation.split("->")[0].split(",")
    for index, term in enumerate(terms):
        shape = call.input(index)
        letters, dots, tail = term.partition("...")
        sizes.update(zip(letters, shape, strict=False))
        sizes.update(zip(reversed(tail), reversed(shape), strict=False))
        hidden = shape[len(letters) : len(shape) - len(tail)] if dots else ()
        for place, size in enumerate(reversed(hidden)):
            sizes[f"...{place}"] = max(size, sizes.get(f"...{place}", 1))
    return prod(sizes.values()) * (len(terms) - 1)


@counts("LSTM", "GRU", "RNN")
@counts("DynamicQuantizeLSTM", domain=MICROSOFT)
def _recurrent(call: Call) -> int:
    """Every step of every sample multiplies by all of W (input) and R (recurrence), of both directions."""
    return prod(call.input(0)[:2]) * (prod(call.input(1)) + prod(call.input(2)))


@counts("Attention")
def _attention(call: Call) -> int:
    """s = q k^T, y = softmax(s) v: every element of q and of y meets every key position once."""
    key, past = call.input(1), call.optional(4)
    length = key[-2] + (past[-2] if past else 0)
    return length * (prod(call.input(0)) + prod(call.output))


@counts("Attention", "QAttention", domain=MICROSOFT)
def _packed_attention(call: Call) -> int:
    """[q, k, v] = x W, then attention; W is (input, q + k + v)."""
    x, weight = call.input(0), call.input(1)
    past = call.optional(4 if call.node.op_type == "Attention" else 8)
    length = x[1] + (past[-2] if past else 0)
    hidden = call.node.attribute("qkv_hidden_sizes") or [weight[-1] // 3]
    return prod(x) * weight[-1] + length * (prod(x[:2]) * int(hidden[0]) + prod(call.output))


@counts("MultiHeadAttention", domain=MICROSOFT)
def _multi_head_attention(call: Call) -> int:
    """Attention of q (b, s, d) or packed qkv (b, s, heads, 3, head size), k (b, t, d) or (b, heads, t, head size)."""
    query, key, past = call.input(0), call.optional(1), call.optional(6)
    packed = len(query) == 5
    length = query[1] if key is None else key[2] if len(key) == 4 else key[1]
    length += past[-2] if past else 0
    return length * (prod(query) // (3 if packed else 1) + prod(call.output))


@counts("GroupQueryAttention", domain=MICROSOFT)
def _group_query_attention(call: Call) -> int:
    """Attention where several query heads share a key head: the output is as wide as the query."""
    present = call.outputs[1] if len(call.outputs) > 1 else None
    length = present[-2] if present else call.input(0)[1]
    return 2 * length * prod(call.output)
