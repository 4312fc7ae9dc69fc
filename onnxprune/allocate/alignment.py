"""Widths that kernels like: kept counts are multiples of a step, so that the axes that are left are multiples of N."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, lcm
from typing import Self

from onnxprune.channels.groups import ChannelGroup
from onnxprune.hardware.target import Target

AxisSizes = Mapping[tuple[str, int], int]
"""(parameter tensor, axis) -> its length before pruning."""

USUAL = ((32, 8), (128, 16))
"""Where nobody names a target: what onnxruntime's CPU kernels gain from, and narrow groups bear. Whatever the machine,
so that a command writes the same file everywhere."""
INTEGERS = ((16, 16),)
"""The same for what computes in eight bits: onnxruntime's kernels take sixteen columns at a time."""


@dataclass(frozen=True)
class Widths:
    """What lengths of axes are rounded to.

    steps: (from this length on, multiple), narrow ones first.
    whole: axes shorter than the first are not cut; else they may have any length.
    least: that a group keeps.
    """

    steps: tuple[tuple[int, int], ...] = USUAL
    whole: bool = False
    least: int = 1

    @classmethod
    def of(cls, align: int | None) -> Self:
        """Return multiples of a number, or the usual ones."""
        return cls() if align is None else cls(((align, align),))

    @classmethod
    def on(cls, target: Target, precision: str) -> Self:
        """Return what suits a target."""
        return cls(target.multiple[precision], target.narrow == "whole", target.minimum)

    def multiple(self, length: int) -> int:
        """Return what the length of an axis is rounded to: itself where it is not cut."""
        fitting = [multiple for start, multiple in self.steps if length >= start]
        return fitting[-1] if fitting else length if self.whole else 1

    def step(self, group: ChannelGroup, sizes: AxisSizes) -> int:
        """Return the number whose multiples a group keeps.

        What counts is the length of the axes that are left: a head of 64 positions is aligned however many heads stay.
        Axes that a group shares with others are left to `counts`, except for short ones that are not cut. Positions
        inside heads are also an axis of the attention product, so they are aligned by themselves.
        """
        if group.kind == "expert":
            return 1  # no kernel runs along it
        found = self.multiple(group.size) if group.kind == "head-dim" else 1
        for site in group.sites:
            length = sizes.get((site.tensor, site.axis), site.positions.size)
            if site.positions.size == length:
                multiple = self.multiple(length)
                found = lcm(found, multiple // gcd(multiple, site.positions.shape[1]))
        return found

    def __str__(self) -> str:
        """Return the rule in words."""
        words = [f"multiples of {self.steps[0][1]}"]
        if self.steps[0][0] != self.steps[0][1] or not self.whole:
            words[0] += f" from {self.steps[0][0]} channels"
        return ", ".join([*words, *(f"{multiple} from {start}" for start, multiple in self.steps[1:])])


def to_multiple(wanted: float, step: int, least: int, size: int) -> int:
    """Return the multiple of `step` nearest to `wanted` within [least, size]; halves go up."""
    kept = step * int(wanted / step + 0.5)
    if kept < least:
        kept = step * -(-least // step)
    return min(kept, size)
