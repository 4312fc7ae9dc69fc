"""Mixtures of experts: the inner width that all of them share, and whole experts."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.edits import AttributeLimit
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.types import IntArray

GATED = "the halves of a gated activation"


@rule("MoE", domain=MICROSOFT)
def mixture(ctx: Context) -> None:
    """y[t, o] = sum over the best experts e of g[t, e] * (sum over i of W2[e, o, i] * act(W1[e, i, :] x[t, :])[i])

    g is a softmax of the router's scores r[t, e] over the best `k`: with experts gone, over the best of those left.
    """
    data, router, first, second = ctx.axes(0), ctx.axes(1), ctx.axes(2), ctx.axes(4)
    if len(first) != 3 or len(second) != 3 or len(router) != 2:
        raise RuleError(f"{ctx.node.label}: its weights are not one matrix for each expert")
    experts, outer, inner = second
    _weights(ctx, 2, experts, _written(ctx, first[1], inner), data[-1])
    if ctx.has(6):
        _weights(ctx, 6, experts, inner, data[-1])
    for index, rows in ((3, first[1]), (5, outer), (7, inner)):
        if ctx.has(index):
            ctx.tie(ctx.axes(index)[0], experts)
            ctx.tie(ctx.axes(index)[1], rows)
    for axis, role in enumerate(("scales", "writes", "reads")):
        ctx.role(4, axis, role)  # type: ignore[arg-type]  # spelled out above
    ctx.tie(router[1], experts)
    ctx.normalise(experts)
    if len(data) == 2:
        ctx.tie(router[0], data[0])
    else:
        ctx.pin(router[0], "its rows are tokens")
    ctx.state.edits.append(AttributeLimit(ctx.node, "k", int(ctx.node.attribute("k", 1)), experts))
    ctx.set([*data[:-1], outer], zero=ctx.is_zero(4) and ctx.is_zero(5))


def _written(ctx: Context, rows: IntArray, inner: IntArray) -> IntArray:
    """Return the ids of the rows of the first weight: twice the inner width where a gate is stored with it."""
    if len(rows) == len(inner):
        ctx.tie(rows, inner)
        return rows
    way = int(ctx.node.attribute("swiglu_fusion", 0))
    if len(rows) != 2 * len(inner) or way not in (1, 2):
        raise RuleError(f"{ctx.node.label}: its first weight has {len(rows)} rows for a width of {len(inner)}")
    gate = ctx.pinned(2, GATED)
    ctx.product(rows, [inner, gate] if way == 1 else [gate, inner])
    return rows


def _weights(ctx: Context, index: int, experts: IntArray, rows: IntArray, columns: IntArray) -> None:
    """Tie the axes of a stack of matrices that read what enters."""
    stack = ctx.axes(index)
    ctx.tie(stack[0], experts)
    if stack[1] is not rows:
        ctx.tie(stack[1], rows)
    ctx.contract(stack[2], 0, index)
    ctx.tie(stack[2], columns)
    for axis, role in enumerate(("scales", "writes", "reads")):
        ctx.role(index, axis, role)  # type: ignore[arg-type]  # spelled out above
