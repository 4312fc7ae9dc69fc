"""Sums over data in shards of one size: each on its own, then added in their order.

So it makes no difference in any bit who adds up which shard: this process, a crew, or commands on other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.graph.model import Model
from onnxprune.graph.session import Session, open_session
from onnxprune.processes.crew import at_work
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.data import Data, Unit
from onnxprune.statistics.feeds import Feed, can_stack, fixed_batch
from onnxprune.statistics.moments import Accumulator, Sums
from onnxprune.statistics.observed import Wanted, WantedRows, observed

SHARD = 512
"""Samples whose sums are one term of the whole: a second set of sums is kept meanwhile, so not many fewer."""


ROWS = 8192
"""Rows of patches that are made at a time."""


def shard_size(data: Data, wanted: int = SHARD) -> int:
    """Return how many samples a shard has: whole batches where the model fixes them."""
    batch = (fixed_batch(data.inputs) if can_stack(data.inputs) else None) or 1
    return -(-wanted // batch) * batch


def shard_names(data: Data, size: int) -> Callable[[int], str]:
    """Return what tells people which shard a number stands for."""
    count = -(-data.samples // size)
    return lambda n: f"shard {n + 1} of {count} (samples {n * size + 1} to {min(data.samples, (n + 1) * size)})"


@dataclass(eq=False)
class ShardReader:
    """Samples shard after shard; going back reads from the beginning again."""

    data: Data
    size: int
    _next: int = 0
    _units: Iterator[Unit] | None = None
    _rest: Unit | None = None

    def feeds(self, number: int, batch: int) -> Iterator[Feed]:
        """Yield the samples of a shard, at most `batch` at a time; shards are read to their end."""
        if self._units is None or number < self._next:
            self._units, self._next, self._rest = iter(self.data.stream), 0, None
        while self._next < number:
            for _ in self._shard():
                pass
        yield from replace(self.data, stream=self._shard()).batches(batch)

    def _shard(self) -> Iterator[Unit]:
        """Yield the units of the next shard, cut at its end."""
        self._next += 1
        left = self.size
        while left:
            unit, self._rest = self._rest if self._rest is not None else self._following(), None
            if unit is None:
                return
            if unit.samples > left:
                unit, self._rest = _cut(unit, left)
            left -= unit.samples
            yield unit

    def _following(self) -> Unit | None:
        return next(self._units, None) if self._units is not None else None


def _cut(unit: Unit, count: int) -> tuple[Unit, Unit]:
    first = {name: array[:count] for name, array in unit.feed.items()}
    second = {name: array[count:] for name, array in unit.feed.items()}
    return Unit(first, count, True), Unit(second, unit.samples - count, True)


@dataclass(frozen=True, eq=False)
class ShardWork:
    """Adds up what tensors of a model are like, shard by shard.

    grams: keys of the tensors whose products are added up. batch: samples of a run. size: samples of a shard.
    patches: layers whose inputs are added up patch by patch.
    """

    model: Model
    data: Data
    wanted: Sequence[Wanted]
    grams: frozenset[str]
    batch: int
    size: int
    threads: int | None = None
    provider: str | None = None
    patches: Sequence[WantedRows] = ()

    def sums(self, number: int) -> dict[str, Sums]:
        """Return the sums over one shard, by key."""
        table = {item.key: Accumulator(item.axis, gram=item.key in self.grams) for item in reversed(self.wanted)}
        table |= {layer.key: Accumulator(-1, gram=True) for layer in self.patches}
        for feed in self._reader.feeds(number, self.batch):
            values = self.run(feed)
            for item in self.wanted:
                table[item.key].add(values[item.tensor], item.axis)
            for layer in self.patches:
                rows = layer.layout.inputs(values[layer.tensor], values[layer.output].shape)
                for start in range(0, rows.count, ROWS):
                    table[layer.key].add_rows(rows.rows(np.arange(start, min(rows.count, start + ROWS)))[0])
        return {key: accumulator.sums() for key, accumulator in table.items()}

    def run(self, feed: Feed) -> Feed:
        """Return the wanted tensors, inputs among them."""
        found = self._session.values(self._names, feed) if self._names else ()
        return dict(zip(self._names, found, strict=True)) | feed

    def opened_like(self, other: ShardWork) -> None:
        """Take the session of the same model with the same outputs, instead of opening it again."""
        vars(self)["_session"] = other._session

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs: what is opened stays here."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @cached_property
    def _reader(self) -> ShardReader:
        return ShardReader(self.data, self.size)

    @cached_property
    def _names(self) -> list[str]:
        inputs = {spec.name for spec in self.data.inputs}
        names = [item.tensor for item in self.wanted]
        names += [name for layer in self.patches for name in (layer.tensor, layer.output)]
        return list(dict.fromkeys(name for name in names if name not in inputs))

    @cached_property
    def _session(self) -> Session:
        proto = observed(self.model, self._names)
        return open_session(proto, threads=self.threads, provider=self.provider, folder=self.model.folder)


def all_sums(
    work: ShardWork, tell: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Sums], tuple[int, ...]]:
    """Return the sums over all shards, added in their order, by key; and how many samples each shard had."""
    numbers = range(-(-work.data.samples // work.size))
    name, crew = shard_names(work.data, work.size), at_work()
    total: dict[str, Sums] = {}
    if crew is not None and len(numbers) > 1:
        parts: Iterable[Mapping[str, Sums]] = crew.map(_sums, work, numbers, name)
    else:
        parts = map(work.sums, numbers)
    for number, part in enumerate(parts):
        tell(f"statistics: {name(number)}")
        total = added(total, part) if total else dict(part)
    sizes = tuple(min(work.size, work.data.samples - n * work.size) for n in numbers)
    return total, sizes


def added(one: Mapping[str, Sums], other: Mapping[str, Sums]) -> dict[str, Sums]:
    """Return the sums over both, tensor by tensor.

    Raises:
        ValueError: they are of tensors that differ.
    """
    if one.keys() != other.keys():
        raise ValueError("sums of other tensors")
    return {key: sums.plus(other[key]) for key, sums in one.items()}


@on_one_thread
def _sums(work: ShardWork, number: int) -> dict[str, Sums]:
    return work.sums(number)
