"""Operators that move positions: every output axis is made of the input's ids."""

from __future__ import annotations

import math

import numpy as np

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import rule
from onnxprune.channels.space import Axes
from onnxprune.graph.trace import Shape
from onnxprune.types import IntArray

MAX_FLAT = 1 << 22
"""A merged axis with more positions is pinned instead of followed."""


@rule("Transpose")
def transpose(ctx: Context) -> None:
    """y[i, j, ..] = x[.., j, i]"""
    data = ctx.axes(0)
    order = ctx.node.attribute("perm") or list(range(len(data)))[::-1]
    ctx.set([data[a] for a in order], zero=ctx.is_zero(0))


def blocks(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Cut a reshape into the smallest runs of axes with equal products; axes of size 1 belong to none.

    Raises:
        ValueError: the sizes do not multiply to the same number.
    """
    left = [a for a, size in enumerate(source) if size != 1]
    right = [a for a, size in enumerate(target) if size != 1]
    found = []
    while left or right:
        one, two = [left.pop(0)] if left else [], [right.pop(0)] if right else []
        while True:
            a, b = math.prod(source[i] for i in one), math.prod(target[i] for i in two)
            if a == b:
                break
            if a < b and left:
                one.append(left.pop(0))
            elif b < a and right:
                two.append(right.pop(0))
            else:
                raise ValueError(f"{source} does not reshape to {target}")
        found.append((one, two))
    return found


def reshape_axes(ctx: Context, source: Axes, target: Shape) -> Axes:
    """Follow a reshape in row-major order.

    Returns:
        ids of the target's axes.
    """
    shape = tuple(len(ids) for ids in source)
    if 0 in shape or 0 in target:
        return [ctx.pinned(size, "an empty tensor") for size in target]
    result: Axes = [ctx.state.unit] * len(target)
    try:
        runs = blocks(shape, target)
    except ValueError as error:
        raise RuleError(f"{ctx.node.label}: {error}") from error
    for one, two in runs:
        ins = [source[a] for a in one]
        if len(one) == 1 and len(two) == 1:
            result[two[0]] = ins[0]
            continue
        if all(ctx.space.is_born_pinned(ids) for ids in ins):
            for axis in two:
                result[axis] = ctx.pinned(target[axis], "a reshape of axes that stay")
            continue
        size = math.prod(shape[a] for a in one)
        if size > MAX_FLAT:
            for ids in ins:
                ctx.pin(ids, f"it is merged into an axis of {size} positions")
            for axis in two:
                result[axis] = ctx.pinned(target[axis], "a large merged axis")
            continue
        flat = ins[0] if len(one) == 1 else ctx.space.fresh(size)
        if len(one) > 1:
            ctx.product(flat, ins)
        if len(two) == 1:
            result[two[0]] = flat
            continue
        outs = [ctx.fresh(target[a]) for a in two]
        ctx.product(flat, outs)
        for axis, ids in zip(two, outs, strict=True):
            result[axis] = ids
    return result


@rule("Reshape")
def reshape(ctx: Context) -> None:
    """y[target index] = x[source index] with equal row-major positions"""
    result = reshape_axes(ctx, ctx.axes(0), ctx.output_shape())
    ctx.set(result, zero=ctx.is_zero(0))
    spelled_shape(ctx, 1, result)


def spelled_shape(ctx: Context, index: int, result: Axes) -> None:
    """Every entry of a shape input equals the size of its axis (0 and -1 follow by themselves)."""
    for entry, ids in enumerate(result):
        ctx.entry_size(index, entry, ids)


@rule("Flatten")
def flatten(ctx: Context) -> None:
    """y[(i..), (j..)] = x[i.., j..]"""
    data = ctx.axes(0)
    axis = int(ctx.node.attribute("axis", 1))
    axis = axis + len(data) if axis < 0 else axis
    shape = [len(ids) for ids in data]
    ctx.set(
        reshape_axes(ctx, data[:axis], (math.prod(shape[:axis]),))
        + reshape_axes(ctx, data[axis:], (math.prod(shape[axis:]),)),
        zero=ctx.is_zero(0),
    )


@rule("Squeeze")
def squeeze(ctx: Context) -> None:
    """y[i, ..] = x[i, 0, ..]"""
    data = ctx.axes(0)
    axes = ctx.integers("axes", 1)
    gone = {a % len(data) for a in axes} if axes else {a for a, ids in enumerate(data) if len(ids) == 1}
    ctx.set([ids for a, ids in enumerate(data) if a not in gone], zero=ctx.is_zero(0))


@rule("Unsqueeze")
def unsqueeze(ctx: Context) -> None:
    """y[i, 0, ..] = x[i, ..]"""
    data = list(ctx.axes(0))
    axes = ctx.integers("axes", 1) or []
    rank = len(data) + len(axes)
    for axis in sorted(a % rank for a in axes):
        data.insert(axis, ctx.state.unit)
    ctx.set(data, zero=ctx.is_zero(0))


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
    ctx.set(result, zero=all(ctx.is_zero(i) for i in inputs))


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
        ctx.set(result, output=number, zero=ctx.is_zero(0))
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
    ctx.set(data, zero=ctx.is_zero(0))


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
    data = ctx.axes(0)
    result: Axes = []
    for back in range(len(shape), 0, -1):
        own = data[-back] if back <= len(data) else ctx.state.unit
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
    ctx.set(result, zero=ctx.is_zero(0))


@rule("Tile")
def tile(ctx: Context) -> None:
    """y[.., i] = x[.., i mod size]"""
    shape = ctx.output_shape()
    result = [np.tile(ids, size // len(ids)) if len(ids) else ids for ids, size in zip(ctx.axes(0), shape, strict=True)]
    for axis, ids in enumerate(ctx.axes(0)):
        if len(ids) == 1 and shape[axis] > 1:
            result[axis] = ctx.pinned(shape[axis], "a repeated single position")
    ctx.set(result, zero=ctx.is_zero(0))


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
    ctx.set(data, zero=ctx.is_zero(0) and value is not None and not np.any(value))


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
