"""What is asked of an allocation, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from onnxprune.allocate.alignment import AxisSizes, Widths
from onnxprune.channels.groups import ChannelGroup
from onnxprune.score.scoring import Scores

LEAST_LEFT_GLOBAL = 0.1
"""A global threshold removes at most 90 % of a group, whatever its scores say."""


@dataclass(frozen=True, eq=False)
class Request:
    """Groups that may be pruned, their scores, and the limits.

    scope: "uniform" (every group loses the same share), "global" (one threshold on the scores of all groups) or
        "sensitivity" (measured errors decide).
    rounding: which lengths of axes kept counts make.
    min_channels: every group keeps at least so many (or all it has).
    ratios: group name -> its own share removed, whatever the level of the others.
    sizes: (tensor, axis) -> length, for axes that also hold positions outside of every group.
    """

    groups: tuple[ChannelGroup, ...]
    scores: Scores
    scope: str = "uniform"
    rounding: Widths = field(default_factory=Widths)
    min_channels: int = 1
    ratios: Mapping[str, float] = field(default_factory=dict)
    sizes: AxisSizes = field(default_factory=dict)

    def step(self, group: ChannelGroup) -> int:
        """Return the number whose multiples the group keeps."""
        return self.rounding.step(group, self.sizes)

    def least(self, group: ChannelGroup) -> int:
        """Return how many channels the group keeps at least."""
        share = LEAST_LEFT_GLOBAL if self.scope != "uniform" and group.name not in self.ratios else 0.0
        return min(group.size, max(group.least, self.min_channels, self.rounding.least, ceil(share * group.size)))
