"""Whether a model is quantized already."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import onnx
from onnx import TensorProto

from onnxprune.errors import ModelError
from onnxprune.graph.bodies import bodies_of

INTEGER_OPERATORS = frozenset(
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear ConvInteger MatMulInteger MatMulIntegerToFloat "
    "DynamicQuantizeMatMul DynamicQuantizeLSTM QAttention QEmbedLayerNormalization QGemm QLinearConv QLinearMatMul "
    "QLinearAdd QLinearMul QLinearConcat QLinearSigmoid QLinearLeakyRelu QLinearSoftmax QLinearWhere "
    "QLinearAveragePool QLinearGlobalAveragePool MatMulNBits MatMulBnb4 GatherBlockQuantized".split()
)
HALF = ("float16", "bfloat16")
PRECISIONS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}


def quantized_as(proto: onnx.ModelProto) -> str | None:
    """Return how a model is quantized already, in words, or None; half precision counts as well."""
    found = Counter(node.op_type for node in nodes(proto.graph) if node.op_type in INTEGER_OPERATORS)
    if found:
        operator, times = found.most_common(1)[0]
        return f"{times} {operator} node{'s' * (times > 1)}"
    kind = precision(proto)
    return f"{kind} weights" if kind in HALF else None


def precision(proto: onnx.ModelProto) -> str:
    """Return the type that most stored numbers of a model have, those in Constant nodes too; empty without any."""
    weights: Counter[int] = Counter()
    for tensor in stored(proto):
        if tensor.data_type in PRECISIONS:
            weights[tensor.data_type] += math.prod(tensor.dims)
    return PRECISIONS[weights.most_common(1)[0][0]] if weights else ""


def stored(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors that a model stores: initializers, and values of Constant nodes, in bodies and functions."""
    yield from proto.graph.initializer
    for sparse in proto.graph.sparse_initializer:
        yield sparse.values
    for function in proto.functions:
        yield from _stored_in(function.node)
    yield from _stored_in(proto.graph.node)


def _stored_in(found: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in found:
        if node.op_type == "Constant":
            yield from (a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)
        for body in bodies_of(node):
            yield from body.initializer
            yield from _stored_in(body.node)


def refuse_quantized(proto: onnx.ModelProto) -> None:
    """Stop if a model is quantized already.

    Raises:
        ModelError: it is.
    """
    how = quantized_as(proto)
    if how is not None:
        raise ModelError(
            f"the model is quantized already (it has {how}); quantize the float model, make its weights float "
            "(mode float), or give --pass-through to get it back as it is."
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
