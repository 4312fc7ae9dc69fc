"""A model without some of its branches: what only they needed goes, everything else keeps its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxprune.graph import initializers
from onnxprune.graph.branches import SKIP_NORMS, Branch, find_branches, pick_branches
from onnxprune.graph.functions import inlined
from onnxprune.graph.model import Model
from onnxprune.graph.strip import strip, unneeded
from onnxprune.graph.trace import Shape, Trace, trace
from onnxprune.graph.view import View

LAYER_NORM_OPSET = 17
BIASES = {"SkipLayerNormalization": 4, "SkipSimplifiedLayerNormalization": 3}
"""Input of a norm that is a bias of the sum."""
EPSILON = 1e-12
"""Of a norm that adds a skip, where it gives none."""


@dataclass(frozen=True, eq=False)
class Shortened:
    """A model without branches, and what it was.

    view, trace: the whole model. branches: what was dropped.
    model: what is left; its tensors have the names that they had.
    inputs, outputs: of the model, that went with the branches.
    """

    view: View
    trace: Trace
    branches: tuple[Branch, ...]
    model: Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def whole(self) -> Model:
        """The model with all branches."""
        return self.view.model

    @property
    def names(self) -> list[str]:
        """Names of the dropped branches."""
        return [branch.name for branch in self.branches]


def shorten(model: Model, names: Sequence[str], input_shapes: Mapping[str, Shape] | None = None) -> Shortened | None:
    """Return the model without the branches that names mean; None where none are named.

    Raises:
        UsageError: there is no such branch, or it cannot be dropped.
    """
    if not names:
        return None
    view = View(inlined(model))
    traced = trace(view, dict(input_shapes or {}))
    return without(view, traced, pick_branches(find_branches(view, traced), names))


def without(view: View, traced: Trace, branches: Sequence[Branch]) -> Shortened:
    """Return the model in which branches give nothing: their ends pass on what they are added to.

    Nodes, weights, inputs and outputs that only the branches had go. The end of a branch stays as an Identity (a norm
    that adds a skip as a norm), so that every tensor that is left keeps its name.
    """
    model, proto = view.model, onnx.ModelProto()
    proto.CopyFrom(model.proto)
    idle = unneeded(proto.graph)
    ends = {branch.end.proto.output[0]: branch for branch in branches}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        branch = ends.get(node.output[0]) if node.output else None
        nodes += [node] if branch is None else _passing_on(proto, node, branch, view, traced)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    gone = tuple(dict.fromkeys(key for branch in branches for key in branch.outputs))
    for output in [o for o in proto.graph.output if o.name in gone]:
        proto.graph.output.remove(output)
    inputs = strip(proto, spare=idle)
    left = {tensor.name for tensor in proto.graph.initializer}
    pending = {name: make for name, make in model.pending.items() if name in left}
    return Shortened(view, traced, tuple(branches), Model(proto, model.path, pending), inputs, gone)


def sum_of(branch: Branch) -> str:
    """Return the tensor that is the sum of a branch and its skip, which an Identity makes once the branch is dropped.

    A norm that adds a skip need not hand its sum out.
    """
    outputs = branch.end.proto.output
    if branch.end.op_type not in SKIP_NORMS:
        return str(outputs[0])
    return str(outputs[3]) if len(outputs) > 3 and outputs[3] else f"{outputs[0]}_sum"


def _passing_on(
    proto: onnx.ModelProto, node: onnx.NodeProto, branch: Branch, view: View, traced: Trace
) -> list[onnx.NodeProto]:
    """Return what gives the result of an end without its branch: an Identity, and the norm behind it."""
    skip, name = node.input[1 - branch.place], sum_of(branch)
    if node.op_type not in SKIP_NORMS:
        return [helper.make_node("Identity", [skip], [name], name=node.name)]
    passed = helper.make_node("Identity", [skip], [name], name=name)
    plain = node.op_type == "SkipLayerNormalization"
    if plain and view.opsets.get("", 1) >= LAYER_NORM_OPSET and not any(node.output[1:3]):
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), EPSILON)
        inputs = [name, *node.input[2:4]]
        made = helper.make_node("LayerNormalization", inputs, node.output[:1], name=node.name, axis=-1, epsilon=epsilon)
        return [passed, made]
    zero, zeros = (initializers.free_name(f"{name}_{end}", view.keys) for end in ("zero", "zeros"))
    dtype = helper.tensor_dtype_to_np_dtype(traced.data_type(skip) or onnx.TensorProto.FLOAT)
    initializers.add(proto, zero, np.zeros((), dtype))
    made = onnx.NodeProto.FromString(node.SerializeToString())
    del made.input[BIASES[node.op_type] :]
    made.input[0], made.input[1] = name, zeros
    del made.output[3:]
    return [passed, helper.make_node("Mul", [name, zero], [zeros], name=zeros), made]
