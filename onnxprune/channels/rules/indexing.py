"""Operators that pick positions by index."""

from __future__ import annotations

import numpy as np

from onnxprune.channels.context import Context
from onnxprune.channels.registry import rule
from onnxprune.channels.space import Axes

MAX_INDICES = 1 << 20
"""Larger tables of indices are not read."""


@rule("Gather")
def gather(ctx: Context) -> None:
    """y[a.., i.., b..] = x[a.., index[i..], b..]"""
    data = ctx.axes(0)
    axis = int(ctx.node.attribute("axis", 0)) % len(data)
    for other in range(len(data)):
        ctx.role(0, other, "scales" if other == axis else "writes")
    picked, zeros = _picked(ctx, axis), ctx.zeros(0)
    zero = [*zeros[:axis], *([zeros[axis]] * len(picked)), *zeros[axis + 1 :]]
    ctx.set([*data[:axis], *picked, *data[axis + 1 :]], zero=zero)


def _picked(ctx: Context, axis: int) -> Axes:
    """Ids of the axes that the indices make."""
    ids = ctx.axes(0)[axis]
    indices = ctx.value(1)
    if indices is None:
        parameter = ctx.state.view.parameters.get(ctx.state.view.root(ctx.node.inputs[1]))
        if parameter is None or parameter.elements > MAX_INDICES:
            if not ctx.picks_by_number(1, ids):
                ctx.pin(ids, "its positions are looked up by data")
            return list(ctx.axes(1))
        indices = ctx.state.view.content(parameter.key)
    indices = np.where(indices < 0, indices + len(ids), indices)
    if indices.ndim == 1 and not ctx.is_dynamic_value(1):
        ctx.indices(1, ids)
        return [ids[indices]]
    if indices.ndim == 0 and ctx.state.boundary.ranks and not ctx.is_dynamic_value(1):
        ctx.pin(ids[indices : indices + 1], "a single position is taken from it")
        ctx.spoken.append(ids)
        ctx.indices(1, ids)
        return []
    reason = "a single position is taken from it" if indices.ndim == 0 else "its positions are looked up by a table"
    ctx.pin(ids, reason)
    ctx.pin_input(1, "a table of positions")
    for axis in range(indices.ndim):
        ctx.role(1, axis, "internal")  # nobody asks why an index stays
    return [ctx.pinned(size, "looked up positions") for size in indices.shape]


@rule("GatherElements", "ScatterElements", "Scatter")
def elements(ctx: Context) -> None:
    """y[i, j] = x[index[i, j], j] (gather), y[index[i, j], j] = u[i, j] (scatter); the axes of j pass"""
    inputs = [i for i in range(len(ctx.node.inputs)) if ctx.has(i)]
    operands = [ctx.axes(i) for i in inputs]
    axis = int(ctx.node.attribute("axis", 0)) % len(operands[0])
    gathers = ctx.node.op_type == "GatherElements"
    if not ctx.picks_by_number(1, operands[0][axis]):
        for operand in operands:
            ctx.pin(operand[axis], "its elements are addressed by data")
    for number in range(len(operands[0])):
        columns = [operand[number] for operand in operands]
        if number != axis and len({len(c) for c in columns}) > 1:
            for ids in columns:
                ctx.pin(ids, "only a part of it is addressed")
        elif number != axis:
            for ids in columns[1:]:
                ctx.tie(columns[0], ids)
    ctx.set(operands[1] if gathers else operands[0], zero=all(ctx.is_zero(i) for i in inputs if i != 1))


@rule("GatherND")
def gather_nd(ctx: Context) -> None:
    """y[i.., b..] = x[index[i..], b..]; the trailing axes pass"""
    data, indices = ctx.axes(0), ctx.shape(1)
    depth = int(ctx.node.attribute("batch_dims", 0)) + indices[-1]
    batch = int(ctx.node.attribute("batch_dims", 0))
    for axis, ids in enumerate(data[:depth]):
        if axis < batch or not ctx.picks_by_number(1, ids, axis - batch):
            ctx.pin(ids, "its positions are looked up by data")
    ctx.pin_input(1, "indices")
    shape = ctx.output_shape()
    passed = data[depth:]
    front = len(shape) - len(passed)
    ctx.set([*[ctx.pinned(s, "looked up positions") for s in shape[:front]], *passed], zero=ctx.is_zero(0))


@rule("ScatterND")
def scatter_nd(ctx: Context) -> None:
    """y = x with y[index[i..], b..] = u[i.., b..]; the trailing axes pass"""
    data, indices, updates = ctx.axes(0), ctx.shape(1), ctx.axes(2)
    depth = indices[-1]
    for ids in (*data[:depth], *updates[: len(indices) - 1]):
        ctx.pin(ids, "its positions are addressed by data")
    ctx.pin_input(1, "indices")
    for own, update in zip(data[depth:], updates[len(indices) - 1 :], strict=True):
        ctx.tie(own, update)
    ctx.set(data, zero=ctx.is_zero(0) and ctx.is_zero(2))


@rule("OneHot")
def one_hot(ctx: Context) -> None:
    """y[i.., k] = 1 where index[i..] = k"""
    indices = ctx.axes(0)
    axis = int(ctx.node.attribute("axis", -1)) % (len(indices) + 1)
    result, size = list(indices), ctx.output_shape()[axis]
    classes = ctx.fresh(size)
    if ctx.picks_by_number(0, classes):
        ctx.entry_size(1, 0, classes)
    else:
        classes = ctx.pinned(size, "one position per class")
    result.insert(axis, classes)
    ctx.set(result)
