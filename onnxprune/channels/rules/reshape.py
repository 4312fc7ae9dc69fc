"""Reshape and its kin: axes are split and merged in row-major order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import rule
from onnxprune.channels.space import Axes
from onnxprune.graph.trace import Shape

MAX_FLAT = 1 << 22
"""A merged axis with more positions is pinned instead of followed."""


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


def reshape_zeros(source: Shape, zeros: Sequence[bool], target: Shape) -> list[bool]:
    """Tell for each axis of the target whether removed positions are zero: where all that its run is made of are."""
    found = [True] * len(target)
    for one, two in blocks(source, target) if 0 not in source else ():
        for axis in two:
            found[axis] = all(zeros[a] for a in one)
    return found


@rule("Reshape")
def reshape(ctx: Context) -> None:
    """y[target index] = x[source index] with equal row-major positions"""
    result = reshape_axes(ctx, ctx.axes(0), ctx.output_shape())
    ctx.set(result, zero=reshape_zeros(ctx.shape(0), ctx.zeros(0), ctx.output_shape()))
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
    shape, zeros = [len(ids) for ids in data], ctx.zeros(0)
    ctx.set(
        reshape_axes(ctx, data[:axis], (math.prod(shape[:axis]),))
        + reshape_axes(ctx, data[axis:], (math.prod(shape[axis:]),)),
        zero=[all(zeros[:axis]), all(zeros[axis:])],
    )


@rule("Squeeze")
def squeeze(ctx: Context) -> None:
    """y[i, ..] = x[i, 0, ..]"""
    data = ctx.axes(0)
    axes = ctx.integers("axes", 1)
    gone = {a % len(data) for a in axes} if axes else {a for a, ids in enumerate(data) if len(ids) == 1}
    left = [a for a in range(len(data)) if a not in gone]
    zeros = ctx.zeros(0)
    ctx.set([data[a] for a in left], zero=[zeros[a] for a in left])


@rule("Unsqueeze")
def unsqueeze(ctx: Context) -> None:
    """y[i, 0, ..] = x[i, ..]"""
    data, zeros = list(ctx.axes(0)), list(ctx.zeros(0))
    axes = ctx.integers("axes", 1) or []
    rank = len(data) + len(axes)
    for axis in sorted(a % rank for a in axes):
        data.insert(axis, ctx.state.unit)
        zeros.insert(axis, True)
    ctx.set(data, zero=zeros)
