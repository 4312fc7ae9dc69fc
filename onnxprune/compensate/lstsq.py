"""The refit of one reader: least squares on moments, aware of what a Relu or Clip behind it hides.

The targets come from the original network, the inputs from the pruned one. What stays exact: nothing; the result is
used only where it makes the error on held-out samples smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from onnxprune.compensate.layouts import Layout
from onnxprune.compensate.solve import STRENGTHS, Moments, bias_only, matched, ridge
from onnxprune.types import Array

CHUNK_BYTES = 1 << 25


@dataclass(frozen=True)
class LstsqOptions:
    """How a refit is made.

    rows: at most this many rows (positions of activations) for each layer, and `rows_per_feature` for each feature.
    sweeps: passes that move the targets hidden by a clamp.
    match_only: match mean and variance of each output instead of refitting the weights.
    """

    rows: int = 30_000
    rows_per_feature: int = 16
    strengths: Sequence[float] = STRENGTHS
    sweeps: int = 4
    match_only: bool = False
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Problem:
    """One least-squares problem: inputs and targets batch by batch, and the weights to start from.

    start: (groups, outs, features + 1), the bias last; `free_bias` False: there is none, it stays zero.
    offsets: what is added to the output before the clamp (the other operand of an Add), batch by batch.
    """

    layout: Layout
    inputs: Callable[[], Iterator[Array]]
    targets: Callable[[], Iterator[Array]]
    start: Array
    clamp: tuple[float, float] | None = None
    free_bias: bool = True
    offsets: Callable[[], Iterator[Array]] | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights with the mean squared error on held-out rows before and after.

    level: variance of the targets, which makes an error relative.
    """

    weights: Array
    before: float
    after: float
    level: float

    @property
    def used(self) -> bool:
        """Whether the weights differ from the start."""
        return self.after < self.before


class Blocks:
    """The rows of a problem: the same subset in every pass, each block either for fitting or held out."""

    def __init__(self, problem: Problem, options: LstsqOptions) -> None:
        self._problem, self._options = problem, options
        self._batches = sum(1 for _ in problem.inputs())
        self._share: float | None = None

    def __iter__(self) -> Iterator[tuple[bool, Array, Array, Array | None]]:
        """Yield (held out, rows, targets, offsets)."""
        layout, offsets = self._problem.layout, self._problem.offsets
        streams = (self._problem.inputs(), self._problem.targets(), offsets() if offsets else repeat(None))
        for number, (x, y, offset) in enumerate(zip(*streams, strict=False)):
            source = layout.inputs(x, y.shape)
            targets = layout.outputs(y)
            added = layout.outputs(offset) if offset is not None else None
            indices = self._subset(source.count, number)
            for held_out, part in self._split(indices, source.count, number):
                for piece in self._pieces(part):
                    shift = added[:, piece].astype(np.float32) if added is not None else None
                    yield held_out, source.rows(piece).astype(np.float32), targets[:, piece].astype(np.float32), shift

    def _subset(self, count: int, number: int) -> Array:
        if self._share is None:
            groups, _, width = self._problem.start.shape
            limit = max(self._options.rows, self._options.rows_per_feature * width) // min(groups, 4)
            self._share = min(1.0, limit / max(count * self._batches, 1))
        wanted = max(1, round(count * self._share))
        if wanted >= count:
            return np.arange(count)
        generator = np.random.default_rng((self._options.seed, number))
        return np.sort(generator.choice(count, wanted, replace=False))

    def _split(self, indices: Array, count: int, number: int) -> list[tuple[bool, Array]]:
        """Every fourth batch is held out; with few batches the last quarter of each."""
        if self._batches >= 4:
            return [(number % 4 == 3, indices)]
        border = count - count // 4
        return [(False, indices[indices < border]), (True, indices[indices >= border])]

    def _pieces(self, indices: Array) -> Iterator[Array]:
        groups, _, width = self._problem.start.shape
        size = max(64, CHUNK_BYTES // (4 * groups * width))
        return (indices[i : i + size] for i in range(0, len(indices), size))


def fit(problem: Problem, options: LstsqOptions) -> Fit:
    """Return the refit of one reader, or its start if nothing is better on held-out rows."""
    blocks = Blocks(problem, options)
    train, held = _moments(blocks, problem)
    if not held.count or not train.count:
        train = held = train + held
    if options.match_only:
        return _matched(problem, train, held, held.spread())
    candidates: list[tuple[float, Array]] = [(0.0, problem.start)]
    if problem.free_bias:
        candidates.append((np.inf, bias_only(train, problem.start)))
    candidates += [(s, ridge(train, problem.start, s, free_bias=problem.free_bias)) for s in options.strengths]
    errors = [held.error(weights) for _, weights in candidates]
    best, level = int(np.nanargmin(errors)), held.spread()
    strength = candidates[best][0]
    if errors[best] >= errors[0] * (1 - 1e-6):
        return Fit(problem.start, errors[0], errors[0], level)
    if strength == np.inf:
        return Fit(bias_only(train + held, problem.start), errors[0], errors[best], level)
    linear = ridge(train + held, problem.start, strength, free_bias=problem.free_bias)
    if problem.clamp is None or not options.sweeps:
        return Fit(linear, errors[0], errors[best], level)
    return _Clamped(problem, blocks, train, held, strength).run(candidates[best][1], linear, options.sweeps)


def _matched(problem: Problem, train: Moments, held: Moments, level: float) -> Fit:
    before = held.error(problem.start)
    after = held.error(matched(train, problem.start)) if problem.free_bias else before
    if after < before:
        return Fit(matched(train + held, problem.start), before, after, level)
    after = held.error(bias_only(train, problem.start)) if problem.free_bias else before
    return Fit(bias_only(train + held, problem.start) if after < before else problem.start, before, after, level)


def _moments(blocks: Blocks, problem: Problem) -> tuple[Moments, Moments]:
    groups, outs, width = problem.start.shape
    train = held = Moments.zeros(groups, width - 1, outs)
    for held_out, rows, targets, _ in blocks:
        if held_out:
            held = held.add(rows, targets)
        else:
            train = train.add(rows, targets)
    return train, held


@dataclass
class _Clamped:
    """Alternate: targets that the clamp hides move to what the layer gives, then the layer is refitted to them.

    Two weights go side by side: `trial`, of the fitting rows, is judged on held-out rows; `final` has all rows.
    """

    problem: Problem
    blocks: Blocks
    train: Moments
    held: Moments
    strength: float

    def run(self, trial: Array, final: Array, sweeps: int) -> Fit:
        before = self._pass(self.problem.start, self.problem.start)[0]
        best = (before, self.problem.start)
        for _ in range(sweeps + 1):
            error, trial_cross, final_cross = self._pass(trial, final)
            if error >= best[0] * (1 - 1e-4):
                break
            best = (error, final)
            trial = self._solve(self.train, trial_cross)
            final = self._solve(self.train + self.held, final_cross)
        return Fit(best[1], before, best[0], self.held.spread())

    def _solve(self, moments: Moments, cross: Array) -> Array:
        moved = Moments(moments.gram, cross, moments.power)
        return ridge(moved, self.problem.start, self.strength, free_bias=self.problem.free_bias)

    def _pass(self, trial: Array, final: Array) -> tuple[float, Array, Array]:
        """Return the visible error of `trial` on held-out rows, and the cross moments with moved targets of both."""
        assert self.problem.clamp is not None
        low, high = self.problem.clamp
        trial_cross, final_cross = np.zeros_like(self.train.cross), np.zeros_like(self.train.cross)
        error, count = 0.0, 0
        for held_out, rows, targets, offsets in self.blocks:
            shift = np.float32(0) if offsets is None else offsets
            rows = np.concatenate([rows, np.ones((*rows.shape[:2], 1), rows.dtype)], axis=2)
            turned, wanted = rows.transpose(0, 2, 1), targets + shift
            given = rows @ final.transpose(0, 2, 1).astype(np.float32) + shift
            final_cross += turned @ (visible(wanted, given, low, high) - shift)
            given = rows @ trial.transpose(0, 2, 1).astype(np.float32) + shift
            if held_out:
                error += float(np.square(np.clip(given, low, high) - np.clip(wanted, low, high)).sum())
                count += rows.shape[1]
            else:
                trial_cross += turned @ (visible(wanted, given, low, high) - shift)
        return error / max(count, 1), trial_cross, final_cross


def visible(targets: Array, given: Array, low: float, high: float) -> Array:
    """Return targets that cost nothing where the clamp hides the difference.

    Below `low` the target is anything below `low`: what is given, if it is there, else `low`; above `high` likewise.
    """
    hidden_low = np.minimum(given, np.float32(low))
    hidden_high = np.maximum(given, np.float32(high))
    return np.where(targets <= low, hidden_low, np.where(targets >= high, hidden_high, targets))
