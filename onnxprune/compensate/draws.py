"""What gradient steps look at: random batches of the data, varied, all of one shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.compensate.augment import mixed, varied
from onnxprune.errors import ModelError
from onnxprune.statistics.feeds import Feed, InputSpec, can_stack, fixed_batch
from onnxprune.types import Array

FEEDS_A_STEP = 4
"""Whole feeds whose gradients are averaged for one step."""
HELD_OUT = 8
"""One sample in so many is held out."""


@dataclass(eq=False)
class Draws:
    """Batches for steps, and the samples that are held out.

    stacked: axis 0 of every input counts samples; else a batch is one whole feed, as it was given.
    batch: samples (or feeds) that one run takes. runs: how many of them a step takes. kinds: variations of samples.
    """

    feed: Feed
    held: Feed
    stacked: bool
    batch: int
    runs: int
    kinds: Sequence[str] = ()
    _order: list[int] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """Samples (or feeds) that are not held out."""
        return len(next(iter(self.feed.values())))

    def step(self, generator: np.random.Generator) -> list[Feed]:
        """Return the feeds of one step, pass after pass; no two samples of a step are the same if there are enough."""
        chosen = self._chosen(self.batch * self.runs, generator)
        if not self.stacked:
            return [{name: array[place, ...] for name, array in self.feed.items()} for place in chosen]
        whole = varied({name: array[chosen] for name, array in self.feed.items()}, self.kinds, generator)
        whole = mixed(whole, generator) if "mix" in self.kinds else whole
        starts = range(0, len(chosen), self.batch)
        return [{name: array[start : start + self.batch] for name, array in whole.items()} for start in starts]

    def _chosen(self, count: int, generator: np.random.Generator) -> Array:
        if count > self.samples:
            return generator.choice(self.samples, count)
        if len(self._order) < count:
            self._order = generator.permutation(self.samples).tolist()
        chosen, self._order = self._order[:count], self._order[count:]
        return np.array(chosen)

    def skip(self, steps: int) -> None:
        """Go on behind so many steps: walks over draws are not resumed, so there is no order to keep."""

    def example(self) -> Feed:
        """Return one feed of the shape that all have."""
        return next(self._cut(self.feed))

    def examples(self) -> Iterator[Feed]:
        """Yield what is not held out, in feeds of that shape."""
        return self._cut(self.feed)

    def held_out(self) -> Iterator[Feed]:
        """Yield what is held out, in feeds of that shape; what does not fill one is left out where others do."""
        return self._cut(self.held)

    def _cut(self, feed: Feed) -> Iterator[Feed]:
        count = len(next(iter(feed.values())))
        if not self.stacked:
            yield from ({name: array[number, ...] for name, array in feed.items()} for number in range(count))
            return
        for start in range(0, max(count - self.batch, 0) + 1, self.batch):
            wanted = np.arange(start, start + self.batch) % count
            yield {name: array[wanted] for name, array in feed.items()}


def draws_of(
    feeds: Sequence[Feed], specs: Sequence[InputSpec], samples: int, batch: int, aside: Sequence[Feed] = ()
) -> Draws:
    """Return how steps take their samples.

    Args:
        specs: the inputs of the model: a fixed batch stays, and inputs without a batch axis are taken feed by feed.
        samples: wanted for a step. batch: at most so many in one run.
        aside: what is held out; without any of the same shape one in eight of the feeds is.

    Raises:
        ModelError: there are fewer than three samples of one shape.
    """
    stacked = can_stack(specs) and all(len({len(a) for a in feed.values()}) == 1 for feed in feeds)
    feeds = _alike(feeds, 1 if stacked else 0)
    feed = _joined(feeds, stacked)
    apart = [f for f in aside if all(f[name].shape[stacked:] == feeds[0][name].shape[stacked:] for name in feeds[0])]
    count = len(next(iter(feed.values())))
    held = 0 if apart else max(1, count // HELD_OUT)
    fixed = fixed_batch(specs) if stacked else None
    if count < 3:
        raise ModelError("gradient steps need at least three samples of one shape.")
    size = fixed or min(batch, samples, count - held) if stacked else 1
    runs = -(-min(samples, count) // size) if stacked else min(FEEDS_A_STEP, count - held)
    kept = {n: a[: count - held] for n, a in feed.items()}
    parts = kept, _joined(apart, stacked) if apart else {n: a[count - held :] for n, a in feed.items()}
    return Draws(*parts, stacked, size, runs)


def _joined(feeds: Sequence[Feed], stacked: bool) -> Feed:
    return {name: (np.concatenate if stacked else np.stack)([feed[name] for feed in feeds]) for name in feeds[0]}


def _alike(feeds: Sequence[Feed], first_axis: int) -> list[Feed]:
    """Return the feeds that have the most frequent shapes, axes before `first_axis` left aside."""
    shapes = [tuple((name, array.shape[first_axis:]) for name, array in sorted(feed.items())) for feed in feeds]
    most = Counter(shapes).most_common(1)[0][0]
    return [feed for feed, shape in zip(feeds, shapes, strict=True) if shape == most]
