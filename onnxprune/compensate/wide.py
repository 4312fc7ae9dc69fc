"""The refit of a reader with more features than rows, or so many that their Gram matrix would not fit.

The same ridge in its dual form, on rows instead of features:
w = start + A^T (A A^T + strength I)^-1 (targets - A start).
Source: dual ridge regression (Saunders, Gammerman, Vovk, 1998, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.compensate.ridge import factor
from onnxprune.types import Array

FEATURES = 6000
"""From here on a layer is wide: a Gram matrix of doubles would take 300 MB."""

ROWS = 2048
"""Rows of a wide layer; the work grows with their square."""

FEW = 1
"""Where there are so many times as many features as rows, products of rows are used too: less work, never singular."""

Change = tuple[Array, Array]
"""(features, outs) that is added to the weights, and (outs,) the bias."""


@dataclass(frozen=True, eq=False)
class RowsAtHand:
    """Rows (rows, features), targets (rows, outs) and what is added before a clamp, (rows, outs), at hand."""

    inputs: Array
    targets: Array
    offsets: Array | None = None

    @staticmethod
    def joined(parts: Iterable[tuple[Array, Array, Array | None]]) -> RowsAtHand:
        """Return blocks of one group, the 1 at the end of their rows cut off, as one."""
        inputs, targets, offsets = zip(*((rows[0, :, :-1], y[0], shift) for rows, y, shift in parts), strict=True)
        added = None if offsets[0] is None else np.concatenate([shift[0] for shift in offsets])
        return RowsAtHand(np.concatenate(inputs), np.concatenate(targets), added)

    def given(self, start: Array, change: Change) -> Array:
        """Return (rows, outs): what weights and bias give."""
        return np.asarray(self.inputs @ (start + change[0]) + change[1])

    def error(self, start: Array, change: Change) -> float:
        """Return the mean squared error of (features, outs) weights and a bias, summed over outputs."""
        return float(np.square(self.given(start, change) - self.targets).sum()) / len(self.inputs)


@dataclass(frozen=True, eq=False)
class DualSystem:
    """Rows and (features, outs) weights to stay near: what ridges of all strengths have in common.

    free_bias: it is fitted without a penalty; else there is none.
    """

    rows: Array
    start: Array
    free_bias: bool

    @cached_property
    def mean(self) -> Array:
        """(features,) that rows are measured from."""
        return np.asarray(self.rows.mean(0)) if self.free_bias else np.zeros(self.rows.shape[1], np.float32)

    @cached_property
    def centred(self) -> Array:
        """(rows, features) around their mean."""
        return np.asarray(self.rows - self.mean)

    @cached_property
    def before(self) -> Array:
        """(rows, outs) that the weights to stay near give."""
        return np.asarray(self.centred @ self.start)

    @cached_property
    def kernel(self) -> Array:
        """(rows, rows) products of rows, in doubles."""
        return np.asarray((self.centred @ self.centred.T).astype(np.float64))

    def ridge(self, strength: float) -> Callable[[Array], Change]:
        """Return what gives the change for targets (rows, outs): targets may move, the factor stays.

        A ridge of s * mean diagonal of the covariance is one of s * rows / features times that of the kernel.
        """
        count, features = self.rows.shape
        solve = factor(self.kernel, strength * count / features)

        def change(targets: Array) -> Change:
            target_mean = targets.mean(0) if self.free_bias else np.zeros(targets.shape[1], np.float32)
            residual = (targets - target_mean - self.before).astype(np.float64)
            moved = self.centred.T @ solve(residual).astype(np.float32)
            return moved, target_mean - self.mean @ (self.start + moved)

        return change
