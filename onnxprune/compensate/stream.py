"""Batches for gradient steps out of data of any size: read again for every pass, shuffled within a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.compensate.augment import mixed, varied
from onnxprune.compensate.draws import FEEDS_A_STEP
from onnxprune.errors import ModelError
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import Feed, can_stack, fixed_batch
from onnxprune.statistics.split import part
from onnxprune.types import Array

LABELS = "onnxprune.labels"
"""Name of the labels among the arrays of a feed."""
BUFFER_BYTES = 1 << 28
"""Samples that are shuffled among each other; more are in memory at no time."""
HELD_SHARE, MOST_HELD = 8, 512
"""One sample in so many is held out, at most so many."""
READ = 64
"""Samples that are read at once."""


@dataclass(eq=False)
class Stream:
    """Samples of one shape, as often as they are wanted.

    data: without what is held out. labels: (samples, ..) of these, in their order; None: there are none.
    size: samples of a run. runs: runs of a step. kinds: variations. shape: of one sample, by input.
    ready: turns labels of a run into what a loss reads, numbers that can be mixed; those that are that it leaves alone.
    """

    data: Data
    labels: Array | None
    held: list[Feed]
    stacked: bool
    size: int
    runs: int
    kinds: Sequence[str]
    seed: int
    shape: dict[str, tuple[int, ...]]
    ready: Callable[[Array], Array] = np.asarray
    _samples: Iterator[Feed] | None = None
    _skipped: int = field(default=0)

    def step(self, generator: np.random.Generator) -> list[Feed]:
        """Return the feeds of one step."""
        if self._samples is None:
            self._samples = self._endless(self._skipped)
        feeds = [self._joined([next(self._samples) for _ in range(self.size)]) for _ in range(self.runs)]
        return [self._varied(feed, generator) for feed in feeds] if self.kinds else feeds

    def _varied(self, feed: Feed, generator: np.random.Generator) -> Feed:
        labels = {name: feed.pop(name) for name in [LABELS] if name in feed}
        feed = varied(feed, self.kinds, generator)
        if "mix" not in self.kinds:
            return feed | labels
        return mixed(feed | {name: self.ready(array) for name, array in labels.items()}, generator)

    def skip(self, steps: int) -> None:
        """Go on behind so many steps, as if they had been taken."""
        self._skipped, self._samples = steps * self.size * self.runs, None

    def example(self) -> Feed:
        """Return one feed of the shape that all have."""
        return self.held[0]

    def _joined(self, samples: Sequence[Feed]) -> Feed:
        if not self.stacked:
            return samples[0]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _endless(self, skipped: int) -> Iterator[Feed]:
        """Yield samples pass after pass, the first so many left out; whole passes of them are not read."""
        number, count = 0, 0
        if skipped:
            count = sum(1 for _ in self._plain()) if not self.stacked else self.data.samples
            number, skipped = skipped // count, skipped % count
        while True:
            for sample in self._shuffled(number):
                if skipped:
                    skipped -= 1
                else:
                    yield sample
            number += 1

    def _shuffled(self, number: int) -> Iterator[Feed]:
        """Yield the samples of one pass, each exactly once."""
        generator = np.random.default_rng([self.seed, number])
        room = max(
            2 * self.size, int(BUFFER_BYTES / max(1, sum(a.nbytes for a in self.example().values()) / self.size))
        )
        kept: list[Feed] = []
        for sample in self._plain():
            if len(kept) < room:
                kept.append(sample)
                continue
            place = int(generator.integers(len(kept)))
            kept[place], sample = sample, kept[place]
            yield sample
        for place in generator.permutation(len(kept)):
            yield kept[place]

    def _plain(self) -> Iterator[Feed]:
        return _samples(self.data, self.labels, self.stacked, self.shape)


def _samples(
    data: Data, labels: Array | None, stacked: bool, shape: dict[str, tuple[int, ...]] | None = None
) -> Iterator[Feed]:
    """Yield single samples (or whole feeds) of one shape, with their labels."""
    start = 0
    for unit in data.stream:
        for offset in range(unit.samples):
            feed = {n: a[offset] if unit.stacked else a for n, a in unit.feed.items()}
            if shape is not None and any(feed[name].shape != shape[name] for name in shape):
                continue
            if labels is not None:
                feed[LABELS] = labels[start + offset]
            yield {name: np.array(array) for name, array in feed.items()}
        start += unit.samples


def stream_of(
    data: Data, labels: Array | None, samples: int, batch: int, kinds: Sequence[str] = (), seed: int = 0
) -> Stream:
    """Return how steps take their samples, one in eight of them held out.

    Args:
        labels: (samples, ..), one for each sample of the data in their order.
        samples: wanted for a step. batch: at most so many in one run.

    Raises:
        ModelError: there are fewer than three samples, or fewer than two of one shape.
    """
    stacked = can_stack(data.inputs) and all(unit.stacked for unit in data.stream)
    count = data.samples
    if count < 3:
        raise ModelError("gradient steps need at least three samples.")
    fixed = fixed_batch(data.inputs) if stacked else None
    every = max(HELD_SHARE if count >= HELD_SHARE else 2, -(-count // MOST_HELD))
    held = np.zeros(count, bool)
    generator = np.random.default_rng(seed)
    for start in range(0, count, every):
        held[min(count - 1, start + int(generator.integers(every)))] = True
    if fixed and int(held.sum()) < fixed:
        held[:] = False
        held[-fixed:] = True
    rest, apart = part(data, ~held), part(data, held)
    own = None if labels is None else labels[~held]
    aside = list(_samples(apart, None if labels is None else labels[held], stacked))
    shape = {name: array.shape for name, array in aside[0].items() if name != LABELS}
    aside = [one for one in aside if all(one[name].shape == shape[name] for name in shape)]
    size = fixed or (min(batch, samples, len(aside), rest.samples) if stacked else 1)
    runs = max(1, -(-min(samples, rest.samples) // size)) if stacked else min(FEEDS_A_STEP, rest.samples)
    if stacked:
        full = len(aside) // size * size
        groups = [aside[start : start + size] for start in range(0, full, size)]
        feeds = [{name: np.stack([one[name] for one in group]) for name in group[0]} for group in groups]
    else:
        feeds = aside
    return Stream(rest, own, feeds, stacked, size, runs, kinds, seed, shape)
