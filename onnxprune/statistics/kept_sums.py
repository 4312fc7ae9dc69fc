"""Statistics as a file: sums over samples, which model they are of, and which samples they have seen.

An .npz without Python objects: `header` is JSON, `marks` tells samples apart, `N.rows` and `N.gram` are the sums of the
N-th tensor. Sums of shards are added, so files are merged; the order of the files is the order of the sums.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import DataError, UsageError
from onnxprune.statistics.collect import Statistics
from onnxprune.statistics.moments import Sums
from onnxprune.statistics.shards import added
from onnxprune.types import Array
from onnxprune.version import __version__

FORMAT, VERSION = "onnxprune-statistics", 1
LARGEST_BYTES = 64 << 30
"""A file that says it holds more is none of ours."""
DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    EOFError,
    AttributeError,
    RecursionError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged archive, or other values than were written, raises."""


@dataclass(frozen=True, eq=False)
class KeptSums:
    """Sums over samples of one model.

    model: hash of its graph and weights. settings: what else must be the same where sums are added.
    shards: (samples, hash) of every shard, in the order in which they were added.
    marks: (samples,) 64-bit hashes of the samples. sums: by what they are counted under. notes: what was left out.
    version: of the package that made it.
    """

    model: str
    settings: Mapping[str, Any]
    shards: tuple[tuple[int, str], ...]
    marks: Array
    sums: Mapping[str, Sums]
    notes: tuple[str, ...] = ()
    version: str = field(default=__version__)

    @property
    def is_current(self) -> bool:
        """Whether this version of the package made it."""
        return self.version == __version__

    @property
    def samples(self) -> int:
        """How many samples were added up."""
        return sum(count for count, _ in self.shards)

    @cached_property
    def statistics(self) -> Statistics:
        """Means out of the sums."""
        return Statistics(self.samples, {key: sums.statistics() for key, sums in self.sums.items()}, self.notes)

    def facts(self) -> dict[str, object]:
        """Return what it is, as JSON data."""
        grams = sum(sums.has_gram for sums in self.sums.values())
        return {
            "samples": self.samples,
            "shards": len(self.shards),
            "tensors": len(self.sums),
            "gram_matrices": grams,
            "model": self.model,
            **self.settings,
        }

    def to_bytes(self) -> bytes:
        """Return the content of a file; the same sums give the same bytes."""
        tensors = [{"key": key, "axis": sums.axis, "count": sums.count} for key, sums in self.sums.items()]
        header = {
            "format": FORMAT,
            "version": VERSION,
            "onnxprune": self.version,
            "model": self.model,
            "settings": dict(self.settings),
            "shards": [list(shard) for shard in self.shards],
            "notes": list(self.notes),
            "tensors": tensors,
        }
        arrays: dict[str, Array] = {
            "header": np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8),
            "marks": self.marks,
        }
        for number, sums in enumerate(self.sums.values()):
            arrays[f"{number}.rows"] = sums.rows
            if sums.gram is not None:
                arrays[f"{number}.gram"] = sums.gram
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy types allow_pickle among them
        return buffer.getvalue()


def read_sums(path: Path | KeptSums) -> KeptSums:
    """Return the statistics of a file; those that were read already as they are.

    Raises:
        DataError: it cannot be read, is damaged, or is no file of statistics of this version.
    """
    if isinstance(path, KeptSums):
        return path
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as arrays:
            return _from_arrays({name: arrays[name] for name in arrays.files})
    except FileNotFoundError:
        raise DataError(f"the statistics '{path}' do not exist; onnxprune stats makes them.") from None
    except OSError as error:
        raise DataError(f"the statistics '{path}' cannot be read ({error.strerror or error}).") from error
    except DAMAGE as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"'{path}' is no file of statistics, or it is damaged ({why}); onnxprune stats makes them."
        ) from error


def merged_sums(parts: Sequence[KeptSums], names: Sequence[str] = ()) -> KeptSums:
    """Return the sums over all parts, added in their order.

    Args:
        names: how errors call the parts; "": by their numbers.

    Raises:
        UsageError: they are of different models, options or versions, or a shard is in two of them.
    """
    if not parts:
        raise UsageError("there is nothing to merge: give statistics.")
    said = list(names) or [""] * len(parts)
    called = [f"'{name}'" if name else f"part {number}" for number, name in enumerate(said, 1)]
    first, total = parts[0], dict(parts[0].sums)
    seen = {digest: called[0] for _, digest in first.shards}
    for name, part in zip(called[1:], parts[1:], strict=True):
        why = _difference(first, part)
        if why:
            raise UsageError(f"{called[0]} and {name} are statistics of different {why}; only like ones are merged.")
        for _, digest in part.shards:
            if digest in seen:
                raise UsageError(f"{name} has samples that {seen[digest]} has too; give each shard once.")
        seen |= {digest: name for _, digest in part.shards}
        total = added(total, part.sums)
    shards = tuple(chain.from_iterable(part.shards for part in parts))
    notes = tuple(dict.fromkeys(chain.from_iterable(part.notes for part in parts)))
    marks = np.concatenate([part.marks for part in parts])
    return KeptSums(first.model, first.settings, shards, marks, total, notes, first.version)


def _difference(one: KeptSums, other: KeptSums) -> str:
    """Return what keeps two from being added; "" for nothing."""
    if one.model != other.model:
        return "models"
    if one.version != other.version:
        return f"versions of onnxprune ({one.version} and {other.version})"
    for name in {**one.settings, **other.settings}:
        if one.settings.get(name) != other.settings.get(name):
            return f"options ({name})"
    shapes = [{key: (s.axis, s.rows.shape, s.has_gram) for key, s in part.sums.items()} for part in (one, other)]
    return "options (what was collected)" if shapes[0] != shapes[1] else ""


def _from_arrays(arrays: Mapping[str, Array]) -> KeptSums:
    header = json.loads(arrays["header"].tobytes().decode())
    if header["format"] != FORMAT or header["version"] != VERSION:
        raise ValueError(f"format {header['format']!r} {header['version']!r}")
    sums: dict[str, Sums] = {}
    for number, said in enumerate(header["tensors"]):
        rows, gram = arrays[f"{number}.rows"], arrays.get(f"{number}.gram")
        if rows.ndim != 2 or not _are_sums(rows, (4, rows.shape[1])):
            raise ValueError(f"sums of '{said['key']}'")
        if gram is not None and not _are_sums(gram, (rows.shape[1], rows.shape[1])):
            raise ValueError(f"products of '{said['key']}'")
        if int(said["count"]) < 1:
            raise ValueError(f"number of rows of '{said['key']}'")
        sums[str(said["key"])] = Sums(int(said["axis"]), int(said["count"]), rows, gram)
    marks = arrays["marks"]
    shards = tuple((int(count), str(digest)) for count, digest in header["shards"])
    if marks.dtype != np.uint64 or marks.shape != (sum(count for count, _ in shards),):
        raise ValueError("marks of the samples")
    notes = tuple(str(note) for note in header["notes"])
    if not isinstance(header["settings"]["branches"], dict) or not isinstance(header["settings"]["unfused"], bool):
        raise ValueError("settings")
    return KeptSums(
        str(header["model"]), dict(header["settings"]), shards, marks, sums, notes, str(header["onnxprune"])
    )


def _are_sums(values: Array, shape: tuple[int, int]) -> bool:
    return values.shape == shape and values.dtype == np.float64 and bool(np.isfinite(values).all())
