"""Calibration data: any source, checked once, then iterated as often as needed in batches that the model takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from onnxprune.errors import DataError, UsageError
from onnxprune.processes import memory
from onnxprune.statistics.feeds import Feed, InputSpec, can_stack, fit, fixed_batch, match_names
from onnxprune.statistics.image_options import ImageOptions
from onnxprune.statistics.packed import let_go
from onnxprune.statistics.sources import Source, open_source

PIECE_BYTES = 1 << 26
"""Arrays are checked and handed on in pieces of this size, so that those of a mapped file are never in memory whole."""
KEPT_BYTES = 1 << 30
"""Data up to this size stay in memory between passes; larger ones are read again."""


@dataclass(frozen=True)
class Unit:
    """A piece of data that fits the model; `stacked`: axis 0 counts its samples, else it is one whole feed."""

    feed: Feed
    samples: int
    stacked: bool


@dataclass(frozen=True, eq=False)
class Data:
    """Feeds for a model. Iterating yields dicts of input name to array, in batches that the model takes.

    samples: how many there are (a whole feed counts as one where axis 0 is not the batch).
    sha256: of names, types, shapes and values.
    synthetic: made up, not given by the user. written: by the model itself, as text.
    stream: the samples, as often as it is iterated.
    """

    inputs: tuple[InputSpec, ...]
    samples: int
    sha256: str
    warnings: tuple[str, ...]
    synthetic: bool
    stream: Iterable[Unit]
    _batch: int
    written: bool = False

    def __iter__(self) -> Iterator[Feed]:
        return self.batches(self._batch)

    @property
    def is_here(self) -> bool:
        """Whether its samples can be read, not only what was collected of them."""
        return not isinstance(self.stream, Elsewhere)

    @cached_property
    def sizes(self) -> dict[str, tuple[int | None, ...]]:
        """Return input -> shape of the first piece of the data, None where its samples are counted."""
        unit = next(iter(self.stream), None)
        found: dict[str, tuple[int | None, ...]] = {}
        for name, array in unit.feed.items() if unit is not None else ():
            found[name] = (None, *array.shape[1:]) if unit is not None and unit.stacked else array.shape
        return found

    def batches(self, size: int | None = None) -> Iterator[Feed]:
        """Yield feeds of at most `size` samples; the model's own fixed batch goes first."""
        size = fixed_batch(self.inputs) or size or self._batch
        return _regroup(self.stream, size, exact=fixed_batch(self.inputs) is not None)


class Elsewhere:
    """Samples that are not here: there are only statistics of them."""

    def __iter__(self) -> Iterator[Unit]:
        raise UsageError("this looks at single samples, and there are statistics only: give data (--data) as well.")


def read(
    spec: str | Path | Iterable[object] | object,
    inputs: Sequence[InputSpec],
    *,
    samples: int | None = None,
    batch: int | None = None,
    images: ImageOptions | None = None,
    synthetic: bool = False,
) -> Data:
    """Return checked calibration data.

    Args:
        spec: path of .npz, .npy, a folder of those or of images; `file.py:function`; feeds; a CalibrationDataReader.
        inputs: what the model wants (`input_specs`).
        samples: use the first so many only.
        batch: samples a feed where the model's batch is dynamic; None: as they come, at most 32.

    Raises:
        DataError: nothing there, or names, shapes, types or values do not fit.
    """
    if samples is not None and samples < 1:
        raise DataError(f"--samples {samples}: at least one sample is needed.")
    stream = _Stream(open_source(spec, inputs, images or ImageOptions(), samples), tuple(inputs), samples)
    found = _inspect(stream)
    size = fixed_batch(inputs) if can_stack(inputs) else None
    if not found.samples:
        raise DataError("the data have no samples; give at least one.")
    if size and found.samples < size:
        raise DataError(
            f"the model has a fixed batch of {size}, the data only {found.samples} samples; give {size} or more."
        )
    if size and found.samples % size:
        left_out = found.samples % size
        found.warnings.append(
            f"the model has a fixed batch of {size}: {left_out} of {found.samples} samples are left out."
        )
    if found.kept is not None:
        stream = replace(stream, kept=tuple(found.kept))
    return Data(tuple(inputs), found.samples, found.sha256, tuple(found.warnings), synthetic, stream, batch or 32)


@dataclass(frozen=True)
class _Stream:
    source: Source
    inputs: tuple[InputSpec, ...]
    samples: int | None
    kept: tuple[Unit, ...] | None = None

    def __iter__(self) -> Iterator[Unit]:
        yield from self.units([]) if self.kept is None else self.kept

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs: the path, or what has none."""
        return vars(self) | ({"kept": None} if self.source.is_path else {})

    def units(self, notes: list[str]) -> Iterator[Unit]:
        """Yield units up to the limit of samples; what is odd about them is added to `notes`."""
        left = self.samples
        for origin, arrays in self.source():
            feed, warnings = match_names(arrays, self.inputs, origin)
            notes.extend(warning for warning in warnings if warning not in notes)
            mode = str(arrays["_mode"]) if "_mode" in arrays else None
            for unit in self._split(feed, mode, origin, left):
                yield unit
                left = None if left is None else left - unit.samples
            if left == 0:
                return

    def _split(self, feed: Feed, mode: str | None, origin: str, limit: int | None) -> Iterator[Unit]:
        flat = [s for s in self.inputs if not feed[s.name].ndim and s.shape]
        if flat:
            raise DataError(f"{origin}: '{flat[0].name}' is a single number, the model wants {flat[0]}.")
        extra = {feed[s.name].ndim - len(s.shape) for s in self.inputs if s.shape is not None}
        whole = mode == "feeds" or (mode is None and extra == {1})
        if whole or extra == {0, 1}:
            longer = {s.name for s in self.inputs if s.shape is not None and feed[s.name].ndim > len(s.shape)}
            yield from self._feeds(feed, set(feed) if whole else longer, origin, limit)
            return
        stacked, count = can_stack(self.inputs), 1
        if stacked and extra == {-1}:
            feed = {name: array[None] for name, array in feed.items()}
        if stacked:
            count = len(range(_common_length(feed, origin))[:limit])
            feed = {name: array[:count] for name, array in feed.items()}
        size = max(1, PIECE_BYTES * count // max(1, sum(array.nbytes for array in feed.values()))) if stacked else 1
        for start in range(0, max(1, count), size):
            piece = {name: array[start : start + size] if stacked else array for name, array in feed.items()}
            where = f"{origin}, from sample {start}" if start else origin
            fitted = {s.name: fit(piece[s.name], s, where, batch_axis=stacked) for s in self.inputs}
            yield Unit(fitted, min(size, count - start) if stacked else 1, stacked)
            if count > size:
                let_go(feed.values())

    def _feeds(self, feed: Feed, counted: set[str], origin: str, limit: int | None) -> Iterator[Unit]:
        """Yield a feed a sample: `counted` arrays have an axis of samples more than their inputs.

        The others have their samples on axis 0 too where as many stand there as axis 0 of the input may have any
        size; else they are the same for all.
        """
        count = _common_length({name: feed[name] for name in counted}, origin)
        rows = {
            s.name
            for s in self.inputs
            if s.name not in counted and s.shape and s.shape[0] in (None, 1) and len(feed[s.name]) == count
        }
        for index in range(count)[:limit]:
            parts = {name: array[index, ...] if name in counted else array for name, array in feed.items()}
            parts |= {name: feed[name][index : index + 1] for name in rows}
            yield Unit({s.name: fit(parts[s.name], s, origin, batch_axis=False) for s in self.inputs}, 1, False)


def _common_length(feed: Feed, origin: str) -> int:
    lengths = {name: len(array) if array.ndim else 0 for name, array in feed.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{origin}: the arrays have different numbers of samples: {lengths}.")
    return next(iter(lengths.values()))


@dataclass
class _Findings:
    samples: int = 0
    sha256: str = ""
    warnings: list[str] = field(default_factory=list)
    kept: list[Unit] | None = field(default_factory=list)


def _inspect(stream: _Stream) -> _Findings:
    """Read everything once: count, hash, warnings, and the units themselves if they are small enough to keep."""
    digest, size, varies = hashlib.sha256(), 0, False
    first: dict[str, object] = {}
    found = _Findings()
    for unit in stream.units(found.warnings):
        found.samples += unit.samples
        for name, array in unit.feed.items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).data)
            size += array.nbytes
            varies = varies or bool(array.size and (array != first.setdefault(name, array.flat[0])).any())
        if size > KEPT_BYTES:
            found.kept = None
        if found.kept is not None:
            found.kept.append(unit)
    found.sha256 = digest.hexdigest()
    memory.allow(data=size)
    if found.samples and not varies:
        found.warnings.append("the data are constant: every value is the same; statistics on them say little.")
    if found.samples == 1:
        found.warnings.append("one sample only: statistics on it are weak; give 128 or more.")
    return found


def _regroup(units: Iterable[Unit], size: int, *, exact: bool) -> Iterator[Feed]:
    """Cut and join stacked units to `size` samples; `exact` leaves incomplete batches out."""
    rest: Feed | None = None
    for unit in units:
        if not unit.stacked:
            yield unit.feed
            continue
        feed = unit.feed
        if rest is not None and _alike(rest, feed):
            feed = {name: np.concatenate([rest[name], array]) for name, array in feed.items()}
        elif rest is not None and not exact:
            yield rest
        full = _length(feed) // size * size
        for start in range(0, full, size):
            yield {name: array[start : start + size] for name, array in feed.items()}
        rest = {name: array[full:] for name, array in feed.items()} if _length(feed) > full else None
    if rest is not None and not exact:
        yield rest


def _alike(a: Feed, b: Feed) -> bool:
    return all(a[name].shape[1:] == b[name].shape[1:] for name in a)


def _length(feed: Feed) -> int:
    return len(next(iter(feed.values())))
