"""Derivatives that onnx-ad lacks or writes slowly: by the weights of Conv, and through Clip.

The output of a Conv gets a term `delta` added, by which onnx-ad does differentiate; the derivative by the
weight follows from that one and the input. Clip becomes two Relus, whose derivative is one comparison each.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.compensate.weight_adjoints import MOST_TAPS, PREFIX, Delta, weight_adjoint
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View


def is_grouped(node: onnx.NodeProto) -> bool:
    """Tell whether a Conv or ConvTranspose has more than one group."""
    return node.op_type.startswith("Conv") and any(a.name == "group" and a.i > 1 for a in node.attribute)


def add_deltas(proto: onnx.ModelProto, weights: AbstractSet[str]) -> list[Delta]:
    """Add a term to the output of every Conv, ConvTranspose and MatMul with a weight to itself; edits the graph.

    Their shapes must be known.
    """
    shapes = _shapes(proto)
    uses = [name for node in proto.graph.node for name in node.input]
    stored = weights & shapes.keys()
    nodes: list[onnx.NodeProto] = []
    deltas: list[Delta] = []
    for node in proto.graph.node:
        nodes.append(node)
        delta = _delta(node, shapes, len(deltas), stored)
        if delta is None or uses.count(delta.weight) > 1:
            continue
        deltas.append(delta)
        plain = f"{delta.name}.plain"
        nodes.append(helper.make_node("Add", [plain, delta.name], [node.output[0]]))
        node.output[0] = plain
        proto.graph.input.append(helper.make_tensor_value_info(delta.name, onnx.TensorProto.FLOAT, delta.shape))
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
        graph.node.extend(weight_adjoint(delta, graph))
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
    """Return the shapes of the main graph, all input sizes being fixed."""
    return dict(trace(View(Model(proto))).shapes)


def _delta(
    node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], number: int, stored: Collection[str]
) -> Delta | None:
    if node.domain or node.op_type not in ("Conv", "ConvTranspose", "MatMul") or node.input[1] not in stored:
        return None
    if node.op_type == "MatMul":
        x, w, y = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
        if x is None or w is None or y is None or len(w) != 2 or len(x) < 3:
            return None
        return Delta(node, f"{PREFIX}delta.{number}", x, y, w, 1, (), (), ())
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    x, w, y = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
    if x is None or w is None or y is None or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    turned = node.op_type == "ConvTranspose"
    if turned:
        if attributes.get("output_shape"):
            return None
        x, y = y, x
    axes = len(w) - 2
    ones = (1,) * axes
    strides, dilations = (tuple(attributes.get(name) or ones) for name in ("strides", "dilations"))
    pads = tuple(attributes.get("pads") or (0,) * (2 * axes))
    name = f"{PREFIX}delta.{number}"
    if not turned and int(attributes.get("group", 1)) == 1 and math.prod(w[2:]) > MOST_TAPS:
        return None
    return Delta(node, name, x, y, w, int(attributes.get("group", 1)), strides, dilations, pads)
