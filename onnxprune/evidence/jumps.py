"""Where a graph turns differences of rounding size into visible ones: sorts, roundings, comparisons.

Between them a network is continuous. So two models are compared piece by piece: what enters a step must agree up to
rounding, and behind it both go on with the same values.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from onnxprune.graph.bodies import bodies_of, graphs
from onnxprune.graph.view import Node, View

STEPS = frozenset(
    "TopK NonMaxSuppression ArgMax ArgMin Round Floor Ceil Sign Mod Unique NonZero Hardmax Equal Greater Less "
    "GreaterOrEqual LessOrEqual QuantizeLinear DynamicQuantizeLinear ThresholdedRelu Shrink RoiAlign MaxRoiPool "
    "DynamicQuantizeMatMul DynamicQuantizeLSTM MoE QMoE IsNaN IsInf CastLike Binarizer TreeEnsemble "
    "TreeEnsembleClassifier TreeEnsembleRegressor LinearClassifier SVMClassifier".split()
)
"""Operators that jump."""

RANDOM = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout".split()
)
SQUASHES = frozenset("Softmax LogSoftmax Sigmoid HardSigmoid Tanh Erf Clip".split())
BLIND = frozenset({"Shape", "Size"})
"""Operators that do not see values."""
FINE = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})
"""Types whose grid is finer than what rounding does anyway; a cast to any other one rounds, also to float16."""


@dataclass(frozen=True)
class Steps:
    """The steps on what is computed with weights.

    held: tensor -> the inputs, as (first output of the node, number of the input), where a step reads it. All of them
        are in the main graph, so that they can be handed out and fed.
    hidden: steps inside bodies, on tensors that are made there: what they read cannot be handed out.
    """

    held: dict[str, tuple[tuple[str, int], ...]]
    hidden: tuple[str, ...]


def find_steps(view: View) -> Steps:
    """Return the steps of a graph that read something computed with weights."""
    computed = computed_tensors(view)
    main = {name for node in view.model.proto.graph.node for name in node.output}
    held: dict[str, list[tuple[str, int]]] = {}
    hidden = []
    for node in view.nodes:
        if _has_step_inside(node):
            hidden.append(node.label)
        if not is_step(node):
            continue
        for index, key in enumerate(node.inputs):
            if key not in computed or not _jumps_with(node, index):
                continue
            if key in main and node.outputs[0]:
                held.setdefault(key, []).append((node.outputs[0], index))
            else:
                hidden.append(node.label)
    return Steps({key: tuple(places) for key, places in held.items()}, tuple(dict.fromkeys(hidden)))


def find_squashed(view: View) -> tuple[str, ...]:
    """Return what enters a saturating function, of what is computed with weights: it shows what its output hides."""
    computed = computed_tensors(view)
    main = {name for node in view.model.proto.graph.node for name in node.output}
    keys = [node.inputs[0] for node in view.nodes if node.op_type in SQUASHES and node.inputs]
    return tuple(dict.fromkeys(key for key in keys if key in computed and key in main))


def is_step(node: Node) -> bool:
    """Tell whether an operator jumps where its inputs hardly change."""
    if node.op_type in STEPS:
        return True
    if node.op_type == "Cast":
        return node.attribute("to") not in FINE
    if node.op_type == "MaxPool":
        return len([name for name in node.outputs if name]) > 1
    if node.op_type == "GridSample":
        return bool(node.attribute("mode", "linear") == "nearest")
    return node.op_type == "MatMulNBits" and bool(node.attribute("accuracy_level", 0) == 4)


def computed_tensors(view: View) -> set[str]:
    """Return what is computed with weights from what is fed in; constants and sizes are not among it."""
    fed, weighted = set(view.inputs), set[str]()
    for node in view.nodes:
        if node.op_type in BLIND:
            continue
        inputs = {key for key in (*node.inputs, *node.captured, *sum(node.branches, ())) if key}
        if inputs & fed:
            fed.update(node.outputs)
            if inputs & weighted or any(_is_weight(view, key) for key in inputs):
                weighted.update(node.outputs)
        elif inputs & weighted or any(_is_weight(view, key) for key in inputs):
            weighted.update(node.outputs)
    return {key for key in fed & weighted if key}


def _is_weight(view: View, key: str) -> bool:
    return key in view.parameters and len(view.parameters[key].dims) > 1


def _jumps_with(node: Node, index: int) -> bool:
    """Tell whether a step jumps with this input; it is continuous in scales and in the values that it picks from."""
    return not (node.op_type == "RoiAlign" and index == 0)


def _has_step_inside(node: Node) -> bool:
    """Tell whether the closed body of a Loop or a Scan holds a step or draws at random."""
    if node.op_type in RANDOM - {"Dropout"}:
        return True
    if node.op_type == "If":
        return False
    inner = (graph for body in bodies_of(node.proto) for graph in graphs(body))
    return any(op.op_type in STEPS or op.op_type in RANDOM for graph in inner for op in graph.node)
