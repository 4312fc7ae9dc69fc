"""Errors of the parts of an output: scores of 0 to 1 beside boxes of 640 pixels are lost in the largest value."""

from __future__ import annotations

import numpy as np

from onnxprune.types import Array, FloatArray

SMALL = 1e-3
"""Slices below this share of the largest value are left out: there rounding of the large ones may be all there is."""
WEIGHT = 0.1
"""What the relative error of a slice counts: rounding is up to so much larger there."""


class SliceDifferences:
    """Largest difference and largest value of every position of axis 1 and of the last axis, over samples."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[FloatArray, FloatArray] | None] = {}

    def add(self, a: Array, b: Array) -> None:
        """Take in two float64 arrays of one shape without NaN or infinities."""
        if a.ndim < 2 or not a.size:
            return
        errors, sizes = np.abs(a - b), np.abs(a)
        for axis in {1, a.ndim - 1}:
            others = tuple(other for other in range(a.ndim) if other != axis)
            fresh = errors.max(others), sizes.max(others)
            before = self._found.get(axis, fresh)
            if before is None or before[0].shape != fresh[0].shape:
                self._found[axis] = None  # the axis has another length in every sample: its places mean nothing
            else:
                self._found[axis] = np.maximum(before[0], fresh[0]), np.maximum(before[1], fresh[1])

    def error(self, peak: float) -> float:
        """Return the weighted relative error of the worst slice that is not small beside the peak of the whole."""
        worst = 0.0
        for error, size in (pair for pair in self._found.values() if pair is not None):
            large = size >= SMALL * peak
            worst = max(worst, float((error[large] / size[large]).max(initial=0.0)))
        return WEIGHT * worst
