"""The gradient of a distance between two networks as an ONNX graph that onnxruntime runs.

The graph has the pruned network, its weights as inputs, the original's tensors as targets, and one loss: the sum over
compared tensors of weight * mean((given - target)^2).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.compensate.adjoints import add_deltas, add_weight_adjoints, clips_as_relus, is_grouped, set_pads
from onnxprune.compensate.lean import without_dead
from onnxprune.compensate.plain_shapes import with_plain_shapes
from onnxprune.compensate.rounding_gates import Gate, with_rounding
from onnxprune.compensate.stages import embedded
from onnxprune.compensate.terms import Term
from onnxprune.errors import ModelError
from onnxprune.graph.follow import shared_names
from onnxprune.graph.model import Model
from onnxprune.operators.call import attributes_of
from onnxprune.operators.operator import operator_of
from onnxprune.types import Array

TRAINED: dict[str, tuple[int, ...]] = {
    "Add": (0, 1),
    "Mul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "PRelu": (1,),
}
"""Operator that multiplies by no matrix -> its inputs that are learned; constants elsewhere (bounds, sizes) stay."""

MASKING = 1e4
"""Constants this large are masks or bounds, no weights."""

OPSET = 18
"""onnx-ad knows the operators of this opset and later."""


@dataclass(frozen=True, eq=False)
class Gradient:
    """A graph that gives the loss and its gradient by every weight.

    weights: name -> values to start from.
    targets: compared tensor -> input that holds what it should be.
    matrices: name -> (blocks, rows, columns) of the weights that are matrices.
    helpers: terms of the loss that show the way but are no aim; the input `help`, (1,), says how much they count.
    """

    proto: onnx.ModelProto
    weights: dict[str, Array]
    targets: dict[str, str]
    matrices: dict[str, tuple[int, int, int]]
    helpers: tuple[str, ...] = ()
    loss: str = "onnxprune.loss"
    aim: str = "onnxprune.aim"
    help: str = "onnxprune.help"

    def seed(self) -> dict[str, Array]:
        """Return the feed that stands for d loss / d loss = 1, and for helpers that count as much as they may."""
        helping = {self.help: np.ones(1, np.float32)} if self.helpers else {}
        return {f"adj_{self.loss}": np.ones((1, 1), np.float32), **helping}

    def without_slopes(self) -> onnx.ModelProto:
        """Return the graph that gives the loss, and what it is without helpers (`aim`), with the same inputs."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        total = next(node for node in proto.graph.node if self.loss in node.output)
        aims = [name for name in total.input if name not in self.helpers]
        proto.graph.node.append(helper.make_node("Sum", aims, [self.aim]))
        del proto.graph.output[:]
        for name in (self.loss, self.aim):
            proto.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]))
        without_dead(proto)
        return proto

    def outputs(self) -> list[str]:
        """Return the loss and the gradients, in the order of the weights."""
        return [self.loss, *(f"adj_{name}" for name in self.weights)]


def gradient_graph(
    model: Model,
    compared: Mapping[str, float],
    shapes: Mapping[str, Sequence[int]],
    samples: Mapping[str, Array],
    more: Sequence[Term] = (),
    gates: Sequence[Gate] = (),
    helping: Collection[str] = (),
) -> Gradient:
    """Return the gradient of the distance.

    Args:
        model: the pruned network.
        compared: tensor -> its weight in the loss.
        shapes: tensor -> its shape for a batch.
        samples: one feed; its sizes are the sizes of every later one.
        more: losses that are added to the distance.
        gates: activations that are rounded where the network has a Clip.
        helping: compared tensors that are no aim of their own.

    Raises:
        ModelError: onnx-ad is missing, or an operator has no derivative.
    """
    proto = differentiable(model, samples)
    clips_as_relus(proto)
    known = _stored(model.proto).keys() - shared_names(model.proto)
    deltas = add_deltas(
        proto, {name for name, tensor in _stored(proto).items() if name in known and _is_weight(tensor)}
    )
    names = {delta.weight for delta in deltas}
    weights, matrices = _lift(proto, names, known)
    targets, helpers = _add_loss(proto, compared, shapes, more, helping)
    for name, value in weights.items():
        proto.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(Gradient.loss, onnx.TensorProto.FLOAT, [1]))
    asked = [name for name in weights if name not in names] + [delta.name for delta in deltas]
    try:
        from onnx_ad import reverse
    except ImportError as error:
        raise ModelError("gradients need onnx-ad: pip install onnx-ad.") from error
    try:
        adjoint = reverse(
            onnx.shape_inference.infer_shapes(proto), inputs=asked, outputs=[Gradient.loss], layout="onnx"
        )
    except Exception as error:  # onnx-ad refuses with errors of many kinds
        raise ModelError(f"onnx-ad has no gradient of the model: {error}".splitlines()[0][:300]) from error
    with_rounding(adjoint, gates)
    set_pads(adjoint)
    add_weight_adjoints(adjoint, deltas)
    _fix_seed(adjoint)
    without_dead(adjoint)
    with_plain_shapes(adjoint)
    return Gradient(adjoint, weights, targets, matrices, helpers)


def _fix_seed(adjoint: onnx.ModelProto) -> None:
    """Say that one loss is differentiated: onnx-ad leaves it open how many."""
    for value in adjoint.graph.input:
        if value.name == f"adj_{Gradient.loss}":
            value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, [1, 1]))


def differentiable(model: Model, samples: Mapping[str, Array]) -> onnx.ModelProto:
    """Return a copy at a high enough opset, all weights inside, input sizes fixed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(embedded(model, tensor))
    given = {tensor.name for tensor in proto.graph.initializer}
    for value in list(proto.graph.input):
        if value.name in given:
            proto.graph.input.remove(value)
        else:
            element = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, element, samples[value.name].shape))
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    version = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    if version >= OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, OPSET)
    except Exception as error:
        raise ModelError(f"the model cannot be raised to opset {OPSET} for gradients: {str(error)[:200]}") from error


def _stored(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return initializers and Constant nodes by name."""
    constants = [n for n in proto.graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"]
    return {n.output[0]: n.attribute[0].t for n in constants} | {
        tensor.name: tensor for tensor in proto.graph.initializer
    }


def _lift(
    proto: onnx.ModelProto, grouped: set[str], known: Collection[str]
) -> tuple[dict[str, Array], dict[str, tuple[int, int, int]]]:
    """Take the weights out of the graph, those in Constant nodes too; return them, and which are matrices.

    grouped: weights of grouped and transposed Conv that a derivative is found for.
    known: what the model itself stores; raising the opset may have added other constants.
    """
    stored = _stored(proto)
    weights: dict[str, Array] = {}
    matrices: dict[str, tuple[int, int, int]] = {}
    for node in proto.graph.node:
        for index in _trained(node, grouped):
            name = node.input[index] if index < len(node.input) else ""
            tensor = stored.get(name) if name in known else None
            if tensor is None or not _is_weight(tensor):
                continue
            weights[name] = numpy_helper.to_array(tensor).copy()
            blocks = _blocks(node, index, weights[name].shape)
            if min(blocks[1:]) > 1:
                matrices[name] = blocks
    kept_tensors = [tensor for tensor in proto.graph.initializer if tensor.name not in weights]
    kept_nodes = [n for n in proto.graph.node if not (n.op_type == "Constant" and n.output[0] in weights)]
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend(kept_tensors)
    proto.graph.node.extend(kept_nodes)
    return weights, matrices


def _is_weight(tensor: onnx.TensorProto) -> bool:
    """Tell whether a stored tensor looks learned: more than one number, none as large as masks have."""
    if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) <= 1:
        return False
    return bool(np.abs(numpy_helper.to_array(tensor)).max() < MASKING)


def _trained(node: onnx.NodeProto, grouped: set[str]) -> tuple[int, ...]:
    """Return the inputs of a node that are weights; onnx-ad knows none of grouped and transposed Conv."""
    if node.domain not in ("", "ai.onnx"):
        return ()
    if node.op_type.startswith("Conv") and node.input[1] in grouped:
        return (1, 2)
    if is_grouped(node):
        return (2,)
    operator = operator_of(node)
    return operator.trained if operator is not None else TRAINED.get(node.op_type, ())


def _blocks(node: onnx.NodeProto, index: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the weight as (blocks, rows, columns); (1, 1, 1) where it is no matrix."""
    operator = operator_of(node)
    met = operator.contractions(attributes_of(node)) if operator is not None else ()
    contraction = next((c for c in met if c.weight == index), None)
    if operator is None or contraction is None or len(shape) < 2:
        return 1, 1, 1
    if operator.gates:
        return shape[0] * operator.gates, shape[1] // operator.gates, shape[2]
    if contraction.writes == 0 or operator.way == "transposed convolution":  # all axes behind the first go together
        return contraction.groups, shape[0] // contraction.groups, math.prod(shape[1:])
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _add_loss(
    proto: onnx.ModelProto,
    compared: Mapping[str, float],
    shapes: Mapping[str, Sequence[int]],
    more: Sequence[Term] = (),
    helping: Collection[str] = (),
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Append the loss; return the target input of every compared tensor, and the terms that are helpers."""
    graph, terms, targets, helpers = proto.graph, list[str](), dict[str, str](), list[str]()
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "onnxprune.flat"))
    for number, (name, weight) in enumerate(compared.items()):
        stem = f"onnxprune.{number}"
        targets[name] = f"{stem}.target"
        graph.input.append(helper.make_tensor_value_info(targets[name], onnx.TensorProto.FLOAT, list(shapes[name])))
        factor = np.array(weight / int(np.prod(shapes[name])), np.float32)
        graph.initializer.append(numpy_helper.from_array(factor, f"{stem}.weight"))
        graph.node.extend(
            [
                helper.make_node("Sub", [name, targets[name]], [f"{stem}.difference"]),
                helper.make_node("Mul", [f"{stem}.difference"] * 2, [f"{stem}.square"]),
                helper.make_node("Reshape", [f"{stem}.square", "onnxprune.flat"], [f"{stem}.row"]),
                helper.make_node("ReduceSum", [f"{stem}.row"], [f"{stem}.sum"], keepdims=1),
                helper.make_node("Mul", [f"{stem}.sum", f"{stem}.weight"], [f"{stem}.term"]),
            ]
        )
        terms.append(f"{stem}.term")
        if name in helping:
            graph.node.append(helper.make_node("Mul", [terms[-1], Gradient.help], [f"{stem}.help"]))
            helpers.append(f"{stem}.help")
            terms[-1] = helpers[-1]
    if helpers:
        graph.input.append(helper.make_tensor_value_info(Gradient.help, onnx.TensorProto.FLOAT, [1]))
    for term in more:
        graph.node.extend(term.nodes)
        graph.initializer.extend(term.stored)
        graph.input.extend(term.inputs)
        terms.append(term.name)
    graph.node.append(helper.make_node("Sum", terms, [Gradient.loss]))
    return targets, tuple(helpers)
