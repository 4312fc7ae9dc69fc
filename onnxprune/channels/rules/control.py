"""Control flow: both branches of an If must agree, and so must a state of a loop before and after each turn."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import rule
from onnxprune.channels.space import Axes
from onnxprune.graph.loops import is_followed, slice_axes, stack_axis, state_places, states

TURNS = "a loop runs along it"
GROWS = "every turn of a loop changes its size"


@rule("If")
def if_(ctx: Context) -> None:
    """y = then or else; positions of both live or die together"""
    taken = _taken(ctx)
    for output in range(len(ctx.node.outputs)):
        results = [branch[output] for branch in ctx.node.branches]
        shapes = [ctx.state.trace.shapes.get(key) for key in results]
        if taken is not None and shapes[taken] is not None and len({len(s) for s in shapes if s is not None}) > 1:
            results = [results[taken]]
        _join(ctx, output, results)


def _taken(ctx: Context) -> int | None:
    """The branch that shape arithmetic chooses whatever the dynamic sizes; one of another rank is then dead."""
    condition = ctx.value(0)
    names = [a.name for a in ctx.node.proto.attribute if a.name in ("then_branch", "else_branch")]
    if condition is None or len(names) != len(ctx.node.branches):
        return None
    return names.index("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")


def _join(ctx: Context, output: int, results: list[str]) -> None:
    axes = [ctx.axes_of(key) for key in results]
    known = [a for a in axes if a is not None]
    if len(known) == len(axes) and len({tuple(len(ids) for ids in a) for a in known}) == 1:
        for other in known[1:]:
            for one, two in zip(known[0], other, strict=True):
                ctx.tie(one, two)
        ctx.set(known[0], output=output, zero=all(ctx.is_zero_key(key) for key in results))
        return
    for branch in known:
        for ids in branch:
            ctx.pin(ids, "its branches have different shapes")
    ctx.set([ctx.pinned(s, "its branches have different shapes") for s in ctx.output_shape(output)], output=output)


def enter(ctx: Context) -> bool:
    """Give the inputs of a body their ids: a state has those of the tensor that it starts from, a slice lacks an axis.

    Returns:
        whether the body is followed.
    """
    node, runs, body = ctx.node, (ctx.state.trace.first, ctx.state.trace.second), ctx.node.body
    shapes = runs[0].shapes
    if body is None or not is_followed(node) or any(id(node) in run.closed for run in runs):
        ctx.state.left_alone.add(node)
        return False
    axes = slice_axes(node, shapes)
    after = {index: shapes.get(body.outputs[given], ()) for index, given, _ in state_places(node)}
    for index, key in enumerate(body.inputs):
        if index in axes:
            found = [ids for axis, ids in enumerate(ctx.axes(index)) if axis != axes[index]]
            zeros = ctx.zeros(index)
            ctx.state.zero[key] = tuple(zero for axis, zero in enumerate(zeros) if axis != axes[index])
        elif index in after and len(after[index]) == len(shapes[key]):
            pairs = zip(ctx.axes(index), after[index], strict=True)
            found = [ids if len(ids) == size else ctx.pinned(len(ids), GROWS) for ids, size in pairs]
        else:
            found = ctx.state.pinned_axes(shapes[key], f"{node.label}: it is of the loop")
        ctx.state.axes[key] = found
    return True


@rule("Loop", "Scan")
def loop(ctx: Context) -> None:
    """h = h0, then (h, y[t]) = body(t, h, x[t]) again and again: every turn gives a state as it takes it"""
    node, body = ctx.node, ctx.node.body
    if body is None or node in ctx.state.left_alone:
        raise RuleError(f"{node.label}: its body is left as it is")
    given = [ctx.axes_of(key) for key in body.outputs]
    if any(axes is None for axes in given):
        raise RuleError(f"{node.label}: the shape of what its body gives is unknown")
    for index in range(len(node.inputs)):
        ctx.ignore(index)
    for index, axis in slice_axes(node, ctx.state.trace.shapes).items():
        ctx.pin(ctx.axes(index)[axis], TURNS)
    for index, output, result in state_places(node):
        _back(ctx, index, given[output] or [], result, ctx.is_zero_key(body.outputs[output]))
    own = len(body.outputs) - len(node.outputs)
    for output in range(states(node), len(node.outputs)):
        axes = list(given[own + output] or [])
        axis = stack_axis(node, output, len(axes) + 1)
        if node.outputs[output]:
            axes.insert(axis, ctx.pinned(ctx.output_shape(output)[axis], TURNS))
            ctx.set(axes, output=output, zero=ctx.is_zero_key(body.outputs[own + output]))


def _back(ctx: Context, index: int, after: Axes, output: int, zero: bool) -> None:
    """A state that goes back into the body; an axis that grows stays."""
    body = ctx.node.body
    before = ctx.state.axes[body.inputs[index]] if body is not None else []
    if len(before) != len(after):
        raise RuleError(f"{ctx.node.label}: a turn changes the rank of its state '{ctx.node.inputs[index]}'")
    result: Axes = []
    for one, two, start in zip(before, after, ctx.axes(index), strict=True):
        if len(one) == len(two):
            ctx.tie(one, two)
            result.append(two)
            continue
        for ids in (one, two, start):
            ctx.pin(ids, GROWS)
        size = ctx.output_shape(output)[len(result)] if ctx.node.outputs[output] else len(two)
        result.append(ctx.pinned(size, GROWS))
    ctx.set(result, output=output, zero=zero and ctx.is_zero(index))
