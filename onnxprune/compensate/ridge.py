"""Ridge regression on moments, towards the weights that are there, strength chosen on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnxprune.statistics.blas import one_thread as one_thread
from onnxprune.types import Array

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Ridge strengths that are tried, relative to the mean diagonal of the covariance, in order."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows, the last feature being the constant 1; `add` and `extend` write into them.

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

    def add(self, rows: Array, targets: Array) -> None:
        """Add rows, the 1 at their end, and targets; products in float32, sums in float64."""
        for group, (a, y) in enumerate(zip(rows, targets, strict=True)):
            self.gram[group] += a.T @ a
            self.cross[group] += a.T @ y
        self.power[...] += np.einsum("gro,gro->go", targets, targets, dtype=np.float64)

    def spread(self) -> float:
        """Return the variance of the targets, summed over outputs."""
        count = max(self.count, 1.0)
        return float((self.power / count - np.square(self.cross[:, -1, :] / count)).sum())

    def extend(self, other: Moments) -> None:
        """Add the rows of other moments."""
        for mine, its in ((self.gram, other.gram), (self.cross, other.cross), (self.power, other.power)):
            mine += its

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.cross + other.cross, self.power + other.power)

    def error(self, weights: Array) -> float:
        """Return the mean squared error per row of (groups, outs, features + 1) weights, summed over outputs."""
        fitted = weights @ self.gram
        linear = np.einsum("gof,gfo->go", weights, self.cross)
        total = self.power - 2 * linear + np.einsum("gof,gof->go", fitted, weights)
        return float(max(total.sum(), 0.0)) / max(self.count, 1.0)


class System:
    """Moments and weights to stay near: what ridges of all strengths have in common, computed once.

    The bias is fitted without a penalty, or stays zero if it is not free.
    """

    def __init__(self, moments: Moments, start: Array, *, free_bias: bool = True) -> None:
        """Take (groups, outs, features + 1) weights to stay near."""
        self.count, self.start, self.free = max(moments.count, 1.0), start, free_bias
        self.mean = free_bias * moments.gram[:, -1, :-1] / self.count
        self.covariance = moments.gram[:, :-1, :-1] / self.count
        self.covariance -= self.mean[:, :, None] * self.mean[:, None, :]
        self.pull = self.covariance @ start[:, :, :-1].transpose(0, 2, 1)
        self._eigen: dict[int, tuple[Array, Array]] = {}

    def ridge(self, strength: float) -> Ridge:
        """Return the ridge of one strength."""
        factors = [factor(c, strength, partial(self._eigen_of, group)) for group, c in enumerate(self.covariance)]
        return Ridge(self, factors)

    def _eigen_of(self, group: int) -> tuple[Array, Array]:
        """Return eigenvalues and vectors, which cost as much as thirty Cholesky factors, once for all strengths."""
        if group not in self._eigen:
            values, vectors = np.linalg.eigh(self.covariance[group])
            self._eigen[group] = (values, vectors)
        return self._eigen[group]


@dataclass(frozen=True, eq=False)
class Ridge:
    """argmin over w of the error of w plus strength * mean diagonal * |w - start|^2, for any targets."""

    system: System
    factors: Sequence[Callable[[Array], Array]]

    def solve(self, cross: Array) -> Array:
        """Return the weights for the cross moments (groups, features + 1, outs) with some targets."""
        system = self.system
        target_mean = system.free * cross[:, -1, :] / system.count
        wanted = cross[:, :-1, :] / system.count - system.mean[:, :, None] * target_mean[:, None, :]
        residual = wanted - system.pull
        change = np.stack([solve(part) for solve, part in zip(self.factors, residual, strict=True)])
        w = system.start[:, :, :-1] + change.transpose(0, 2, 1)
        bias = target_mean - np.einsum("gof,gf->go", w, system.mean)
        return np.concatenate([w, bias[:, :, None]], axis=2)


def ridge(moments: Moments, start: Array, strength: float, *, free_bias: bool = True) -> Array:
    """Return the weights of `Ridge` for the targets of the moments."""
    return System(moments, start, free_bias=free_bias).ridge(strength).solve(moments.cross)


def factor(
    covariance: Array, strength: float, eigen: Callable[[], tuple[Array, Array]] | None = None
) -> Callable[[Array], Array]:
    """Return what solves (covariance + strength * mean diagonal) x = b; no change where nothing varies.

    Args:
        eigen: gives eigenvalues and vectors of the covariance where rounding leaves it indefinite.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    size = len(covariance)
    level = float(np.trace(covariance)) / size
    if not np.isfinite(level) or level <= 0:
        return np.zeros_like
    damped = covariance.copy()
    damped[np.diag_indices(size)] += strength * level
    try:
        with one_thread():
            cholesky = cho_factor(damped, overwrite_a=True, check_finite=False)
    except LinAlgError:
        values, vectors = eigen() if eigen else np.linalg.eigh(covariance)
        scale = (np.maximum(values, 0) + strength * level)[:, None]
        return lambda b: np.asarray(vectors @ ((vectors.T @ b) / scale))

    def solve(b: Array) -> Array:
        with one_thread():
            return np.asarray(cho_solve(cholesky, b, check_finite=False))

    return solve


def best_strength(count: int, error: Callable[[int], float]) -> int:
    """Walk from the middle of so many strengths to the better side while the error falls; return where it ends.

    Args:
        error: of the strength with a number, infinite outside of them; asked more than once.
    """
    best = (count - 1) // 2
    step = -1 if error(best - 1) <= error(best) else 1
    while error(best + step) <= error(best) < np.inf:
        best += step
    return best


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
