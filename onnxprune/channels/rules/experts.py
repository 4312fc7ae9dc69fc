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
    _routed(ctx, experts)
    ctx.set([*data[:-1], outer], zero=ctx.is_zero(4) and ctx.is_zero(5))


@rule("QMoE", domain=MICROSOFT)
def packed_mixture(ctx: Context) -> None:
    """The same with weights in 4 or 8 bits, times a scale for each row, or for each block of a row.

    Rows go freely, columns in whole bytes, or in whole blocks where these have scales.
    """
    data, first, second = ctx.axes(0), ctx.axes(2), ctx.axes(5)
    if len(first) != 3 or len(second) != 3 or len(ctx.axes(1)) != 2 or any(ctx.has(index) for index in (11, 12, 13)):
        raise RuleError(f"{ctx.node.label}: its experts have zero points, or not one matrix each")
    experts, outer, _ = second
    gated = ctx.has(8) or not int(ctx.node.attribute("swiglu_fusion", 0))
    inner = ctx.fresh(len(first[1]) if gated else len(first[1]) // 2)
    _packed(ctx, (2, 3, 4), experts, _written(ctx, first[1], inner), data[-1])
    if ctx.has(8):
        _packed(ctx, (8, 9, 10), experts, inner, data[-1])
    _packed(ctx, (5, 6, 7), experts, outer, inner)
    ctx.contract(data[-1], 0)
    _routed(ctx, experts)
    ctx.set([*data[:-1], outer], zero=ctx.is_zero(6) and ctx.is_zero(7))


def _routed(ctx: Context, experts: IntArray) -> None:
    """Tie the router's scores to the experts; no more of them are taken than are left."""
    data, router = ctx.axes(0), ctx.axes(1)
    ctx.tie(router[1], experts)
    ctx.normalise(experts)
    ctx.state.experts.append(experts)
    ctx.takes(experts, int(ctx.node.attribute("k", 1)), needs=False)
    if len(data) == 2:
        ctx.tie(router[0], data[0])
    else:
        ctx.pin(router[0], "its rows are tokens")
    ctx.state.edits.append(AttributeLimit(ctx.node, "k", int(ctx.node.attribute("k", 1)), experts))


def _packed(ctx: Context, indices: tuple[int, int, int], experts: IntArray, rows: IntArray, columns: IntArray) -> None:
    """Tie a stack of packed matrices, its scales and biases. columns: as numbers, before they are packed."""
    weight, scale, bias = indices
    stack, scales = ctx.axes(weight), ctx.axes(scale)
    for axes in (stack, scales, *([ctx.axes(bias)] if ctx.has(bias) else [])):
        ctx.tie(axes[0], experts)
        if axes[1] is not rows:
            ctx.tie(axes[1], rows)
    units = scales[2] if len(scales) > 2 and len(scales[2]) > 1 else stack[2]
    for flat in (columns, stack[2]):
        if flat is units:
            continue
        if len(flat) % len(units):
            raise RuleError(f"{ctx.node.label}: {len(flat)} columns in {len(units)} blocks of one scale")
        ctx.product(flat, [units, ctx.pinned(len(flat) // len(units), "numbers that are packed together")])
    for axis, role in enumerate(("scales", "writes", "reads")):
        ctx.role(weight, axis, role)  # type: ignore[arg-type]  # spelled out above
    for axis in range(len(scales)):
        ctx.role(scale, axis, "scales")


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
