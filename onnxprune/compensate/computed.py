"""Weights that constants are computed into: gates put in another order, standardised kernels, weight norms.

Such a weight can be given new values by storing it; what it was computed from goes when nobody else needs it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnxprune.compensate.stages import embedded, static_names
from onnxprune.errors import ModelError
from onnxprune.graph.bodies import reads
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.types import Array

FOLLOWED = frozenset(
    "Slice Concat Split Gather Squeeze Unsqueeze Reshape Flatten Transpose Identity Constant Shape Pad Mul Add Sub Div "
    "Neg Reciprocal Sqrt Pow Abs Exp ReduceMean ReduceSum ReduceL2 ReduceSumSquare ReduceMax BatchNormalization "
    "InstanceNormalization LpNormalization".split()
)
"""Operators that make a weight out of stored ones of its type: none that unpacks (DequantizeLinear) or repeats."""
GROWTH = 1.5
"""A stored weight is no larger than this many times what it was computed from."""


class Computed:
    """The tensors of a graph that stored ones are computed into."""

    def __init__(self, model: Model, makers: Mapping[str, onnx.NodeProto]) -> None:
        self._model, self._makers = model, makers
        self._static = static_names(model.proto.graph)
        self._stored = {tensor.name: tensor for tensor in model.proto.graph.initializer}
        self._values: dict[str, Array | None] = {}

    def value(self, name: str) -> Array | None:
        """Return the values of a computed floating-point tensor, None if it is none."""
        if name not in self._makers or name not in self._static:
            return None
        if name not in self._values:
            self._values[name] = self._run(name)
        return self._values[name]

    def sources(self, name: str) -> set[str]:
        """Return the stored tensors, Constant nodes too, that a tensor is computed from."""
        nodes, stored = self._ancestors(name)
        return {tensor.name for tensor in stored} | {n.output[0] for n in nodes if n.op_type == "Constant"}

    def _ancestors(self, name: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        nodes: dict[int, onnx.NodeProto] = {}
        stored: dict[str, onnx.TensorProto] = {}
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one in self._stored:
                stored[one] = self._stored[one]
            elif one in self._makers and id(self._makers[one]) not in nodes:
                nodes[id(self._makers[one])] = self._makers[one]
                waiting.extend(reads(self._makers[one]))
        return list(nodes.values()), list(stored.values())

    def _run(self, name: str) -> Array | None:
        nodes, stored = self._ancestors(name)
        if any(n.op_type not in FOLLOWED or n.domain not in ("", "ai.onnx") for n in nodes):
            return None
        chosen = {id(node) for node in nodes}
        graph = onnx.GraphProto(name="weight")
        graph.node.extend(node for node in self._model.proto.graph.node if id(self._makers.get(_first(node))) in chosen)
        graph.initializer.extend(embedded(self._model, tensor) for tensor in stored)
        graph.output.append(onnx.ValueInfoProto(name=name))
        proto = onnx.ModelProto(ir_version=self._model.proto.ir_version, graph=graph)
        proto.opset_import.extend(self._model.proto.opset_import)
        try:
            (value,) = open_session(proto, threads=1).values([name], {})
        except ModelError:  # a type that onnxruntime has no kernel for
            return None
        size = sum(onnx.numpy_helper.to_array(t).nbytes for t in graph.initializer)
        size += sum(node.ByteSize() for node in graph.node if node.op_type == "Constant")
        is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        return value if is_float and value.nbytes <= GROWTH * size else None


def _first(node: onnx.NodeProto) -> str:
    return next((name for name in node.output if name), "")
