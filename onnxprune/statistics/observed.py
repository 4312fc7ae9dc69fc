"""Tensors inside a model as outputs of a copy of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from onnxprune.errors import DataError
from onnxprune.graph.model import Model
from onnxprune.operators.layouts import Layout


@dataclass(frozen=True)
class Wanted:
    """A tensor to observe along one axis, with or without its Gram matrix.

    pool: what it is counted under; tensors of one pool add up. "": under its own name.
    """

    tensor: str
    axis: int
    gram: bool = True
    pool: str = ""

    @property
    def key(self) -> str:
        """The name by which its statistics are found."""
        return self.pool or self.tensor


@dataclass(frozen=True)
class WantedRows:
    """What a layer multiplies, patch by patch: rows of as many features as its matrix has columns, products added up.

    tensor, output: what the layer reads and gives. layout: how its inputs become rows; of one group.
    """

    key: str
    tensor: str
    output: str
    layout: Layout
    features: int


def observed(model: Model, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of the model that also gives the named tensors of the main graph as outputs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    outputs = {value.name for value in proto.graph.output}
    known = {name for node in proto.graph.node for name in node.output if name} | {v.name for v in proto.graph.input}
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(f"tensor '{missing[0]}' is not in the main graph of the model; it cannot be observed.")
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in outputs)
    return proto
