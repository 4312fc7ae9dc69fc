"""The refit of one reader on its rows, without a Gram matrix: as that on moments, where there are fewer rows.

The same choice of a strength on held-out rows, the same moves of the targets that a clamp behind the reader hides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxprune.compensate.problem import Fit, LstsqOptions, Problem, RowBlocks, visible
from onnxprune.compensate.ridge import best_strength
from onnxprune.compensate.wide import Change, DualSystem, RowsAtHand
from onnxprune.types import Array

BIAS_ALONE = 1e9
"""A strength at which the weights stay as they are."""
ENOUGH = 1e-3
"""A move of the targets goes on while it makes the held-out error smaller by this part."""


def fit_rows(problem: Problem, blocks: RowBlocks, options: LstsqOptions) -> Fit:
    """Return the refit of one reader of one group, or its start if nothing is better on held-out rows."""
    sides: tuple[list[tuple[Array, Array, Array | None]], ...] = ([], [])
    for held_out, rows, targets, offsets in blocks:
        sides[held_out].append((rows, targets, offsets))
    if not any(sides):  # a recurrent state of sequences of one step
        return Fit(problem.start, 0.0, 0.0, 0.0)
    everything = RowsAtHand.joined([*sides[0], *sides[1]])
    train, held = (RowsAtHand.joined(side) if side else everything for side in sides)
    start, bias = (a.astype(np.float32) for a in (problem.start[0, :, :-1].T, problem.start[0, :, -1]))
    level, before = float(held.targets.var(0).sum()), held.error(start, (np.zeros((1, 1), np.float32), bias))
    strength, ridge, change, after = _best(DualSystem(train.inputs, start, problem.free_bias), train, held, options)
    if not after < before * (1 - 1e-6):
        return Fit(problem.start, before, before, level)
    fitted = everything.targets
    if problem.clamp is not None and options.sweeps and strength < BIAS_ALONE:
        sweeps = _Sweeps(problem.clamp, start, ridge, train, held)
        before, after, moved = sweeps.run((np.zeros((1, 1), np.float32), bias), change, options.sweeps)
        if moved is None:
            return Fit(problem.start, before, before, level)
        fitted = moved if sides[0] and sides[1] else moved[: len(everything.inputs)]
    whole, shift = DualSystem(everything.inputs, start, problem.free_bias).ridge(strength)(fitted)
    weights = np.concatenate([(start + whole).T, shift[:, None]], axis=1)[None]
    return Fit(weights.astype(problem.start.dtype), before, after, level)


def _best(
    system: DualSystem, train: RowsAtHand, held: RowsAtHand, options: LstsqOptions
) -> tuple[float, Callable[[Array], Change], Change, float]:
    """Return the strength with the least held-out error, its ridge, its change of the weights, and that error."""
    strengths = () if options.match_only else tuple(options.strengths)
    tried: dict[int, float] = {}
    kept: dict[int, tuple[Callable[[Array], Change], Change]] = {}  # of the best one alone: as large as the layer

    def strength(index: int) -> float:
        return strengths[index] if index >= 0 else BIAS_ALONE

    def solved(index: int) -> tuple[Callable[[Array], Change], Change]:
        ridge = system.ridge(strength(index))
        return ridge, ridge(train.targets)

    def error(index: int) -> float:
        if not -1 <= index < len(strengths):
            return np.inf
        if index not in tried:
            found = solved(index)
            tried[index] = held.error(system.start, found[1])
            if tried[index] <= min(tried.values()):
                kept.clear()
                kept[index] = found
        return tried[index]

    best = best_strength(len(strengths), lambda index: error(index) if index >= 0 else np.inf) if strengths else -1
    best = best if error(best) <= error(-1) else -1
    ridge, change = kept[best] if best in kept else solved(best)
    return strength(best), ridge, change, tried[best]


@dataclass(frozen=True, eq=False)
class _Sweeps:
    """Alternate: targets that the clamp hides move to what the layer gives, then the layer is refitted to them."""

    clamp: tuple[float, float]
    start: Array
    ridge: Callable[[Array], Change]
    train: RowsAtHand
    held: RowsAtHand

    def run(self, unchanged: Change, trial: Change, sweeps: int) -> tuple[float, float, Array | None]:
        """Return the visible error on held-out rows before and after, and the targets of all rows; None: no better."""
        before = best = self._error(unchanged)
        found = None
        for _ in range(sweeps + 1):
            error = self._error(trial)
            if not error < best * (1 - ENOUGH):
                break
            moved = [self._moved(rows, trial) for rows in (self.train, self.held)]
            best, found = error, np.concatenate(moved)
            trial = self.ridge(moved[0])
        return before, best, found

    def _error(self, trial: Change) -> float:
        given, wanted, _ = self._at(self.held, trial)
        low, high = self.clamp
        return float(np.square(np.clip(given, low, high) - np.clip(wanted, low, high)).sum()) / len(given)

    def _moved(self, rows: RowsAtHand, trial: Change) -> Array:
        given, wanted, shift = self._at(rows, trial)
        return visible(wanted, given, *self.clamp) - shift

    def _at(self, rows: RowsAtHand, trial: Change) -> tuple[Array, Array, Array]:
        shift = np.float32(0) if rows.offsets is None else rows.offsets
        return rows.given(self.start, trial) + shift, rows.targets + shift, np.asarray(shift)
