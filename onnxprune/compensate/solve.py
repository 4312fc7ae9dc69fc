"""Ridge regression on moments, towards the weights that are there, strength chosen on held-out samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.types import Array

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Ridge strengths that are tried, relative to the mean diagonal of the covariance."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows, the last feature being the constant 1.

    gram: (groups, features + 1, features + 1); cross: (groups, features + 1, outs); power: (groups, outs).
    """

    gram: Array
    cross: Array
    power: Array

    @staticmethod
    def zeros(groups: int, features: int, outs: int) -> Moments:
        """Return empty sums."""
        return Moments(
            np.zeros((groups, features + 1, features + 1)),
            np.zeros((groups, features + 1, outs)),
            np.zeros((groups, outs)),
        )

    @property
    def count(self) -> float:
        """Number of rows."""
        return float(self.gram[0, -1, -1])

    def add(self, rows: Array, targets: Array) -> Moments:
        """Return the sums with more rows in them; products in float32, sums in float64."""
        rows = np.concatenate([rows, np.ones((*rows.shape[:2], 1), rows.dtype)], axis=2)
        turned = rows.transpose(0, 2, 1)
        return Moments(
            self.gram + turned @ rows,
            self.cross + turned @ targets,
            self.power + np.einsum("gro,gro->go", targets, targets, dtype=np.float64),
        )

    def spread(self) -> float:
        """Return the variance of the targets, summed over outputs."""
        count = max(self.count, 1.0)
        return float((self.power / count - np.square(self.cross[:, -1, :] / count)).sum())

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.cross + other.cross, self.power + other.power)

    def error(self, weights: Array) -> float:
        """Return the mean squared error per row of (groups, outs, features + 1) weights, summed over outputs."""
        fitted = weights @ self.gram
        linear = np.einsum("gof,gfo->go", weights, self.cross)
        total = self.power - 2 * linear + np.einsum("gof,gof->go", fitted, weights)
        return float(max(total.sum(), 0.0)) / max(self.count, 1.0)


def ridge(moments: Moments, start: Array, strength: float, *, free_bias: bool = True) -> Array:
    """Return argmin over w of the error of w plus strength * mean diagonal * |w - start|^2.

    Args:
        start: (groups, outs, features + 1) weights to stay near.
        free_bias: the bias is fitted too, without a penalty; else it stays zero.
    """
    count = max(moments.count, 1.0)
    mean = free_bias * moments.gram[:, -1, :-1] / count
    target_mean = free_bias * moments.cross[:, -1, :] / count
    covariance = moments.gram[:, :-1, :-1] / count - mean[:, :, None] * mean[:, None, :]
    cross = moments.cross[:, :-1, :] / count - mean[:, :, None] * target_mean[:, None, :]
    w = start[:, :, :-1]
    residual = cross - covariance @ w.transpose(0, 2, 1)
    change = np.stack([_solve(c, r, strength) for c, r in zip(covariance, residual, strict=True)])
    w = w + change.transpose(0, 2, 1)
    bias = target_mean - np.einsum("gof,gf->go", w, mean)
    return np.concatenate([w, bias[:, :, None]], axis=2)


def _solve(covariance: Array, residual: Array, strength: float) -> Array:
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    size = len(covariance)
    level = float(np.trace(covariance)) / size
    if not np.isfinite(level) or level <= 0:
        return np.zeros_like(residual)
    damped = covariance + strength * level * np.eye(size)
    try:
        solution = cho_solve(cho_factor(damped, check_finite=False), residual, check_finite=False)
    except LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        solution = vectors @ ((vectors.T @ residual) / (np.maximum(values, 0) + strength * level)[:, None])
    return np.asarray(solution)


def bias_only(moments: Moments, start: Array) -> Array:
    """Return the weights with the bias that matches the mean of the targets."""
    count = max(moments.count, 1.0)
    mean = moments.gram[:, -1, :-1] / count
    bias = moments.cross[:, -1, :] / count - np.einsum("gof,gf->go", start[:, :, :-1], mean)
    return np.concatenate([start[:, :, :-1], bias[:, :, None]], axis=2)


def matched(moments: Moments, start: Array) -> Array:
    """Return the weights with every output scaled and shifted to the mean and variance of its targets.

    The scale is the ratio of standard deviations, as re-estimated BatchNorm statistics would give, at most 4.
    """
    count = max(moments.count, 1.0)
    mean, target_mean = moments.gram[:, -1, :-1] / count, moments.cross[:, -1, :] / count
    covariance = moments.gram[:, :-1, :-1] / count - mean[:, :, None] * mean[:, None, :]
    w = start[:, :, :-1]
    variance = np.einsum("gof,gof->go", w @ covariance, w)
    wanted = np.maximum(moments.power / count - target_mean**2, 0.0)
    scale = np.sqrt(wanted / np.maximum(variance, 1e-12 * np.maximum(wanted, 1e-30)))
    scale = np.where(variance > 0, np.minimum(scale, 4.0), 1.0)[:, :, None]
    return bias_only(moments, np.concatenate([w * scale, start[:, :, -1:]], axis=2))
