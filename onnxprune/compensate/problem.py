"""A least-squares problem and its rows: a fixed subset, batch by batch, within a bound of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from onnxprune.compensate import wide
from onnxprune.compensate.ridge import STRENGTHS
from onnxprune.operators.layouts import Layout
from onnxprune.types import Array

CHUNK_BYTES = 1 << 25
TARGETS = 4
"""The targets of a block of rows may take so many times its bytes: scores over a vocabulary are far wider than rows."""
MEMORY = 12 << 28
ROWS_SHARE = 0.375
"""Share of the memory for the rows of a layer, kept between passes; if they need more they are made again."""
COPIES = 5
"""Matrices of doubles at one time: moments for fitting and held out, a covariance, its factor, a product on its way."""

Block = tuple[bool, Array, Array, Array | None]
"""Held out?, rows with a 1 at their end, targets, offsets."""


@dataclass(frozen=True)
class LstsqOptions:
    """How a refit is made.

    rows: at most this many rows (positions of activations) for each layer, and `rows_per_feature` for each feature.
    sweeps: passes that move the targets hidden by a clamp.
    match_only: match mean and variance of each output instead of refitting the weights.
    memory: bytes for one layer; a Gram matrix that needs more is left out, its layer is fitted on fewer rows.
    """

    rows: int = 16_000
    rows_per_feature: int = 6
    strengths: Sequence[float] = STRENGTHS
    sweeps: int = 4
    match_only: bool = False
    seed: int = 0
    memory: int = MEMORY


@dataclass(frozen=True, eq=False)
class Problem:
    """One least-squares problem: inputs and targets batch by batch, and the weights to start from.

    start: (groups, outs, features + 1), the bias last; `free_bias` False: there is none, it stays zero.
    offsets: what is added to the output before the clamp (the other operand of an Add), batch by batch.
    batches: how many there are, None: they are counted. members: how often all of them come, one reader after another.
    """

    layout: Layout
    inputs: Callable[[], Iterator[Array]]
    targets: Callable[[], Iterator[Array]]
    start: Array
    clamp: tuple[float, float] | None = None
    free_bias: bool = True
    offsets: Callable[[], Iterator[Array]] | None = None
    batches: int | None = None
    members: int = 1


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights with the mean squared error on held-out rows before and after.

    level: variance of the targets, which makes an error relative.
    bounded: what was done less well to stay within the memory.
    """

    weights: Array
    before: float
    after: float
    level: float
    bounded: str = ""

    @property
    def used(self) -> bool:
        """Whether the weights differ from the start."""
        return self.after < self.before


class RowBlocks:
    """The rows of a problem: the same subset in every pass, each block either for fitting or held out."""

    def __init__(self, problem: Problem, options: LstsqOptions) -> None:
        self._problem, self._options = problem, options
        self._batches = problem.batches or sum(1 for _ in problem.inputs()) // problem.members
        self._share: float | None = None
        self._kept: list[Block] | None = None

    def __iter__(self) -> Iterator[Block]:
        if self._kept is not None:
            yield from self._kept
        else:
            yield from _joined(self._made())

    def _made(self) -> Iterator[Block]:
        """Yield the rows of every batch."""
        layout, offsets = self._problem.layout, self._problem.offsets
        streams = (self._problem.inputs(), self._problem.targets(), offsets() if offsets else repeat(None))
        for number, (x, y, offset) in enumerate(zip(*streams, strict=False)):
            source = layout.inputs(x, y.shape)
            targets = layout.outputs(y)
            added = layout.outputs(offset) if offset is not None else None
            indices = self._subset(source.count, number)
            for held_out, part in self._split(indices, source.count, number % self._batches):
                for piece in self._pieces(part):
                    shift = added[:, piece].astype(np.float32) if added is not None else None
                    yield held_out, _with_one(source.rows(piece)), targets[:, piece].astype(np.float32), shift

    def keep(self) -> None:
        """Keep the rows for later passes if they are small enough."""
        if self._size() <= ROWS_SHARE * self._options.memory:
            self._kept = list(self)

    def _size(self) -> int:
        groups, outs, width = self._problem.start.shape
        return int(4 * groups * (width + 2 * outs) * self._limit())

    @property
    def is_wide(self) -> bool:
        """Whether the layer is fitted on rows, without its Gram matrix."""
        groups, _, width = self._problem.start.shape
        return bool(groups == 1 and (width > wide.FEATURES or self.is_bounded))

    @property
    def has_few_rows(self) -> bool:
        """Whether the rows, kept, are so much fewer than the features that products of rows are less work."""
        groups, _, width = self._problem.start.shape
        if groups > 1 or self._kept is None:
            return False
        return bool(wide.FEW * sum(rows.shape[1] for _, rows, _, _ in self._kept) < width)

    @property
    def is_bounded(self) -> bool:
        """Whether the Gram matrices do not fit into the memory."""
        groups, _, width = self._problem.start.shape
        return bool(8 * COPIES * groups * width**2 > (1 - ROWS_SHARE) * self._options.memory)

    def _limit(self) -> int:
        groups, _, width = self._problem.start.shape
        if self.is_wide:
            # twice: all rows, and the same ones as those for fitting and those held out
            return int(max(64, min(wide.ROWS, ROWS_SHARE * self._options.memory // (2 * 4 * width))))
        return int(max(self._options.rows, self._options.rows_per_feature * width) // min(groups, 4))

    def _subset(self, count: int, number: int) -> Array:
        if self._share is None:
            self._share = min(1.0, self._limit() / max(count * self._batches * self._problem.members, 1))
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
        groups, outs, width = self._problem.start.shape
        size = max(64, CHUNK_BYTES // (4 * groups * max(width, outs // TARGETS)))
        return (indices[i : i + size] for i in range(0, len(indices), size))


def visible(targets: Array, given: Array, low: float, high: float) -> Array:
    """Return targets that cost nothing where the clamp hides the difference.

    Below `low` the target is anything below `low`: what is given, if it is there, else `low`; above `high` likewise.
    """
    hidden_low = np.minimum(given, np.float32(low))
    hidden_high = np.maximum(given, np.float32(high))
    return np.where(targets <= low, hidden_low, np.where(targets >= high, hidden_high, targets))


def _joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """Put small blocks together: a product of few rows takes as long to add up as to multiply."""
    waiting: dict[bool, list[Block]] = {False: [], True: []}
    for block in blocks:
        same = waiting[block[0]]
        same.append(block)
        if sum(max(part[1].nbytes, part[2].nbytes // TARGETS) for part in same) >= CHUNK_BYTES:
            yield _one(same)
            same.clear()
    yield from (_one(same) for same in waiting.values() if same)


def _one(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    held_out, rows, targets, shifts = zip(*blocks, strict=True)
    shift = None if shifts[0] is None else np.concatenate(shifts, axis=1)
    return held_out[0], np.concatenate(rows, axis=1), np.concatenate(targets, axis=1), shift


def _with_one(rows: Array) -> Array:
    result = np.ones((*rows.shape[:2], rows.shape[2] + 1), np.float32)
    result[:, :, :-1] = rows
    return result
