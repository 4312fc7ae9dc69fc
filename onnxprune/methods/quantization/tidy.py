"""Takes roundings out of a QDQ graph that no integer kernel asks for.

The quantizer rounds a tensor for all who read it as soon as one of them is quantized. Who stays float reads the tensor
as it was, unless what makes it needs the rounding to become an integer kernel itself.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnxprune.methods.quantization.lift import captured_names, remove_unused

FLOAT_RESULTS = frozenset({"MatMul", "Gemm"})
"""Layers whose integer kernels of onnxruntime also give float results."""


def read_floats(graph: onnx.GraphProto, source: onnx.GraphProto, floats: Collection[str]) -> None:
    """Edit a QDQ graph in place.

    Args:
        source: what was quantized: a Relu of it may be the range of a rounding by now, which then has to stay.
        floats: names of the nodes that stay float.
    """
    kinds = {name: node.op_type for node in source.node for name in node.output}
    makers = {name: node for node in graph.node for name in node.output}
    pairs = {}
    for node in graph.node:
        rounding = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounding is None or rounding.op_type != "QuantizeLinear":
            continue
        maker = makers.get(rounding.input[0])
        given = maker is None or maker.name in floats or maker.op_type in FLOAT_RESULTS
        if given and (maker is None or kinds.get(rounding.input[0], "") == maker.op_type):
            pairs[node.output[0]] = rounding.input[0]
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.name in floats and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            node.input[:] = [pairs.get(name, name) for name in node.input]
    _remove_idle(graph, outputs)


def _remove_idle(graph: onnx.GraphProto, outputs: set[str]) -> None:
    """Remove roundings that nothing reads any more."""
    fixed = outputs | captured_names(graph)
    while True:
        used = {name for node in graph.node for name in node.input} | fixed
        idle = [
            index
            for index, node in enumerate(graph.node)
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not used & set(node.output)
        ]
        if not idle:
            break
        for index in reversed(idle):
            del graph.node[index]
    remove_unused(graph)
