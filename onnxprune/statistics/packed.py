"""Arrays out of .npz files, by their headers first: what is unpacked is known before it is, and no more than needed."""

from __future__ import annotations

import math
import mmap
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from onnxprune.errors import DataError
from onnxprune.statistics.feeds import InputSpec, can_stack
from onnxprune.types import Array

LIMIT_BYTES = 4 << 30
"""Of all arrays of a file together, as far as they are read."""

MOST_ARRAYS = 10_000

Rows = Mapping[int, int]
"""Number of axes of an array -> how many of its rows are wanted; all, where it is not there."""


def wanted_rows(inputs: Sequence[InputSpec], samples: int | None) -> Rows:
    """Return how many rows of an array are wanted, where its first axis surely counts samples."""
    ranks = {len(spec.shape) for spec in inputs if spec.shape}
    if samples is None or len(ranks) != 1 or not can_stack(inputs):
        return {}
    (rank,) = ranks
    return {rank: samples}


def read_npz(path: Path, rows: Rows) -> dict[str, Array]:
    """Return the arrays of an .npz file, or their first rows.

    Raises:
        DataError: they would take too much memory, or hold Python objects.
        Exception: what zipfile, zlib and numpy raise on damaged files.
    """
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > MOST_ARRAYS:
            raise DataError(
                f"{path}: {len(members)} arrays, which is no file of inputs; at most {MOST_ARRAYS} are read."
            )
        found: dict[str, Array] = {}
        total = 0
        for member in members:
            with archive.open(member) as file:
                shape, by_columns, dtype = _header(file)
                count = rows.get(len(shape), math.inf)
                cut = not by_columns and len(shape) > 0 and shape[0] > count
                taken = (int(count), *shape[1:]) if cut else shape
                size = math.prod(taken) * dtype.itemsize
                total += size
                if total > LIMIT_BYTES:
                    raise DataError(
                        f"{path}: {total / (1 << 30):.1f} GB when unpacked (memory), at most {LIMIT_BYTES >> 30} are "
                        "read; give fewer --samples, or several files in a folder."
                    )
                content = _read(file, size)
            name = member.filename.removesuffix(".npy")
            found[name] = np.ndarray(taken, dtype, content, order="F" if by_columns else "C")
    return found


def let_go(arrays: Iterable[Array]) -> None:
    """Give the memory of mapped files back; what is read of them later comes from the disk again."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if mapped is not None and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return shape, order and type of an array whose file is at its beginning."""
    version = npy.read_magic(file)
    reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if reader is None:
        raise ValueError(f"arrays of the format {version[0]}.{version[1]}")
    shape, by_columns, dtype = reader(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, by_columns, dtype


def _read(file: IO[bytes], size: int) -> bytearray:
    content = bytearray(file.read(size))
    if len(content) != size:
        raise ValueError("it ends too early")
    return content
