"""The least-squares residual: what the readers of a channel lose when the channels that stay make up for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onnxprune.score.magnitude import l2
from onnxprune.score.registry import criterion
from onnxprune.score.slices import Slices
from onnxprune.statistics.moments import ChannelStatistics
from onnxprune.types import BoolArray, FloatArray, IntArray

DAMPING = 1e-3
"""Added to the covariance, relative to its mean diagonal: dead channels leave it singular."""
ROUNDS = 96
"""A large group is removed in about so many rounds, several channels each."""
SHRINK = 0.8
"""Matrices are made smaller when no more than this share of their rows is left."""


@criterion("lstsq", comparable=True, needs_data=True)
def lstsq(slices: Slices) -> FloatArray:
    """Error of all readers when the channel goes and the rest is refitted: s[c] = ||W~[:, c]||^2 / [S^-1][c, c].

    S is the covariance of what the reader reads, W~ the reader's weights that already make up for the channels before;
    each reader counts relative to the variance of its output. The channel that costs least goes first, S^-1 and W~ are
    downdated, and so on; a channel's score is the error of its group once it is gone, with all that went before.
    Source: Hassibi and Stork 1993, Optimal Brain Surgeon, equation 5; per channel as in Kurtic et al. 2023, ZipLM.
    """
    activity = slices.activity
    found = activity.readings(slices.group) if activity else []
    found = [(r, p) for r, p in found if activity is not None and activity.of(r).gram is not None]
    if activity is None or not found:
        slices.notes.append("have no linear reader whose input could be seen, so l2 is used")
        values = l2(slices)
        return np.asarray(values / max(float(values.sum()), 1e-30))
    states = [_State.start(activity.of(r).covariance, activity.metric(r), p, damping(activity.of(r))) for r, p in found]
    return removal_errors(states, slices.group.size)


def damping(statistics: ChannelStatistics) -> float:
    """Return what is added to a covariance: few rows predict each other by chance, which says nothing of new inputs."""
    return DAMPING + len(statistics.mean) / max(statistics.count, 1)


def removal_errors(states: list[_State], size: int) -> FloatArray:
    """Return (channels,): the error once each channel is gone, in the greedy order."""
    errors = np.zeros(size)
    left = np.ones(size, dtype=bool)
    total, step = 0.0, max(1, size // ROUNDS)
    while left.any():
        costs = np.sum([state.costs(left) for state in states], axis=0)
        costs[~left] = np.inf
        chosen = np.argsort(costs, kind="stable")[: min(step, int(left.sum()))]
        for channel in chosen:
            total += max(float(costs[channel]), 0.0) + 1e-15
            errors[channel] = total
        left[chosen] = False
        for state in states:
            state.remove(chosen)
    return errors


@dataclass(eq=False)
class _State:
    """One reader in the course of removals: inverse covariance and W^T W, both downdated.

    positions: (channels, positions per channel); those of a removed channel mean nothing.
    """

    inverse: FloatArray
    metric: FloatArray
    positions: IntArray
    level: float
    alive: BoolArray = field(init=False)

    def __post_init__(self) -> None:
        self.alive = np.ones(len(self.metric), dtype=bool)

    @staticmethod
    def start(covariance: FloatArray, metric: FloatArray, positions: IntArray, damp: float) -> _State:
        """Return the state with all channels there."""
        size = len(covariance)
        mean = float(np.trace(covariance)) / size
        if not np.isfinite(mean) or mean <= 0:
            return _State(np.eye(size), np.zeros((size, size)), positions, 1.0)
        inverse = np.linalg.inv(covariance + damp * mean * np.eye(size))
        level = float(np.sum(covariance * metric))
        return _State(inverse, metric.copy(), positions, max(level, 1e-30))

    def costs(self, left: BoolArray) -> FloatArray:
        """Return the error of removing each channel, relative to the variance of the reader's output."""
        if self.positions.shape[1] == 1:
            places = self.positions[:, 0]
            diagonal = np.maximum(np.diag(self.inverse)[places], 1e-30)
            return np.asarray(np.diag(self.metric)[places] / diagonal / self.level)
        costs = np.zeros(len(self.positions))
        for channel in np.flatnonzero(left):
            block = np.ix_(self.positions[channel], self.positions[channel])
            costs[channel] = np.trace(np.linalg.solve(self.inverse[block], self.metric[block])) / self.level
        return costs

    def remove(self, channels: IntArray) -> None:
        """Take channels out and let the rest make up for them: W~ = W - W_P H_PP^-1 H_P, H = H - H_P^T H_PP^-1 H_P."""
        gone = self.positions[channels].reshape(-1)
        rows = self.inverse[gone]
        share = np.linalg.solve(rows[:, gone], rows)
        # half of the change of W~^T W~: the other half is its transpose
        half = (self.metric[:, gone] - 0.5 * share.T @ self.metric[np.ix_(gone, gone)]) @ share
        self.metric -= half
        self.metric -= half.T
        self.inverse -= rows.T @ share
        self.metric[gone] = self.metric[:, gone] = 0.0
        self.inverse[gone] = self.inverse[:, gone] = 0.0
        self.inverse[gone, gone] = 1.0
        self.alive[gone] = False
        if np.count_nonzero(self.alive) <= SHRINK * len(self.alive):
            self._shrink()

    def _shrink(self) -> None:
        """Drop the rows and columns of what is gone, which only cost time."""
        kept = np.flatnonzero(self.alive)
        place = np.zeros(len(self.alive), np.int64)
        place[kept] = np.arange(len(kept))
        self.inverse, self.metric = (np.ascontiguousarray(m[np.ix_(kept, kept)]) for m in (self.inverse, self.metric))
        self.positions, self.alive = place[self.positions], np.ones(len(kept), dtype=bool)
