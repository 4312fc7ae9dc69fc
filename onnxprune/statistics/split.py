"""Parts of data: which samples go where, with batches and whole feeds kept as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.statistics.data import Data, Unit
from onnxprune.statistics.feeds import Feed, InputSpec
from onnxprune.types import Array


@dataclass(frozen=True, eq=False)
class _Part:
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
    return replace(data, samples=int(np.count_nonzero(keep)), sha256=digest, stream=_Part(data.stream, keep))


@dataclass(frozen=True, eq=False)
class _Changed:
    """A stream whose feeds are changed on the way."""

    stream: Iterable[Unit]
    change: Callable[[Feed], Feed]

    def __iter__(self) -> Iterator[Unit]:
        for unit in self.stream:
            yield Unit(self.change(unit.feed), unit.samples, unit.stacked)


def changed(data: Data, change: Callable[[Feed], Feed], inputs: Sequence[InputSpec]) -> Data:
    """Return the samples as another model takes them, whose inputs are `inputs`."""
    digest = hashlib.sha256(data.sha256.encode() + repr(inputs).encode()).hexdigest()
    return replace(data, inputs=tuple(inputs), sha256=digest, stream=_Changed(data.stream, change))


def first(data: Data, count: int) -> Data:
    """Return the first so many samples, all where there are no more."""
    return part(data, np.arange(data.samples) < count)
