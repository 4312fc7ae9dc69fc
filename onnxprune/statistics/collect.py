"""One pass over the data: the model runs with the tensors of interest as extra outputs, batch by batch.

Activations of a batch are dropped as soon as they are added up, so memory does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.errors import DataError
from onnxprune.graph.external import data_files
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics import cache
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import Feed
from onnxprune.statistics.moments import Accumulator, ChannelStatistics
from onnxprune.types import Array

BATCH = 8
"""Samples a run, so that all observed tensors of a large network fit into memory at once."""

OBSERVED_BYTES = 1 << 28
"""Observed tensors of one run, all of them at once; fewer samples are run at a time where they take more."""

GRAM_BYTES = 2 << 30
"""Gram matrices of all tensors together may take this much by default."""


@dataclass(frozen=True)
class Wanted:
    """A tensor to observe along one axis, with or without its Gram matrix.

    pool: what it is counted under; tensors of one pool add up. "": under its own name.
    """

    tensor: str
    axis: int
    gram: bool = True
    pool: str = ""

    @property
    def key(self) -> str:
        """The name by which its statistics are found."""
        return self.pool or self.tensor


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


def observed(model: Model, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of the model that also gives the named tensors of the main graph as outputs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    outputs = {value.name for value in proto.graph.output}
    known = {name for node in proto.graph.node for name in node.output if name} | {v.name for v in proto.graph.input}
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(f"tensor '{missing[0]}' is not in the main graph of the model; it cannot be observed.")
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in outputs)
    return proto


def collect(
    model: Model,
    data: Data,
    wanted: Sequence[Wanted],
    *,
    threads: int | None = None,
    provider: str | None = None,
    memory_bytes: int = GRAM_BYTES,
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
    accumulators, notes = _run(model, data, wanted, threads, provider, memory_bytes)
    statistics = Statistics(data.samples, {name: a.result() for name, a in accumulators.items()}, tuple(notes))
    cache.store(key, _pack(statistics))
    return statistics


def _beside(model: Model) -> list[tuple[str, int, int]]:
    """Return what tells external data apart: their hash is not part of the model's."""
    files = sorted(data_files(model.proto, model.folder)) if model.folder is not None else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _run(
    model: Model, data: Data, wanted: Sequence[Wanted], threads: int | None, provider: str | None, memory_bytes: int
) -> tuple[dict[str, Accumulator], list[str]]:
    inputs = {spec.name for spec in data.inputs}
    names = list(dict.fromkeys(w.tensor for w in wanted if w.tensor not in inputs))
    session = open_session(observed(model, names), threads=threads, provider=provider, folder=model.folder)

    def run(feed: Feed) -> Feed:
        return dict(zip(names, session.values(names, feed) if names else (), strict=True)) | feed

    one = next(iter(data.batches(1)))
    first = run(one)
    accumulators, notes = _accumulators(wanted, first, memory_bytes)
    size = sum(array.nbytes for array in first.values()) // max(1, len(next(iter(one.values()))))
    del first
    batch = int(min(BATCH, max(1, min(OBSERVED_BYTES, memory_bytes // 4) // max(1, size))))
    for feed in data.batches(batch):
        values = run(feed)
        for item in wanted:
            accumulators[item.key].add(values[item.tensor], item.axis)
    return accumulators, notes


def _accumulators(
    wanted: Sequence[Wanted], values: Feed, memory_bytes: int
) -> tuple[dict[str, Accumulator], list[str]]:
    """Grant Gram matrices from the smallest up while they fit."""
    table: dict[str, Accumulator] = {}
    notes: list[str] = []
    left = memory_bytes
    for item in sorted(wanted, key=lambda w: values[w.tensor].shape[w.axis]):
        if item.key in table:
            continue
        size = 8 * values[item.tensor].shape[item.axis] ** 2
        fits = item.gram and size <= left
        left -= size if fits else 0
        if item.gram and not fits:
            notes.append(f"no Gram matrix of '{item.tensor}': it needs {size >> 20} MB more; raise --memory.")
        table[item.key] = Accumulator(item.axis, gram=fits)
    return table, notes


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
