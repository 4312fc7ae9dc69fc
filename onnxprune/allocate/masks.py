"""From counts to the channels that stay: the best by score."""

from __future__ import annotations

import numpy as np

from onnxprune.allocate.counts import Counts
from onnxprune.channels.groups import ChannelGroup, Keep
from onnxprune.score.scoring import Scores
from onnxprune.types import BoolArray, FloatArray


def best_channels(groups: tuple[ChannelGroup, ...], scores: Scores, counts: Counts) -> Keep:
    """Return the masks that keep `counts` channels of every group: the best by score.

    Of equal scores the channel with the lower number stays. A group that keeps everything is left out.
    """
    return {
        group.name: _mask(group, scores[group.name], counts[group.name])
        for group in groups
        if counts.get(group.name, group.size) < group.size
    }


def equal_masks(one: Keep, other: Keep) -> bool:
    """Tell whether two choices keep the same channels."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _mask(group: ChannelGroup, scores: FloatArray, kept: int) -> BoolArray:
    order = np.argsort(-scores, kind="stable")
    mask = np.zeros(group.size, dtype=bool)
    mask[order[:kept]] = True
    return mask
