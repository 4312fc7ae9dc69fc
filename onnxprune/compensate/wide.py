"""The refit of a reader with very many features (the first Gemm behind a Flatten), whose Gram matrix would not fit.

The same ridge in its dual form, on rows instead of features:
w = start + A^T (A A^T + strength I)^-1 (targets - A start).
Source: dual ridge regression (Saunders, Gammerman, Vovk, 1998, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.compensate.ridge import factor
from onnxprune.types import Array

FEATURES = 6000
"""From here on a layer is wide: a Gram matrix of doubles would take 300 MB."""

ROWS = 2048
"""Rows of a wide layer; the work grows with their square."""


@dataclass(frozen=True, eq=False)
class RowsAtHand:
    """Rows (rows, features) and targets (rows, outs) at hand."""

    inputs: Array
    targets: Array

    @staticmethod
    def joined(parts: Iterable[tuple[Array, Array]]) -> RowsAtHand:
        """Return blocks of one group, the 1 at the end of their rows cut off, as one."""
        inputs, targets = zip(*((rows[0, :, :-1], wanted[0]) for rows, wanted in parts), strict=True)
        return RowsAtHand(np.concatenate(inputs), np.concatenate(targets))

    def error(self, start: Array, change: Array, shift: Array) -> float:
        """Return the mean squared error of (features, outs) weights and a bias, summed over outputs."""
        return float(np.square(self.inputs @ (start + change) + shift - self.targets).sum()) / len(self.inputs)


def dual_ridge(
    rows: RowsAtHand, start: Array, strengths: Sequence[float], *, free_bias: bool
) -> list[tuple[Array, Array]]:
    """Return for every strength the change of the (features, outs) weights and the bias."""
    mean = rows.inputs.mean(0) if free_bias else np.zeros(rows.inputs.shape[1], np.float32)
    centred = rows.inputs - mean
    target_mean = rows.targets.mean(0) if free_bias else np.zeros(rows.targets.shape[1], np.float32)
    residual = (rows.targets - target_mean - centred @ start).astype(np.float64)
    kernel = (centred @ centred.T).astype(np.float64)
    count, features = centred.shape
    found = []
    for strength in strengths:
        # a ridge of s * mean diagonal of the covariance is one of s * count / features times that of the kernel
        alpha = factor(kernel, strength * count / features)(residual)
        change = centred.T @ alpha.astype(np.float32)
        found.append((change, target_mean - mean @ (start + change)))
    return found
