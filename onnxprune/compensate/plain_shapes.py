"""Operators of a derivative on shapes that onnxruntime computes quickly, with the same values.

onnx-ad carries the derivatives of every tensor with one more axis at the end, of size one here. Where a tensor is
spread over another one that ends in such an axis onnxruntime goes number by number, 50 ns for each instead of 0.4, and
a sum over an axis of size one takes 200. Reshapes cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.compensate.lean import set_nodes
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View

Shape = tuple[int, ...]
SPREAD = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"})
"""Operators of two inputs of any shapes that fit."""
REDUCED = frozenset({"ReduceSum", "ReduceMean"})


def with_plain_shapes(proto: onnx.ModelProto) -> None:
    """Give sums, means and spread tensors shapes without axes of size one where they are known; edits the graph."""
    traced = trace(View(Model(proto)))
    shapes = {name: tuple(shape) for name, shape in traced.shapes.items() if not traced.dynamic(name).any()}
    chain = _NodeChain(proto.graph, shapes, _integers(proto))
    for node in proto.graph.node:
        if node.op_type in REDUCED and not node.domain:
            chain.reduce(node)
        elif node.op_type in SPREAD and not node.domain and len(node.input) == 2:
            chain.spread(node)
        else:
            chain.nodes.append(node)
    set_nodes(proto, chain.nodes)


def _integers(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the stored lists of integers."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    stored |= {n.output[0]: n.attribute[0].t for n in proto.graph.node if n.op_type == "Constant"}
    return {
        name: numpy_helper.to_array(tensor).reshape(-1).tolist()
        for name, tensor in stored.items()
        if tensor.data_type == onnx.TensorProto.INT64
    }


@dataclass
class _NodeChain:
    """Nodes one after the other."""

    graph: onnx.GraphProto
    shapes: Mapping[str, Shape]
    integers: Mapping[str, list[int]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def reduce(self, node: onnx.NodeProto) -> None:
        """y = sum or mean of x over axes: neighbours merged, and only another shape where all have size 1."""
        x, y = self.shapes.get(node.input[0]), self.shapes.get(node.output[0])
        axes = self.integers.get(node.input[1]) if len(node.input) > 1 else None
        if x is None or y is None or not axes or not prod(x):
            self.nodes.append(node)
            return
        merged, summed = merged_axes(x, {axis % len(x) for axis in axes})
        if not summed:
            self._reshape(node.input[0], y, node.output[0])
            return
        if merged == x:
            self.nodes.append(node)
            return
        flat = self._reshape(node.input[0], merged)
        total, places = f"{node.output[0]}.flat", self._stored(summed, f"{flat}.axes")
        self.nodes.append(helper.make_node(node.op_type, [flat, places], [total], keepdims=0))
        self._reshape(total, y, node.output[0])

    def spread(self, node: onnx.NodeProto) -> None:
        """y = f(a, b): without the last axes where both have size 1, if their shapes differ."""
        known = [self.shapes.get(name) for name in (*node.input, node.output[0])]
        a, b, y = known
        if a is None or b is None or y is None or a == b or not prod(y):
            self.nodes.append(node)
            return
        ones = next((n for n, size in enumerate(reversed(y)) if size != 1), len(y))
        if not ones or ones == len(y):
            self.nodes.append(node)
            return
        inputs = [self._reshape(name, shape[:-ones]) for name, shape in zip(node.input, (a, b), strict=True)]
        short = f"{node.output[0]}.short"
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        del changed.input[:], changed.output[:]
        changed.input.extend(inputs)
        changed.output.append(short)
        self.nodes.append(changed)
        self._reshape(short, y, node.output[0])

    def _reshape(self, name: str, shape: Shape, output: str = "") -> str:
        output = output or f"{name}.plain.{len(self.nodes)}"
        self.nodes.append(helper.make_node("Reshape", [name, self._stored(shape, f"{output}.shape")], [output]))
        return output

    def _stored(self, numbers: Shape, name: str) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name


def merged_axes(shape: Shape, summed: set[int]) -> tuple[Shape, Shape]:
    """Return a shape without axes of size 1, neighbours of one kind as one axis, and which of its axes are summed."""
    sizes: list[int] = []
    kinds: list[bool] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if kinds and kinds[-1] == (axis in summed):
            sizes[-1] *= size
        else:
            sizes.append(size)
            kinds.append(axis in summed)
    return tuple(sizes), tuple(place for place, kind in enumerate(kinds) if kind)
