"""Operators that move positions: every output axis is made of the input's ids."""

from __future__ import annotations

import numpy as np

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import rule
from onnxprune.channels.rules.reshape import spelled_shape
from onnxprune.channels.space import Axes
from onnxprune.types import IntArray


@rule("Transpose")
def transpose(ctx: Context) -> None:
    """y[i, j, ..] = x[.., j, i]"""
    data = ctx.axes(0)
    order = ctx.node.attribute("perm") or list(range(len(data)))[::-1]
    zeros = ctx.zeros(0)
    ctx.set([data[a] for a in order], zero=[zeros[a] for a in order])


@rule("Concat")
def concat(ctx: Context) -> None:
    """y[.., (a, b, ..)] = a[..] then b[..]; the other axes are tied"""
    inputs = [i for i in range(len(ctx.node.inputs)) if ctx.has(i)]
    parts = [ctx.axes(i) for i in inputs]
    axis = int(ctx.node.attribute("axis", 0)) % len(parts[0])
    for other in parts[1:]:
        for number, (a, b) in enumerate(zip(parts[0], other, strict=True)):
            if number != axis:
                ctx.tie(a, b)
    result = list(parts[0])
    result[axis] = np.concatenate([p[axis] for p in parts])
    ctx.set(result, zero=[all(flags) for flags in zip(*(ctx.zeros(i) for i in inputs), strict=True)])


@rule("Split")
def split(ctx: Context) -> None:
    """part p[.., i] = x[.., offset of p + i]"""
    data = ctx.axes(0)
    axis = int(ctx.node.attribute("axis", 0)) % len(data)
    spelled = ctx.integers("split", 1)
    offset = 0
    sizes = [ctx.output_shape(k)[axis] for k in range(len(ctx.node.outputs))]
    for number, size in enumerate(sizes):
        result = list(data)
        result[axis] = data[axis][offset : offset + size]
        ctx.set(result, output=number, zero=ctx.zeros(0))
        if spelled is not None:
            ctx.listed_size("split", 1, number, result[axis])
        offset += size
    if spelled is None:
        ctx.equal_split(axis, [data[axis][sum(sizes[:k]) : sum(sizes[: k + 1])] for k in range(len(sizes))])


@rule("Slice")
def slice_(ctx: Context) -> None:
    """y[.., i] = x[.., start + i * step]"""
    data = list(ctx.axes(0))
    starts, ends = ctx.integers("starts", 1), ctx.integers("ends", 2)
    axes, steps = ctx.integers("axes", 3), ctx.integers("steps", 4)
    if starts is None or ends is None:
        raise RuleError(f"{ctx.node.label}: its bounds are computed from data")
    axes = [a % len(data) for a in axes] if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    shape = ctx.shape(0)
    for entry, (axis, start, end, step) in enumerate(zip(axes, starts, ends, steps, strict=True)):
        positions = np.arange(shape[axis])[slice(start, _open_end(end, step), step)]
        ids = data[axis]
        data[axis] = ids[positions]
        if ctx.is_dynamic_slice(axis):
            ctx.pin(ids, "its bounds depend on dynamic sizes")
        if step != 1:
            ctx.selection(axis, ids, positions)
        elif len(positions):
            _bounds(ctx, entry, ids, end, positions)
    ctx.set(data, zero=ctx.zeros(0))


def _open_end(end: int, step: int) -> int | None:
    return None if step < 0 and end < -(1 << 30) else end


def _bounds(ctx: Context, entry: int, ids: IntArray, end: int, positions: IntArray) -> None:
    """A bound counts the kept positions before it; an end beyond the axis stays where it is."""
    first, last = int(positions[0]), int(positions[-1]) + 1
    if first > 0:
        ctx.listed_size("starts", 1, entry, ids[:first])
    if end <= len(ids):
        ctx.listed_size("ends", 2, entry, ids[:last])


@rule("Expand")
def expand(ctx: Context) -> None:
    """y[.., i, ..] = x[.., i or 0, ..]"""
    shape, dynamic = ctx.output_shape(), ctx.output_dynamic()
    data, zeros = ctx.axes(0), list[bool]()
    result: Axes = []
    for back in range(len(shape), 0, -1):
        own = data[-back] if back <= len(data) else ctx.state.unit
        zeros.append(shape[-back] == 1 or (len(own) == shape[-back] and ctx.zeros(0)[-back]))
        if len(own) == shape[-back]:
            result.append(own)
        elif dynamic[-back] or not ctx.has(1):
            result.append(ctx.pinned(shape[-back], "an axis of dynamic size"))
        else:
            result.append(ctx.fresh(shape[-back]))
    spelled = ctx.shape(1)[0]
    for entry in range(spelled):
        ids = result[entry - spelled]
        value = ctx.traced_value(1)
        if value is None:
            ctx.pin(ids, "its shape is computed from data")
        elif value[entry] != 1:
            ctx.entry_size(1, entry, ids)
    ctx.set(result, zero=zeros)


@rule("Tile")
def tile(ctx: Context) -> None:
    """y[.., i] = x[.., i mod size]"""
    shape = ctx.output_shape()
    result = [np.tile(ids, size // len(ids)) if len(ids) else ids for ids, size in zip(ctx.axes(0), shape, strict=True)]
    for axis, ids in enumerate(ctx.axes(0)):
        if len(ids) == 1 and shape[axis] > 1:
            result[axis] = ctx.pinned(shape[axis], "a repeated single position")
    ctx.set(result, zero=ctx.zeros(0))


@rule("Pad")
def pad(ctx: Context) -> None:
    """y[.., i] = x[.., i - before], a constant outside"""
    data = list(ctx.axes(0))
    pads = ctx.integers("pads", 1)
    if pads is None:
        raise RuleError(f"{ctx.node.label}: its pads are computed from data")
    axes = ctx.integers("axes", 3)
    listed = [a % len(data) for a in axes] if axes is not None else list(range(len(data)))
    mode = ctx.node.attribute("mode", "constant")
    for entry, axis in enumerate(listed):
        before, after = pads[entry], pads[entry + len(listed)]
        if before == 0 and after == 0:
            continue
        if mode != "constant" or before < 0 or after < 0 or ctx.space.is_born_pinned(data[axis]):
            ctx.pin(data[axis], "a padded axis")
            data[axis] = ctx.pinned(len(data[axis]) + before + after, "a padded axis")
            continue
        ahead, behind = ctx.space.fresh(before), ctx.space.fresh(after)
        ctx.listed_size("pads", 1, entry, ahead)
        ctx.listed_size("pads", 1, entry + len(listed), behind)
        data[axis] = np.concatenate([ahead, data[axis], behind])
    value = ctx.value(2) if ctx.has(2) else np.array(ctx.node.attribute("value", 0.0))
    ctx.set(data, zero=ctx.zeros(0) if value is not None and not np.any(value) else False)


@rule("ConstantOfShape")
def constant_of_shape(ctx: Context) -> None:
    """y[i, ..] = value"""
    dynamic = ctx.output_dynamic()
    result = [
        ctx.pinned(size, "an axis of dynamic size") if dynamic[axis] else ctx.fresh(size)
        for axis, size in enumerate(ctx.output_shape())
    ]
    if ctx.traced_value(0) is None:
        for ids in result:
            ctx.pin(ids, "its shape is computed from data")
    spelled_shape(ctx, 0, result)
    value = ctx.node.attribute("value")
    ctx.set(result, zero=value is None or not any(_entries(value)))


def _entries(value: object) -> list[float]:
    from onnx import TensorProto, numpy_helper

    if not isinstance(value, TensorProto):
        raise RuleError("its value is no tensor")
    return [float(v) for v in numpy_helper.to_array(value).reshape(-1)]


@rule("Trilu")
def trilu(ctx: Context) -> None:
    """y[.., i, j] = x[.., i, j] or 0, by whether j - i is below a diagonal"""
    data = ctx.axes(0)
    for ids in data[-2:]:
        ctx.pin(ids, "a triangle is cut from it")
    ctx.set(data, zero=ctx.is_zero(0))


@rule("EyeLike")
def eye_like(ctx: Context) -> None:
    """y[i, j] = 1 where i = j + k"""
    ctx.pin_input(0, "an identity matrix has its shape")
    ctx.set([ctx.pinned(size, "an identity matrix") for size in ctx.output_shape()])


@rule("ReverseSequence")
def reverse_sequence(ctx: Context) -> None:
    """y[t, b, ..] = x[length[b] - t, b, ..]"""
    data = ctx.axes(0)
    for name, default in (("time_axis", 0), ("batch_axis", 1)):
        ctx.pin(data[int(ctx.node.attribute(name, default))], "a sequence is reversed along it")
    ctx.pin_input(1, "lengths")
    ctx.set(data, zero=ctx.is_zero(0))
