"""Derivatives by weights, from the derivative by what a layer gives: products and convolutions as node chains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

PREFIX = "onnxprune."
MOST_TAPS = 25
"""A Conv with more taps keeps the derivative that onnx-ad writes: one Conv instead of a product for each tap."""


@dataclass(frozen=True)
class Delta:
    """A Conv, a ConvTranspose, or a MatMul with a matrix, whose weight is wanted.

    x, y, w: shapes of input, output and weight. pads: begins, then ends. A ConvTranspose is the Conv that goes the
    other way: x and y are its output and its input.
    """

    node: onnx.NodeProto
    name: str
    x: tuple[int, ...]
    y: tuple[int, ...]
    w: tuple[int, ...]
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @property
    def turned(self) -> bool:
        """Whether it goes from y to x."""
        return bool(self.node.op_type == "ConvTranspose")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what the node gives."""
        return self.x if self.turned else self.y

    @property
    def ends(self) -> tuple[str, str]:
        """The tensors of shapes x and y that meet: input and derivative by the output, or the other way round."""
        found = self.node.input[0], f"adj_{self.name}"
        return (found[1], found[0]) if self.turned else found

    @property
    def weight(self) -> str:
        """The tensor that the derivative belongs to."""
        return str(self.node.input[1])


def weight_adjoint(delta: Delta, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that give the derivative by the weight; what they need is stored in the graph."""
    if delta.node.op_type == "MatMul":
        return _product(delta, graph)
    return _convolution(delta, graph) if math.prod(delta.w[2:]) > MOST_TAPS else _taps(delta, graph)


def _product(delta: Delta, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return dL/dW = x (rows, inputs) transposed times dL/dy (rows, outputs), all axes before the last as one."""
    chain = _Chain(graph, delta.name)
    x = chain.add("Reshape", [delta.node.input[0], [-1, delta.w[0]]])
    dy = chain.add("Reshape", [f"adj_{delta.name}", [-1, delta.w[1]]])
    chain.add("Gemm", [x, dy], f"adj_{delta.weight}", transA=1)
    return chain.nodes


def _convolution(delta: Delta, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    axes, groups, batch, per_group = len(delta.w) - 2, delta.groups, delta.x[0], delta.w[1]
    space = list(range(2, 2 + axes))
    chain = _Chain(graph, delta.name)
    x = chain.add("Reshape", [delta.ends[0], [batch, groups, per_group, *delta.x[2:]]])
    x = chain.add("Transpose", [x], perm=[2, 1, 0, *(axis + 1 for axis in space)])
    x = chain.add("Reshape", [x, [per_group, groups * batch, *delta.x[2:]]])
    dy = chain.add("Reshape", [delta.ends[1], list(delta.y)])
    dy = chain.add("Transpose", [dy], perm=[1, 0, *space])
    strides, dilations = list(delta.dilations), list(delta.strides)
    product = chain.add("Conv", [x, dy], group=groups, strides=strides, dilations=dilations, pads=list(delta.pads))
    # where strides left input over, the result is larger than the kernel
    product = chain.add("Slice", [product, [0] * axes, list(delta.w[2:]), space])
    chain.add("Transpose", [product], f"adj_{delta.weight}", perm=[1, 0, *space])
    return chain.nodes


def _taps(delta: Delta, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return dL/dW[:, :, k] = dL/dy (o, n p) times x at tap k (c, n p), transposed, in each group."""
    axes, (outs, per_group), groups = len(delta.w) - 2, delta.w[:2], delta.groups
    space, chain = list(range(2, 2 + axes)), _Chain(graph, delta.name)
    x = chain.add("Reshape", [delta.ends[0], list(delta.x)]) if delta.turned else delta.ends[0]
    x = chain.add("Transpose", [x], perm=[1, 0, *space])
    if any(delta.pads):
        x = chain.add("Pad", [x, [0, 0, *delta.pads[:axes], 0, 0, *delta.pads[axes:]]])
    dy = chain.add("Reshape", [delta.ends[1], list(delta.y)])
    dy = chain.add("Transpose", [dy], perm=[1, 0, *space])
    dy = chain.add("Reshape", [dy, [outs, -1] if groups == 1 else [groups, outs // groups, -1]])
    if groups > 1:
        dy = chain.add("Transpose", [dy], perm=[0, 2, 1])
    products = []
    for tap in np.ndindex(*delta.w[2:]):
        starts = [int(place * step) for place, step in zip(tap, delta.dilations, strict=True)]
        sizes = zip(starts, delta.y[2:], delta.strides, strict=True)
        ends = [start + (size - 1) * stride + 1 for start, size, stride in sizes]
        part = chain.add("Slice", [x, starts, ends, space, list(delta.strides)])
        if groups == 1:
            part = chain.add("Reshape", [part, [per_group, -1]])
            product = chain.add("Gemm", [dy, part], transB=1)
            products.append(chain.add("Reshape", [product, [outs, per_group, 1]]))
        else:
            part = chain.add("Reshape", [part, [groups, per_group, -1]])
            product = chain.add("MatMul", [part, dy])
            products.append(chain.add("Reshape", [product, [groups, per_group, outs // groups, 1]]))
    whole = chain.add("Concat", products, axis=-1)
    if groups > 1:
        whole = chain.add("Transpose", [whole], perm=[0, 2, 1, 3])
    chain.add("Reshape", [whole, list(delta.w)], f"adj_{delta.weight}")
    return chain.nodes


@dataclass(frozen=True)
class _Chain:
    """Nodes one after the other, with names that start alike."""

    graph: onnx.GraphProto
    stem: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def add(self, op_type: str, inputs: Sequence[str | list[int]], output: str = "", **attributes: Any) -> str:
        """Add a node; a list of integers as input is stored. Returns its output."""
        output = output or f"{self.stem}.{len(self.nodes)}"
        names = []
        for place, given in enumerate(inputs):
            if not isinstance(given, str):
                tensor = numpy_helper.from_array(np.array(given, np.int64), f"{output}.{place}")
                self.graph.initializer.append(tensor)
                given = tensor.name
            names.append(given)
        self.nodes.append(helper.make_node(op_type, names, [output], **attributes))
        return output
