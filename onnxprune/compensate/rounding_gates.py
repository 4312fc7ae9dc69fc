"""Activations that are rounded in 8 bits or fewer, in a graph of derivatives: forward rounded, backward a clip.

The graph that is differentiated has a Clip to the range of the integers in the place of QuantizeLinear and
DequantizeLinear. Once its derivative is written, the node that gives the clipped values is replaced by the two: what
comes behind sees rounded values, the derivative stays that of the clip.
Source: straight-through estimator, Bengio et al., 2013, with the range's saturation of Jacob et al., 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from onnxprune.compensate.lean import set_nodes


@dataclass(frozen=True, eq=False)
class Gate:
    """One rounding: `made` is what its last node gives. stored: scale and zero point, under names of their own."""

    made: str
    nodes: tuple[onnx.NodeProto, ...]
    stored: tuple[onnx.TensorProto, ...]


def with_rounding(adjoint: onnx.ModelProto, gates: Sequence[Gate]) -> None:
    """Let the nodes of the gates give their tensors; edits the graph."""
    table = {gate.made: gate for gate in gates}
    nodes: list[onnx.NodeProto] = []
    for node in adjoint.graph.node:
        gate = table.get(node.output[0])
        nodes += [node] if gate is None else gate.nodes
    set_nodes(adjoint, nodes)
    for gate in gates:
        adjoint.graph.initializer.extend(gate.stored)
    known = {item.domain for item in adjoint.opset_import}
    for domain in sorted({node.domain for gate in gates for node in gate.nodes} - known - {"ai.onnx"}):
        adjoint.opset_import.append(onnx.helper.make_opsetid(domain, 1))
