"""Derivatives that onnx-ad lacks or writes slowly: by the weights of Conv, and through Clip.

The output of a Conv gets a term `delta` added, by which onnx-ad does differentiate; the derivative by the
weight follows from that one and the input. Clip becomes two Relus, whose derivative is one comparison each.
"""

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
    """A grouped Conv whose weight is wanted.

    x, y, w: shapes of input, output and weight. pads: begins, then ends.
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
    def weight(self) -> str:
        """The tensor that the derivative belongs to."""
        return str(self.node.input[1])


def is_grouped(node: onnx.NodeProto) -> bool:
    """Tell whether a Conv or ConvTranspose has more than one group."""
    return node.op_type.startswith("Conv") and any(a.name == "group" and a.i > 1 for a in node.attribute)


def add_deltas(proto: onnx.ModelProto) -> list[Delta]:
    """Add a term to the output of every Conv of known shapes that has its weight to itself; edits the graph."""
    shapes = _shapes(proto)
    uses = [name for node in proto.graph.node for name in node.input]
    nodes: list[onnx.NodeProto] = []
    deltas: list[Delta] = []
    for node in proto.graph.node:
        nodes.append(node)
        delta = _delta(node, shapes, len(deltas)) if node.op_type == "Conv" and not node.domain else None
        if delta is None or uses.count(delta.weight) > 1:
            continue
        deltas.append(delta)
        plain = f"{delta.name}.plain"
        nodes.append(helper.make_node("Add", [plain, delta.name], [node.output[0]]))
        node.output[0] = plain
        proto.graph.input.append(helper.make_tensor_value_info(delta.name, onnx.TensorProto.FLOAT, delta.y))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return deltas


def add_weight_adjoints(adjoint: onnx.ModelProto, deltas: Sequence[Delta]) -> None:
    """Replace the derivatives by the added terms by those by the weights, and take the terms out of the graph.

    dL/dW[o, c, k] = sum over n, p of dL/dy[n, o, p] x[n, c, p * stride - pad + k * dilation]. In one group that is a
    matrix product for every tap k. In several it is a Conv too: c takes the place of the batch, n that of the channels,
    strides and dilations change places.
    """
    graph = adjoint.graph
    names = {delta.name for delta in deltas}
    for node in graph.node:
        if node.op_type == "Add" and node.input[1] in names:
            del node.input[1:]
            node.op_type = "Identity"
    for delta in deltas:
        graph.node.extend(_weight_adjoint(delta, graph) if delta.groups > 1 else _taps(delta, graph))
    kept = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(kept)
    for value in graph.output:
        for delta in deltas:
            if value.name == f"adj_{delta.name}":
                value.CopyFrom(helper.make_tensor_value_info(f"adj_{delta.weight}", onnx.TensorProto.FLOAT, delta.w))


def set_pads(adjoint: onnx.ModelProto) -> None:
    """Give the ConvTranspose nodes that are derivatives of Conv its own pads; edits the graph.

    onnx-ad asks for an output shape, for which ConvTranspose spreads the pads evenly, whatever those of the Conv are.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in adjoint.graph.initializer}
    shapes |= {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in adjoint.graph.input}
    for node in adjoint.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type != "ConvTranspose" or "output_shape" not in attributes or node.input[1] not in shapes:
            continue
        kernel, sizes = shapes[node.input[1]][2:], attributes["output_shape"]
        ones = (1,) * len(kernel)
        strides, dilations = (attributes.get(name) or ones for name in ("strides", "dilations"))
        pads = attributes.get("pads") or (0,) * (2 * len(kernel))
        left = [
            (size + begin + end - (k - 1) * d - 1) % stride
            for size, begin, end, k, d, stride in zip(
                sizes, pads, pads[len(kernel) :], kernel, dilations, strides, strict=False
            )
        ]
        kept = [a for a in node.attribute if a.name not in ("output_shape", "output_padding")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("output_padding", left)])


def clips_as_relus(proto: onnx.ModelProto) -> None:
    """Write Clip(x, a, b) as a + Relu(x - a) - Relu(x - b) where the bounds are finite constants; edits the graph."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    stored |= {n.output[0]: n.attribute[0].t for n in proto.graph.node if n.op_type == "Constant" and n.attribute[0].t}
    nodes = []
    for number, node in enumerate(proto.graph.node):
        bounds = [_scalar(stored, node.input[i] if i < len(node.input) else "") for i in (1, 2)]
        if node.op_type != "Clip" or node.domain or None in bounds:
            nodes.append(node)
            continue
        nodes.extend(_relus(proto.graph, f"{PREFIX}clip.{number}", node, *(b for b in bounds if b is not None)))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def _relus(
    graph: onnx.GraphProto, stem: str, node: onnx.NodeProto, low: np.ndarray, high: np.ndarray
) -> list[onnx.NodeProto]:
    x, y = node.input[0], node.output[0]

    def stored(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"{stem}.{name}"))
        return f"{stem}.{name}"

    above = helper.make_node("Sub", [x, stored("high", high)], [f"{stem}.above"])
    cut = helper.make_node("Relu", [f"{stem}.above"], [f"{stem}.cut"])
    if not low:
        risen = [helper.make_node("Relu", [x], [f"{stem}.risen"])]
        last = [helper.make_node("Sub", [f"{stem}.risen", f"{stem}.cut"], [y])]
        return [above, cut, *risen, *last]
    return [
        above,
        cut,
        helper.make_node("Sub", [x, stored("low", low)], [f"{stem}.over"]),
        helper.make_node("Relu", [f"{stem}.over"], [f"{stem}.risen"]),
        helper.make_node("Sub", [f"{stem}.risen", f"{stem}.cut"], [f"{stem}.span"]),
        helper.make_node("Add", [f"{stem}.span", f"{stem}.low"], [y]),
    ]


def _scalar(stored: dict[str, onnx.TensorProto], name: str) -> np.ndarray | None:
    """Return a stored finite float32 number."""
    tensor = stored.get(name)
    if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    value = numpy_helper.to_array(tensor)
    return value.reshape(()) if value.size == 1 and np.abs(value).max() < 1e30 else None


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(proto).graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


def _delta(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], number: int) -> Delta | None:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    x, w, y = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
    if x is None or w is None or y is None or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    axes = len(w) - 2
    ones = (1,) * axes
    strides, dilations = (tuple(attributes.get(name) or ones) for name in ("strides", "dilations"))
    pads = tuple(attributes.get("pads") or (0,) * (2 * axes))
    name = f"{PREFIX}delta.{number}"
    if int(attributes.get("group", 1)) == 1 and math.prod(w[2:]) > MOST_TAPS:
        return None
    return Delta(node, name, x, y, w, int(attributes.get("group", 1)), strides, dilations, pads)


def _weight_adjoint(delta: Delta, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    axes, groups, batch, per_group = len(delta.w) - 2, delta.groups, delta.x[0], delta.w[1]
    space = list(range(2, 2 + axes))
    chain = _Chain(graph, delta.name)
    x = chain.add("Reshape", [delta.node.input[0], [batch, groups, per_group, *delta.x[2:]]])
    x = chain.add("Transpose", [x], perm=[2, 1, 0, *(axis + 1 for axis in space)])
    x = chain.add("Reshape", [x, [per_group, groups * batch, *delta.x[2:]]])
    dy = chain.add("Reshape", [f"adj_{delta.name}", list(delta.y)])
    dy = chain.add("Transpose", [dy], perm=[1, 0, *space])
    strides, dilations = list(delta.dilations), list(delta.strides)
    product = chain.add("Conv", [x, dy], group=groups, strides=strides, dilations=dilations, pads=list(delta.pads))
    # where strides left input over, the result is larger than the kernel
    product = chain.add("Slice", [product, [0] * axes, list(delta.w[2:]), space])
    chain.add("Transpose", [product], f"adj_{delta.weight}", perm=[1, 0, *space])
    return chain.nodes


def _taps(delta: Delta, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return dL/dW[:, :, k] = dL/dy (o, n p) times x at tap k (c, n p), transposed."""
    axes, (outs, per_group) = len(delta.w) - 2, delta.w[:2]
    space, chain = list(range(2, 2 + axes)), _Chain(graph, delta.name)
    x = chain.add("Transpose", [delta.node.input[0]], perm=[1, 0, *space])
    if any(delta.pads):
        x = chain.add("Pad", [x, [0, 0, *delta.pads[:axes], 0, 0, *delta.pads[axes:]]])
    dy = chain.add("Reshape", [f"adj_{delta.name}", list(delta.y)])
    dy = chain.add("Transpose", [dy], perm=[1, 0, *space])
    dy = chain.add("Reshape", [dy, [outs, -1]])
    products = []
    for tap in np.ndindex(*delta.w[2:]):
        starts = [int(place * step) for place, step in zip(tap, delta.dilations, strict=True)]
        sizes = zip(starts, delta.y[2:], delta.strides, strict=True)
        ends = [start + (size - 1) * stride + 1 for start, size, stride in sizes]
        part = chain.add("Slice", [x, starts, ends, space, list(delta.strides)])
        part = chain.add("Reshape", [part, [per_group, -1]])
        product = chain.add("Gemm", [dy, part], transB=1)
        products.append(chain.add("Reshape", [product, [outs, per_group, 1]]))
    whole = chain.add("Concat", products, axis=2)
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
