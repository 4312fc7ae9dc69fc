"""The refit of one reader: least squares on moments, aware of what a Relu or Clip behind it hides.

The targets come from the original network, the inputs from the pruned one. What stays exact: nothing; the result is
used only where it makes the error on held-out samples smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.compensate.problem import Fit, LstsqOptions, Problem, RowBlocks, visible
from onnxprune.compensate.ridge import Moments, System, best_strength, bias_only, matched, ridge
from onnxprune.compensate.row_fit import fit_rows
from onnxprune.types import Array

FEWER_ROWS = "fitted on fewer rows, without a Gram matrix"


def fit(problem: Problem, options: LstsqOptions, blocks: RowBlocks | None = None) -> Fit:
    """Return the refit of one reader, or its start if nothing is better on held-out rows.

    Args:
        blocks: its rows, kept, where somebody else reads them too.
    """
    if blocks is None:
        blocks = RowBlocks(problem, options)
        blocks.keep()
    if blocks.is_wide:
        found = fit_rows(problem, blocks, options)
        return replace(found, bounded=FEWER_ROWS) if blocks.is_bounded else found
    if blocks.has_few_rows:
        return fit_rows(problem, blocks, options)
    train, held = moments(blocks, problem)
    if not held.count or not train.count:
        train = held = train + held
    level = held.spread()
    if options.match_only:
        return _matched(problem, train, held, level)
    start_error = held.error(problem.start)
    system = System(train, problem.start, free_bias=problem.free_bias)
    strength, trial, error = _best_strength(system, train, held, options.strengths)
    shift = bias_only(train, problem.start) if problem.free_bias else problem.start
    if held.error(shift) < min(error, start_error):
        return Fit(bias_only(train + held, problem.start), start_error, held.error(shift), level)
    if not error < start_error * (1 - 1e-6):
        return Fit(problem.start, start_error, start_error, level)
    if problem.clamp is not None and options.sweeps:
        clamped = _Clamped(problem, blocks, train, held, strength, system)
        del system
        return clamped.run(trial, options.sweeps)
    del system
    train.extend(held)
    return Fit(ridge(train, problem.start, strength, free_bias=problem.free_bias), start_error, error, level)


def _best_strength(
    system: System, train: Moments, held: Moments, strengths: Sequence[float]
) -> tuple[float, Array, float]:
    """Return the strength with the least held-out error, its weights and that error."""
    tried: dict[int, float] = {}
    kept: dict[int, Array] = {}  # of the best one alone: they are as large as the layer

    def solved(index: int) -> Array:
        return system.ridge(strengths[index]).solve(train.cross)

    def error(index: int) -> float:
        if not 0 <= index < len(strengths):
            return np.inf
        if index not in tried:
            weights = solved(index)
            tried[index] = held.error(weights)
            if tried[index] <= min(tried.values()):
                kept.clear()
                kept[index] = weights
        return tried[index]

    best = best_strength(len(strengths), error)
    return strengths[best], kept[best] if best in kept else solved(best), tried[best]


def _matched(problem: Problem, train: Moments, held: Moments, level: float) -> Fit:
    before = held.error(problem.start)
    after = held.error(matched(train, problem.start)) if problem.free_bias else before
    if after < before:
        return Fit(matched(train + held, problem.start), before, after, level)
    after = held.error(bias_only(train, problem.start)) if problem.free_bias else before
    return Fit(bias_only(train + held, problem.start) if after < before else problem.start, before, after, level)


def moments(blocks: RowBlocks, problem: Problem) -> tuple[Moments, Moments]:
    """Return the sums over the rows for fitting and over those held out."""
    groups, outs, width = problem.start.shape
    train, held = (Moments.zeros(groups, width - 1, outs) for _ in range(2))
    for held_out, rows, targets, _ in blocks:
        (held if held_out else train).add(rows, targets)
    return train, held


@dataclass
class _Clamped:
    """Alternate: targets that the clamp hides move to what the layer gives, then the layer is refitted to them.

    The weights of the fitting rows are judged on held-out rows; the result has all rows, with the same targets.
    """

    problem: Problem
    blocks: RowBlocks
    train: Moments
    held: Moments
    strength: float
    system: System

    def run(self, trial: Array, sweeps: int) -> Fit:
        trial_ridge = self.system.ridge(self.strength)
        before = self._pass(self.problem.start)[0]
        best, cross = before, (self.train.cross, self.held.cross)
        used = False
        for _ in range(sweeps + 1):
            error, train_cross, held_cross = self._pass(trial)
            if not error < best * (1 - 1e-3):
                break
            best, used, cross = error, True, (train_cross, held_cross)
            trial = trial_ridge.solve(train_cross)
        if not used:
            return Fit(self.problem.start, before, before, self.held.spread())
        # the matrices of the fitting rows go before those of all rows are made
        del trial_ridge, self.system
        self.train.extend(self.held)
        everything = System(self.train, self.problem.start, free_bias=self.problem.free_bias)
        final = everything.ridge(self.strength).solve(cross[0] + cross[1])
        return Fit(final, before, best, self.held.spread())

    def _pass(self, trial: Array) -> tuple[float, Array, Array]:
        """Return the visible error of `trial` on held-out rows, and the cross moments with the targets it moves."""
        low, high = self.problem.clamp or (-np.inf, np.inf)
        crosses = np.zeros_like(self.train.cross), np.zeros_like(self.train.cross)
        turned_trial = trial.transpose(0, 2, 1).astype(np.float32)
        error, count = 0.0, 0
        for held_out, rows, targets, offsets in self.blocks:
            shift = np.float32(0) if offsets is None else offsets
            given, wanted = rows @ turned_trial + shift, targets + shift
            crosses[held_out][...] += rows.transpose(0, 2, 1) @ (visible(wanted, given, low, high) - shift)
            if held_out:
                error += float(np.square(np.clip(given, low, high) - np.clip(wanted, low, high)).sum())
                count += rows.shape[1]
        return error / max(count, 1), crosses[0], crosses[1]
