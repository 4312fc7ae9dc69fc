"""One pass over the data: the model runs with the tensors of interest as extra outputs, batch by batch.

Activations of a batch are dropped as soon as they are added up, so memory does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.graph.external import data_files
from onnxprune.graph.model import Model
from onnxprune.statistics import cache
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import Feed
from onnxprune.statistics.moments import ChannelStatistics
from onnxprune.statistics.observed import Wanted, WantedRows, observed
from onnxprune.statistics.shards import SHARD, ShardWork, all_sums, shard_size
from onnxprune.types import Array

__all__ = ["BATCH", "GRAM_BYTES", "Statistics", "Wanted", "collect", "observed", "shard_work"]

BATCH = 8
"""Samples a run, so that all observed tensors of a large network fit into memory at once."""

OBSERVED_BYTES = 1 << 28
"""Observed tensors of one run, all of them at once; fewer samples are run at a time where they take more."""

GRAM_BYTES = 2 << 30
"""Gram matrices of all tensors together may take this much by default."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one pass over the data found, by tensor or pool of tensors.

    notes: what was left out, one line each.
    """

    samples: int
    tensors: dict[str, ChannelStatistics]
    notes: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> ChannelStatistics:
        return self.tensors[key]

    def __contains__(self, key: object) -> bool:
        return key in self.tensors


def collect(
    model: Model,
    data: Data,
    wanted: Sequence[Wanted],
    *,
    threads: int | None = None,
    provider: str | None = None,
    memory_bytes: int = GRAM_BYTES,
    progress: Callable[[str], None] = lambda text: None,
) -> Statistics:
    """Return statistics of tensors over the data; a second call with the same model and data reads the cache.

    Gram matrices that would not fit into `memory_bytes` are left out, the largest first, and a note says so.

    Raises:
        DataError: a tensor is not in the main graph.
        ModelError: onnxruntime cannot run the model on the data.
    """
    asked = sorted((w.tensor, w.axis, w.gram, w.pool) for w in wanted)
    key = cache.key("channels", model.sha256, _beside(model), data.sha256, asked, memory_bytes)
    stored = cache.load(key)
    if stored is not None:
        with suppress(KeyError, ValueError, IndexError):  # of another form than ours: as if there were none
            return _unpack(stored, data.samples)
    work, notes = shard_work(
        model, data, wanted, threads=threads, provider=provider, memory_bytes=memory_bytes, size=SHARD
    )
    sums, _ = all_sums(work, progress)
    statistics = Statistics(data.samples, {name: found.statistics() for name, found in sums.items()}, tuple(notes))
    cache.store(key, _pack(statistics))
    return statistics


def _beside(model: Model) -> list[tuple[str, int, int]]:
    """Return what tells external data apart: their hash is not part of the model's."""
    files = sorted(data_files(model.proto, model.folder)) if model.folder is not None else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def shard_work(
    model: Model,
    data: Data,
    wanted: Sequence[Wanted],
    *,
    threads: int | None = None,
    provider: str | None = None,
    memory_bytes: int = GRAM_BYTES,
    size: int = SHARD,
    copies: int | None = None,
    patches: Sequence[WantedRows] = (),
) -> tuple[ShardWork, list[str]]:
    """Return what adds up the statistics, and which Gram matrices are left out of them.

    Args:
        size: samples of a shard. copies: of the sums that are kept at a time; None: what the number of shards asks for.
    """
    size, allowed = shard_size(data, size), memory_bytes
    copies = copies or (2 if data.samples > size else 1)
    work = ShardWork(model, data, tuple(wanted), frozenset(), BATCH, size, threads, provider, tuple(patches))
    one = next(iter(data.batches(1)))
    first = work.run(one)
    memory_bytes //= copies
    grams, notes = _granted(wanted, first, memory_bytes)
    sizes = {item.key: 8 * first[item.tensor].shape[item.axis] ** 2 for item in wanted if item.key in grams}
    memory_bytes -= sum(sizes.values())
    kept: list[WantedRows] = []
    for layer in sorted(patches, key=lambda layer: layer.features):
        needed = 8 * layer.features**2
        if needed > memory_bytes:
            notes.append(f"no products of patches for '{layer.key}': they need {needed >> 20} MB more; raise --memory.")
            continue
        memory_bytes -= needed
        kept.append(layer)
    bytes_each = sum(array.nbytes for array in first.values()) // max(1, len(next(iter(one.values()))))
    batch = int(min(BATCH, max(1, min(OBSERVED_BYTES, allowed // 4) // max(1, bytes_each))))
    found = replace(work, grams=frozenset(grams), batch=batch, patches=tuple(kept))
    found.opened_like(work)
    return found, notes


def no_gram(tensor: str, more: int) -> str:
    """Return the note on a Gram matrix that is left out: it needs so many bytes more than there are."""
    return f"no Gram matrix of '{tensor}': it needs {more >> 20} MB more; raise --memory."


def _granted(wanted: Sequence[Wanted], values: Feed, memory_bytes: int) -> tuple[set[str], list[str]]:
    """Grant Gram matrices from the smallest up while they fit."""
    seen: set[str] = set()
    granted: set[str] = set()
    notes: list[str] = []
    left = memory_bytes
    for item in sorted(wanted, key=lambda w: values[w.tensor].shape[w.axis]):
        if item.key in seen:
            continue
        seen.add(item.key)
        size = 8 * values[item.tensor].shape[item.axis] ** 2
        fits = item.gram and size <= left
        left -= size if fits else 0
        if item.gram and not fits:
            notes.append(no_gram(item.tensor, size))
        granted |= {item.key} if fits else set()
    return granted, notes


def _pack(statistics: Statistics) -> dict[str, Array]:
    arrays: dict[str, Array] = {"notes": np.array(statistics.notes, dtype=str)}
    for number, (name, s) in enumerate(statistics.tensors.items()):
        arrays[f"{number}.name"] = np.array([name, str(s.axis), str(s.count)])
        arrays[f"{number}.rows"] = np.stack([s.mean, s.abs_mean, s.variance, s.zero_share])
        if s.gram is not None:
            arrays[f"{number}.gram"] = s.gram
    return arrays


def _unpack(arrays: dict[str, Array], samples: int) -> Statistics:
    tensors: dict[str, ChannelStatistics] = {}
    for key in [name for name in arrays if name.endswith(".name")]:
        name, axis, count = (str(text) for text in arrays[key])
        stem = key.removesuffix(".name")
        mean, abs_mean, variance, zeros = arrays[f"{stem}.rows"]
        gram = arrays.get(f"{stem}.gram")
        tensors[name] = ChannelStatistics(int(axis), int(count), mean, abs_mean, variance, zeros, gram)
    return Statistics(samples, tensors, tuple(str(note) for note in arrays["notes"]))
