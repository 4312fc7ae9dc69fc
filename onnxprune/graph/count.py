"""Parameters, bytes and multiply-accumulates, counted from concrete shapes.

Shapes are given, so the same functions count the original and a pruned network that was never built. What an operator
multiplies its description says (`onnxprune/operators`). Only contractions are counted as MACs (convolutions, matrix
products, recurrent layers, attention); elementwise work, pooling and normalisation are not, which is the convention of
the published figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from onnx import TensorProto

from onnxprune.graph.view import Node, View
from onnxprune.operators.call import Call, Shape, UnknownShapeError
from onnxprune.operators.operator import operator_of

Shapes = Mapping[str, Shape]

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
        operator = operator_of(node)
        if operator is None or operator.macs is None or node.repeated:
            continue
        inputs = tuple(shapes.get(key) if key else None for key in node.inputs)
        outputs = tuple(shapes.get(key) if key else None for key in node.outputs)
        try:
            amount = operator.macs(Call(node.op_type, node.attributes, inputs, outputs))
        except UnknownShapeError:
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
