"""Top-1 classes of two outputs, and whether there are classes at all: a class varies, and it stands out."""

from __future__ import annotations

import math

import numpy as np

from onnxprune.evidence.kinds import WIDTH
from onnxprune.types import Array, BoolArray

ENOUGH = 8
"""Positions from which on the original's values can say that an output has no classes."""
STEADY = 0.9
"""Share of the variance that does not depend on the input from which on these are coordinates, not scores."""


class Classes:
    """Counts positions with the same top-1 class over samples, and collects what tells scores from other values."""

    def __init__(self) -> None:
        self.same = self.positions = self.size = 0
        self._winners: set[int] = set()
        self._gaps = 0.0

    def add(self, reference: Array, other: Array, axis: int) -> None:
        """Take one sample in; a position with a value that is no number agrees with nothing."""
        if reference.size == 0 or reference.shape[axis] < 2:
            return
        a, b = (np.moveaxis(array.astype(np.float64), axis, -1) for array in (reference, other))
        sound = is_sound(a).all(-1) & is_sound(b).all(-1)
        winners = np.where(sound, a.argmax(-1), 0)
        self.same += int((sound & (winners == b.argmax(-1))).sum())
        self.positions += sound.size
        self.size = a.shape[-1]
        self._winners.update(np.unique(winners).tolist())
        self._gaps += float(_gaps(a[sound]).sum())

    @property
    def agreement(self) -> float | None:
        """Share of positions with the same class; None if there was none."""
        return self.same / self.positions if self.positions else None

    def are_likely(self, steady: float | None) -> bool:
        """Tell whether the original's values look like scores over classes.

        Args:
            steady: share of the variance over positions that is the same for every sample; None if it is not known.
        """
        if self.positions < ENOUGH:
            return True
        if len(self._winners) < 2 or (steady is not None and steady > STEADY and self.size > 2):
            return False
        return self.size % WIDTH != 0 or self._gaps / self.positions > 1.5 * expected_gap(self.size)


def expected_gap(size: int) -> float:
    """Return about how far the largest of so many normal values is from the second largest, in deviations.

    Source: David and Nagaraja 2003, Order Statistics, section 10.5: the spacing at the top falls as 1 / sqrt(2 ln n).
    """
    return 1.15 / math.sqrt(2 * math.log(max(size, 2)))


def is_sound(values: Array) -> BoolArray:
    """Return where values are numbers; minus infinity is one (the logarithm of zero, a class that is ruled out)."""
    return np.asarray(np.isfinite(values) | (values == -np.inf), dtype=bool)


def _gaps(scores: Array) -> Array:
    """Return how far the first class is from the second, in deviations over the classes."""
    if scores.size == 0:
        return np.zeros(0)
    bounded = np.where(np.isfinite(scores), scores, np.nan)
    with np.errstate(all="ignore"):
        first = np.partition(np.nan_to_num(bounded, nan=-1e300), -2, axis=-1)[..., -2:]
        spread = np.nanstd(bounded, axis=-1)
    gaps = first[..., 1] - first[..., 0]
    return np.asarray(np.where((spread > 0) & (gaps < 1e200), gaps / np.maximum(spread, 1e-300), 0.0))
