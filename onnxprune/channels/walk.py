"""Walk a graph once and let the rule of every operator speak."""

from __future__ import annotations

import numpy as np

import onnxprune.channels.rules  # noqa: F401  (fills the registry)
from onnxprune.channels.boundary import Boundary
from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.numbers import moved
from onnxprune.channels.registry import RULES
from onnxprune.channels.rules.control import enter
from onnxprune.channels.shuffle import find_shuffles, visit_shuffle
from onnxprune.channels.space import MAX_AXIS, SMALLER, Axes
from onnxprune.channels.state import State
from onnxprune.errors import ModelError
from onnxprune.graph.trace import Seen, Shape, trace
from onnxprune.graph.view import Node, View
from onnxprune.types import IntArray


def walk(
    view: View,
    input_shapes: dict[str, Shape] | None = None,
    boundary: Boundary | None = None,
    seen: Seen | None = None,
) -> State:
    """Trace a view and apply the rule of every node."""
    state = State(view, trace(view, input_shapes, seen), boundary=boundary or Boundary())
    check_sizes(state)
    for key in view.inputs:
        if key in state.trace.shapes:
            state.axes[key] = _input_axes(state, key)
    shuffles = find_shuffles(state)
    for node in view.in_turn(lambda owner: enter(Context(state, owner))):
        run = shuffles.get(id(node))
        if run is not None:
            state.visited.add(id(node))
            if node is run[2]:
                visit_shuffle(state, run)
            continue
        is_alias = node.op_type == "Identity" and not node.domain and view.root(node.inputs[0]) in view.parameters
        if not is_alias and not all(_is_folded(state, key) for key in node.outputs if key):
            visit(state, node)
            state.numbers.update(moved(node, state.numbers, state.trace) if state.numbers else {})
    _pin_unseen(state)
    _pin_ends(state)
    return state


def check_sizes(state: State) -> None:
    """Refuse sizes that only a broken or malicious file has, before they take memory.

    Raises:
        ModelError: naming the tensor and what to do.
    """
    for key, shape in state.trace.shapes.items():
        if max(shape, default=0) > MAX_AXIS:
            raise ModelError(f"'{key}' has an axis of {max(shape)} positions, more than {MAX_AXIS}; {SMALLER}")


def _is_folded(state: State, key: str) -> bool:
    """Tell whether a tensor is shape arithmetic; numbers of a dynamic shape (zeros, masks) are followed by rules."""
    value = state.trace.first.values.get(key)
    if value is None or key in state.trace.values:
        return value is not None
    return value.size <= 1 or value.dtype.kind != "f"


def visit(state: State, node: Node) -> None:
    """Apply one node's rule, or pin what it touches."""
    ctx = Context(state, node)
    state.visited.add(id(node))
    function = RULES.get((node.domain, node.op_type))
    reason = f"{node.label}: no rule for this operator"
    if function is not None:
        try:
            function(ctx)
            left_out = ctx.forgotten()
            if left_out is None:
                _pin_captured(state, node, f"{node.label}: used inside a body")
                return
            reason = f"{node.label}: its rule says nothing about {left_out}"
            state.defects.append(reason)
        except RuleError as error:
            reason = str(error)
        except ModelError:
            raise
        except Exception as error:  # a defect of a rule must not break a model: pin and report it
            reason = f"{node.label}: defect in its rule ({type(error).__name__}: {error})"
            state.defects.append(reason)
    else:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        state.unknown[name] = state.unknown.get(name, 0) + 1
    pin_node(state, ctx, reason)
    _pin_captured(state, node, reason)


def pin_node(state: State, ctx: Context, reason: str) -> None:
    """Nothing that enters or leaves this node may change."""
    for index, key in enumerate(ctx.node.inputs):
        if key:
            try:
                axes = ctx.axes(index)
            except RuleError:
                continue
            for ids in axes:
                state.space.pin(ids, reason)
    for key in ctx.node.outputs:
        if key and key in state.trace.shapes:
            for ids in state.axes.get(key, []):
                state.space.pin(ids, reason)
            state.axes[key] = state.pinned_axes(state.trace.shapes[key], reason)


def _pin_captured(state: State, node: Node, reason: str) -> None:
    outside = node.body.outside if node.body is not None and node in state.left_alone else ()
    for key in (*node.captured, *outside):
        pin_key(state, key, reason)


def pin_key(state: State, key: str, reason: str) -> None:
    """Nothing of this tensor may change; a stored one is marked so that no user changes it in place."""
    root = state.view.root(key)
    if root in state.view.parameters:
        state.fixed.add(root)
    for ids in state.axes.get(root, state.axes.get(key, [])):
        state.space.pin(ids, reason)


def _input_axes(state: State, key: str) -> Axes:
    """Return ids of an input: what the boundary leaves loose may change."""
    axes = state.pinned_axes(state.trace.shapes[key], f"'{key}' is an input of the model")
    dynamic = state.trace.dynamic(key)
    for axis, ids in enumerate(axes):
        if state.boundary.is_loose(key, axis) and len(ids) > 1 and not dynamic[axis]:
            axes[axis] = state.space.fresh(len(ids))
    return axes


def _pin_unseen(state: State) -> None:
    """A stored tensor with a reader that no rule has seen stays; of its sizes alone the new ones are evaluated."""
    for key in [key for key in state.axes if key in state.view.parameters]:
        for node in state.view.users(key):
            if id(node) not in state.visited and node.op_type not in ("Shape", "Size"):
                pin_key(state, key, f"{node.label}: its sizes or positions are computed from it")


def _pin_ends(state: State) -> None:
    for key in state.view.outputs:
        reason = f"'{key}' is an output of the model"
        loose = {axis for axis, _ in enumerate(state.axes.get(key, ())) if state.boundary.is_loose(key, axis)}
        if state.view.root(key) in state.view.parameters or not (loose or state.rankings):
            pin_key(state, key, reason)
            continue
        if key not in state.trace.shapes:  # a map, a sequence, or unknown: whoever makes it has said what stays
            continue
        dynamic = state.trace.dynamic(key)
        for axis, ids in enumerate(state.axes.get(key, ())):
            if axis not in loose or dynamic[axis]:
                _pin_but_ranked(state, ids, reason)
    for output, target in state.boundary.states:
        sizes = zip(state.axes.get(output, ()), state.axes.get(target, ()), strict=False)
        fixed = zip(state.trace.dynamic(output), state.trace.dynamic(target), sizes, strict=False)
        for grows, moves, (one, two) in fixed:
            if not grows and not moves and len(one) == len(two):
                state.space.tie(one, two)


def _pin_but_ranked(state: State, ids: IntArray, reason: str) -> None:
    """The results of a TopK may become fewer where fewer positions are left than it gives."""
    if not any(ranking.ranked is not None and np.array_equal(ranking.ranked, ids) for ranking in state.rankings):
        state.space.pin(ids, reason)
