"""Parts of data: which samples go where, with batches and whole feeds kept as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.statistics.data import Data, Unit
from onnxprune.statistics.feeds import Feed, InputSpec, can_stack, fixed_batch
from onnxprune.types import Array

SHARE = 4
"""One in so many samples is kept for judging."""
FEWEST = 16
"""Fewer samples are fitted to and judged on alike: one of four of them would say nothing."""


@dataclass(frozen=True, eq=False)
class _MaskedSamples:
    """Those samples of a stream that a mask, (samples,), has True for."""

    stream: Iterable[Unit]
    keep: Array

    def __iter__(self) -> Iterator[Unit]:
        start, end = 0, int(np.flatnonzero(self.keep)[-1]) + 1
        for unit in self.stream:
            if start >= end:
                return
            mine = self.keep[start : start + unit.samples]
            start += unit.samples
            if mine.all():
                yield unit
            elif mine.any():
                feed = {name: array[mine] for name, array in unit.feed.items()}
                yield Unit(feed, int(np.count_nonzero(mine)), unit.stacked)


def part(data: Data, keep: Array) -> Data:
    """Return the samples that a mask, (samples,), has True for, in their order; at least one."""
    if keep.all():
        return data
    digest = hashlib.sha256(data.sha256.encode() + np.packbits(keep).tobytes()).hexdigest()
    return replace(data, samples=int(np.count_nonzero(keep)), sha256=digest, stream=_MaskedSamples(data.stream, keep))


@dataclass(frozen=True, eq=False)
class _Changed:
    """A stream whose feeds are changed on the way."""

    stream: Iterable[Unit]
    change: Callable[[Feed], Feed]

    def __iter__(self) -> Iterator[Unit]:
        for unit in self.stream:
            yield Unit(self.change(unit.feed), unit.samples, unit.stacked)


def places(data: Data) -> Array:
    """Return which samples of the data that were read these are: (samples,) numbers from 0."""
    return _places(data.stream, data.samples)


def _places(stream: Iterable[Unit], samples: int) -> Array:
    if isinstance(stream, _MaskedSamples):
        return np.asarray(_places(stream.stream, len(stream.keep))[np.flatnonzero(stream.keep)])
    return _places(stream.stream, samples) if isinstance(stream, _Changed) else np.arange(samples)


def read_in_all(data: Data) -> int:
    """Return how many samples were read, parts that were left out since then among them."""
    stream, samples = data.stream, data.samples
    while isinstance(stream, _MaskedSamples | _Changed):
        samples = len(stream.keep) if isinstance(stream, _MaskedSamples) else samples
        stream = stream.stream
    return samples


def changed(data: Data, change: Callable[[Feed], Feed], inputs: Sequence[InputSpec]) -> Data:
    """Return the samples as another model takes them, whose inputs are `inputs`."""
    digest = hashlib.sha256(data.sha256.encode() + repr(inputs).encode()).hexdigest()
    return replace(data, inputs=tuple(inputs), sha256=digest, stream=_Changed(data.stream, change))


def first(data: Data, count: int) -> Data:
    """Return the first so many samples, all where there are no more."""
    return part(data, np.arange(data.samples) < count)


def split(data: Data) -> tuple[Data, Data | None]:
    """Return what is fitted to, and what is judged on: one of every four samples, so spread over all of the data.

    Which one of four changes from four to four, so that data in a rhythm (classes in turns) do not lose one beat.
    Whole feeds stay whole, and where the model's batch is fixed, whole batches go to one side or the other. None for
    the second part where there are too few.
    """
    size = (fixed_batch(data.inputs) if can_stack(data.inputs) else None) or 1
    blocks = data.samples // size
    if data.samples < FEWEST or blocks < SHARE:
        return data, None
    turns = np.arange(blocks // SHARE)
    held = np.zeros(data.samples, bool)
    for block in SHARE * turns + np.random.default_rng(SHARE).integers(SHARE, size=len(turns)):
        held[block * size : (block + 1) * size] = True
    return part(data, ~held), part(data, held)
