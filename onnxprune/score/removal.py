"""Greedy removal of channels: the one that costs the readers least goes first, the rest makes up for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from onnxprune.statistics.blas import one_thread
from onnxprune.types import BoolArray, FloatArray, IntArray

ROUNDS = 96
"""A large group is removed in about so many rounds, several channels each."""
PANEL = 256
"""Positions whose removal waits until the matrices are written."""
SHRINK = 0.8
"""Matrices are made smaller when no more than this share of their rows is left."""


class RemovalState(Protocol):
    """What one or several weights read in the course of removals."""

    def costs(self, left: BoolArray) -> FloatArray:
        """Return (channels,): the error of removing each channel that is left, relative to what is given."""
        ...

    def remove(self, channels: IntArray) -> None:
        """Take channels out and let the rest make up for them."""
        ...


def removal_errors(states: Sequence[RemovalState], size: int) -> FloatArray:
    """Return (channels,): the error once each channel is gone, in the greedy order."""
    errors = np.zeros(size)
    left = np.ones(size, dtype=bool)
    total, step = 0.0, max(1, size // ROUNDS)
    while left.any():
        costs = np.sum([np.zeros(size), *(state.costs(left) for state in states)], axis=0)
        costs[~left] = np.inf
        chosen = np.argsort(costs, kind="stable")[: min(step, int(left.sum()))]
        for channel in chosen:
            total += max(float(costs[channel]), 0.0) + 1e-15
            errors[channel] = total
        left[chosen] = False
        for state in states:
            state.remove(chosen)
    return errors


@dataclass(frozen=True, eq=False)
class Diagonal:
    """Channels that tell nothing of each other.

    loss: (channels,) of each.
    """

    loss: FloatArray

    def costs(self, left: BoolArray) -> FloatArray:
        return self.loss

    def remove(self, channels: IntArray) -> None:
        """Nothing changes for the others."""


@dataclass(eq=False)
class Correlated:
    """Inverse covariance and W^T W, both downdated, in panels: a pass over large matrices takes longer than its sums.

    inverse, metric: (positions, positions) of those that may go: what always stays is made use of in the inverse.
    positions: (channels, positions per channel); those of a removed channel mean nothing.
    """

    inverse: FloatArray
    metric: FloatArray
    positions: IntArray
    alive: BoolArray = field(init=False)
    _waiting: list[_Downdate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alive = np.ones(len(self.metric), dtype=bool)
        self._read_diagonals()

    def costs(self, left: BoolArray) -> FloatArray:
        """Return trace(H_PP^-1 M_PP) for the positions P of each channel that is left."""
        costs = np.zeros(len(self.positions))
        if self.positions.shape[1] == 1:
            places = self.positions[:, 0]
            return np.asarray(self._metric_diagonal[places] / np.maximum(self._inverse_diagonal[places], 1e-30))
        self._write()
        places = self.positions[left]
        blocks = places[:, :, None], places[:, None, :]
        shares = np.linalg.solve(self.inverse[blocks], self.metric[blocks])
        costs[left] = np.trace(shares, axis1=1, axis2=2)
        return costs

    def remove(self, channels: IntArray) -> None:
        """W~ = W - W_P H_PP^-1 H_P, H = H - H_P^T H_PP^-1 H_P."""
        gone = self.positions[channels].reshape(-1)
        rows, seen = self.inverse[gone], self.metric[gone]
        for one in self._waiting:
            rows -= one.rows[:, gone].T @ one.share
            seen -= one.half[:, gone].T @ one.share + one.share[:, gone].T @ one.half
        share = np.linalg.solve(rows[:, gone], rows)
        # half of the change of W~^T W~ is half^T share: the other half is its transpose
        done = _Downdate(rows, share, seen - 0.5 * seen[:, gone] @ share)
        self._waiting.append(done)
        self._inverse_diagonal -= np.einsum("kp,kp->p", rows, share)
        self._metric_diagonal -= 2 * np.einsum("kp,kp->p", done.half, share)
        self.alive[gone] = False
        shrinks = np.count_nonzero(self.alive) <= SHRINK * len(self.alive)
        if shrinks or sum(len(one.rows) for one in self._waiting) >= PANEL:
            self._write()
        if shrinks:
            self._shrink()

    def _write(self) -> None:
        """Bring the matrices up to date."""
        if not self._waiting:
            return
        rows, share, half = (
            np.concatenate(parts)
            for parts in zip(*((one.rows, one.share, one.half) for one in self._waiting), strict=True)
        )
        self._waiting.clear()
        self.inverse -= rows.T @ share
        change = half.T @ share
        self.metric -= change
        self.metric -= change.T
        gone = np.flatnonzero(~self.alive)
        self.metric[gone] = self.metric[:, gone] = 0.0
        self.inverse[gone] = self.inverse[:, gone] = 0.0
        self.inverse[gone, gone] = 1.0
        self._read_diagonals()

    def _read_diagonals(self) -> None:
        self._inverse_diagonal, self._metric_diagonal = (np.diag(m).copy() for m in (self.inverse, self.metric))

    def _shrink(self) -> None:
        """Drop the rows and columns of what is gone, which only cost time."""
        kept = np.flatnonzero(self.alive)
        place = np.zeros(len(self.alive), np.int64)
        place[kept] = np.arange(len(kept))
        self.inverse, self.metric = (np.ascontiguousarray(m[np.ix_(kept, kept)]) for m in (self.inverse, self.metric))
        self.positions, self.alive = place[self.positions], np.ones(len(kept), dtype=bool)
        self._read_diagonals()


@dataclass(frozen=True, eq=False)
class _Downdate:
    """What one removal takes from both matrices: rows^T share, and half^T share with its transpose."""

    rows: FloatArray
    share: FloatArray
    half: FloatArray


def inverse(covariance: FloatArray, damp: float) -> FloatArray:
    """Return (covariance + damp * mean diagonal)^-1."""
    from scipy.linalg import lapack

    level = damp * float(np.trace(covariance)) / len(covariance)
    damped = np.array(covariance, order="F")
    damped[np.diag_indices(len(damped))] += level
    with one_thread():
        factor, failed = lapack.dpotrf(damped, lower=1, overwrite_a=1)
        found, failed = (factor, failed) if failed else lapack.dpotri(factor, lower=1, overwrite_c=1)
        if failed:
            return np.asarray(np.linalg.pinv(covariance + level * np.eye(len(covariance)), hermitian=True))
    lower = np.tril(found)
    lower += np.tril(found, -1).T
    return np.asarray(lower)
