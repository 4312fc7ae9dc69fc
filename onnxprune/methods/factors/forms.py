"""Ways to write a matrix of weights as a chain of smaller ones, nearest to it on the inputs that it meets.

A weight is (outs, features), the features of a convolution being (taps, channels). G is the second moment of the
features, None for the identity (no data). Errors are shares of what the layer gives: tr(E G E^T) / tr(W G W^T).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.types import Array, IntArray

DAMPING = 1e-4


@dataclass(frozen=True, eq=False)
class FactorProblem:
    """One weight with what it meets. kernel: spatial lengths of a convolution, () of a matrix."""

    weight: Array
    gram: Array | None
    kernel: tuple[int, ...] = ()

    @property
    def outs(self) -> int:
        """Number of outputs."""
        return len(self.weight)

    @property
    def taps(self) -> int:
        """Number of positions in the window."""
        return int(np.prod(self.kernel)) if self.kernel else 1

    @property
    def channels(self) -> int:
        """Number of inputs of each tap."""
        return int(self.weight.shape[1] // self.taps)

    @cached_property
    def power(self) -> float:
        """What the layer gives: tr(W G W^T)."""
        return max(float((self._seen * self.weight).sum()), 1e-30)

    @property
    def is_finite(self) -> bool:
        """Whether its numbers are numbers, also squared: what has NaN, or is that large, has no singular values."""
        with np.errstate(over="ignore", invalid="ignore"):
            return math.isfinite(self.power)

    @cached_property
    def _seen(self) -> Array:
        return self.weight if self.gram is None else np.asarray(self.weight @ self.gram)

    def through(self, basis: Array, order: IntArray) -> tuple[Array, Array | None, float]:
        """Put a map before the weight, the same for every part of the window, and fit the weight to it.

        w' = argmin over w' of tr((w' A - W) G (w' A - W)^T) = W G A^T (A G A^T)^-1, A = identity x basis

        Args:
            basis: (new, inner), with orthonormal rows where G is the identity.
            order: the features, arranged as (parts, inner).

        Returns:
            w' (outs, parts * new), the second moment of what A gives, and the error.
        """
        inner = basis.shape[1]
        cross = (self._seen[:, order].reshape(-1, inner) @ basis.T).reshape(self.outs, -1)
        if self.gram is None:
            return cross, None, max(0.0, 1 - float(np.square(cross).sum()) / self.power)
        half = (self.gram[np.ix_(order, order)].reshape(-1, inner) @ basis.T).reshape(len(order), -1)
        moment = _damped((half.T.reshape(-1, inner) @ basis.T).reshape(half.shape[1], -1))
        fitted = np.linalg.solve(moment, cross.T).T
        return fitted, moment, max(0.0, 1 - float((fitted * cross).sum()) / self.power)

    @property
    def by_tap(self) -> IntArray:
        """Features as (taps, channels)."""
        return np.arange(self.weight.shape[1])

    @property
    def by_column(self) -> IntArray:
        """Features as (columns of the window, height * channels)."""
        return self.by_tap.reshape(*self.kernel, self.channels).transpose(1, 0, 2).reshape(-1)


def pca(weight: Array, gram: Array | None) -> tuple[Array, Array, Array]:
    """Return A (outs, ranks), B (ranks, features) and errors: A[:, :r] B[:r] is the best of rank r, with errors[r].

    Truncated SVD of W G^(1/2): with more features than outputs U from the eigenvectors of W G W^T and B = U^T W, which
    needs no inverse; otherwise from those of L^T W^T W L, G = L L^T.
    """
    outs, features = weight.shape
    if outs <= features:
        values, vectors = _eigen(weight @ weight.T if gram is None else weight @ gram @ weight.T)
        first, second = vectors, vectors.T @ weight
    else:
        lower = None if gram is None else np.linalg.cholesky(_damped(gram))
        seen = weight if lower is None else weight @ lower
        values, vectors = _eigen(seen.T @ seen)
        first, second = seen @ vectors, vectors.T if lower is None else np.linalg.solve(lower.T, vectors).T
    total = max(float(values.sum()), 1e-30)
    return first, second, np.concatenate([[1.0], np.maximum(0.0, 1 - np.cumsum(values) / total)])


def channel_basis(problem: FactorProblem) -> Array:
    """Return (channels, channels) maps of the input channels, the most telling rows first."""
    blocks = problem.weight.reshape(problem.outs, problem.taps, problem.channels)
    unfolded = np.einsum("otc,otd->cd", blocks, blocks)
    gram = None
    if problem.gram is not None:
        square = problem.gram.reshape(problem.taps, problem.channels, problem.taps, problem.channels)
        gram = np.einsum("tctd->cd", square) / problem.taps
    return _basis(unfolded, gram)


def strip_basis(problem: FactorProblem) -> Array:
    """Return maps (parts, height * channels) of one column of the window, the most telling rows first."""
    height, width = problem.kernel
    blocks = problem.weight.reshape(problem.outs, height, width, problem.channels)
    strips = blocks.transpose(1, 3, 2, 0).reshape(height * problem.channels, -1)
    gram = None
    if problem.gram is not None:
        square = problem.gram.reshape(height, width, problem.channels, height, width, problem.channels)
        gram = np.einsum("iwcjwd->icjd", square).reshape(len(strips), len(strips)) / width
    return _basis(strips @ strips.T, gram)


def _basis(unfolded: Array, gram: Array | None) -> Array:
    if gram is None:
        return _eigen(unfolded)[1].T
    lower = np.linalg.cholesky(_damped(gram))
    vectors = _eigen(lower.T @ unfolded @ lower)[1]
    return np.asarray(np.linalg.solve(lower.T, vectors).T)


def _eigen(symmetric: Array) -> tuple[Array, Array]:
    """Eigenvalues from the largest down, and their vectors."""
    values, vectors = np.linalg.eigh(symmetric)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _damped(moment: Array) -> Array:
    level = float(np.trace(moment)) / len(moment)
    result = np.array(moment, np.float64)
    result[np.diag_indices(len(moment))] += DAMPING * level if level > 0 else 1.0
    return result


def ranks(full: int, align: int | None, most: int) -> Sequence[int]:
    """Return the ranks worth a look: multiples of `align` (None: 8 from 64, 4 from 32, else 1), up to `most`."""
    step = align or (8 if full >= 64 else 4 if full >= 32 else 1)
    stride = max(1, full // step // 32) * step
    return range(stride, min(full - 1, most) + 1, stride)
