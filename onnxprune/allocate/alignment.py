"""Widths that kernels like: kept counts are multiples of a step, so that the axes that are left are multiples of N."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

from onnxprune.channels.groups import ChannelGroup

AxisSizes = Mapping[tuple[str, int], int]
"""(parameter tensor, axis) -> its length before pruning."""


def multiple_for(length: int, align: int | None) -> int:
    """Return what the length of an axis is rounded to.

    Args:
        length: of the axis before pruning.
        align: the multiple asked for; None: 16 from 128 positions, 8 from 32, else 1. An axis shorter than the
            multiple is not aligned.
    """
    if align is not None:
        return align if length >= align else 1
    return 16 if length >= 128 else 8 if length >= 32 else 1


def step_of(group: ChannelGroup, align: int | None, sizes: AxisSizes) -> int:
    """Return the number whose multiples a group keeps.

    What counts is the length of the axes that are left: a head of 64 positions is aligned however many heads stay.
    Axes that a group shares with others are left to `counts`. Positions inside heads are also an axis of the attention
    product, so they are aligned by themselves.
    """
    steps = [multiple_for(group.size, align)] if group.kind == "head-dim" else [1]
    for site in group.sites:
        length = sizes.get((site.tensor, site.axis), site.positions.size)
        if site.positions.size == length:
            multiple = multiple_for(length, align)
            steps.append(multiple // gcd(multiple, site.positions.shape[1]))
    return max(steps)


def to_multiple(wanted: float, step: int, least: int, size: int) -> int:
    """Return the multiple of `step` nearest to `wanted` within [least, size]; halves go up."""
    kept = step * int(wanted / step + 0.5)
    if kept < least:
        kept = step * -(-least // step)
    return min(kept, size)
