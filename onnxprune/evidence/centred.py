"""Likeness of what varies: cosine after the mean over samples is taken away, from sums that stream."""

from __future__ import annotations

import math

import numpy as np

from onnxprune.types import Array

ROUNDING = 1e-10
"""Share of the energy below which what varies is rounding."""


class Centred:
    """Sums for the cosine of a - m and b - m, with m the mean of a over samples, for every position of an output.

    A constant offset that all samples share makes the plain cosine near 1 whatever the rest does. Where samples have
    different sizes, the mean is taken over everything but the axis of features.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._sums: tuple[Array, Array] | None = None
        self._whole = True
        self._features: tuple[Array, Array] | None = None
        self._feature_rows = 0
        self._features_fit = True
        self._dot = self._a = self._b = 0.0

    def add(self, a: Array, b: Array, axis: int) -> None:
        """Take in two float64 arrays of one shape; axis 0 counts samples, `axis` features."""
        if a.ndim == 0 or a.size == 0:
            return
        self._dot += float(np.vdot(a, b))
        self._a += float(np.vdot(a, a))
        self._b += float(np.vdot(b, b))
        self._rows += a.shape[0]
        sums = a.sum(0), b.sum(0)
        if self._sums is not None and self._sums[0].shape != sums[0].shape:
            self._whole = False
        elif self._whole:
            self._sums = sums if self._sums is None else (self._sums[0] + sums[0], self._sums[1] + sums[1])
        if a.ndim > 1:
            self._add_features(a, b, axis)

    def _add_features(self, a: Array, b: Array, axis: int) -> None:
        others = tuple(i for i in range(a.ndim) if i != axis % a.ndim)
        sums = a.sum(others), b.sum(others)
        if self._features is not None:
            if self._features[0].shape != sums[0].shape:
                self._features_fit = False
                return
            sums = self._features[0] + sums[0], self._features[1] + sums[1]
        self._features = sums
        self._feature_rows += a.size // a.shape[axis]

    def cosine(self) -> float | None:
        """Return the cosine; None with fewer than two samples, or where the original does not vary."""
        if (found := self._centred()) is None:
            return None
        dot, a, b = found
        if a <= ROUNDING * self._a:
            return None
        return max(-1.0, min(1.0, dot / math.sqrt(a * b))) if b > ROUNDING * a else 0.0

    def steady(self) -> float | None:
        """Return the share of the variance over positions that is the same for every sample; None if unknown."""
        if not self._whole or self._sums is None or self._rows < 2:
            return None
        mean = self._sums[0] / self._rows
        fixed = float(((mean - mean.mean()) ** 2).sum()) * self._rows
        own = max(0.0, self._a - float(np.vdot(mean, mean)) * self._rows)
        return fixed / (fixed + own) if fixed + own > 0 else None

    def _centred(self) -> tuple[float, float, float] | None:
        sums, rows = (self._sums, self._rows) if self._whole else (self._features, self._feature_rows)
        if sums is None or rows < 2 or not (self._whole or self._features_fit):
            return None
        one, two = float(np.vdot(sums[0], sums[0])) / rows, float(np.vdot(sums[0], sums[1])) / rows
        return self._dot - two, self._a - one, self._b - 2 * two + one


def log_odds(probabilities: Array, least: float = 1e-4) -> Array:
    """Return log(p / (1 - p)), with p at least 0.0001 from 0 and 1: what is rarer is alike to any user."""
    bounded = np.clip(probabilities, least, 1.0 - least)
    return np.asarray(np.log(bounded / (1.0 - bounded)))
