"""Whether a model is quantized already."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from onnxprune.errors import ModelError

INTEGER_OPERATORS = frozenset(
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear ConvInteger MatMulInteger MatMulIntegerToFloat "
    "DynamicQuantizeMatMul DynamicQuantizeLSTM QAttention QEmbedLayerNormalization QGemm QLinearConv QLinearMatMul "
    "QLinearAdd QLinearMul QLinearConcat QLinearSigmoid QLinearLeakyRelu QLinearSoftmax QLinearWhere "
    "QLinearAveragePool QLinearGlobalAveragePool MatMulNBits MatMulBnb4 GatherBlockQuantized".split()
)
HALF = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
SINGLE = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


def quantized_as(proto: onnx.ModelProto) -> str | None:
    """Return how a model is quantized already, in words, or None; half precision counts as well."""
    found = Counter(node.op_type for node in nodes(proto.graph) if node.op_type in INTEGER_OPERATORS)
    if found:
        operator, times = found.most_common(1)[0]
        return f"{times} {operator} node{'s' * (times > 1)}"
    weights: Counter[int] = Counter()
    for tensor in proto.graph.initializer:
        weights[tensor.data_type] += math.prod(tensor.dims)
    half = max(HALF, key=lambda kind: weights[kind])
    if weights[half] > sum(weights[kind] for kind in SINGLE):
        return f"{HALF[half]} weights"
    return None


def refuse_quantized(proto: onnx.ModelProto) -> None:
    """Stop if a model is quantized already.

    Raises:
        ModelError: it is.
    """
    how = quantized_as(proto)
    if how is not None:
        raise ModelError(
            f"the model is quantized already (it has {how}); quantize the float model, or give --pass-through to "
            "get it back as it is."
        )


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and its subgraphs."""
    yield from graph.node
    for body in bodies(graph):
        yield from nodes(body)


def bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the subgraphs of the nodes of a graph."""
    for node in graph.node:
        yield from bodies_of(node)


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the subgraphs of a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs
