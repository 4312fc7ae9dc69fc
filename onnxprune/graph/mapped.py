"""Large external tensors as views of mapped files: their pages are read when they are used, and taken back when memory
is short, so that a model larger than memory can be looked at as if it were loaded.

A file is mapped once, whatever the number of its tensors. On Windows, where a mapped file can neither be replaced nor
removed, contents are read instead.
"""

from __future__ import annotations

import math
import mmap
import sys
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.graph.external import Region, external_tensors
from onnxprune.graph.tensors import tensor_bytes
from onnxprune.types import Array

SMALLEST_BYTES = 1 << 20
"""Smaller tensors are read: they cost less than what a mapping keeps open."""
VAST_BYTES = 1 << 30
"""With more external weights than this a model is run where its weights lie, without copies in another order."""
LARGEST_GRAPH = 1 << 27
"""A larger file holds weights of its own."""

_files: WeakValueDictionary[tuple[int, int, int, int], mmap.mmap] = WeakValueDictionary()


def mapped_array(tensor: TensorProto, region: Region) -> Array | None:
    """Return the content of an external tensor as a read-only view of its file; None where it has to be read."""
    if region.length < SMALLEST_BYTES or sys.byteorder != "little" or sys.platform == "win32":
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count = math.prod(tensor.dims)
    if dtype.hasobject or dtype.itemsize * count != region.length or region.offset % dtype.itemsize:
        return None
    with suppress(OSError, ValueError):
        return np.frombuffer(_mapped(region.path), dtype, count, region.offset).reshape(tuple(tensor.dims))
    return None


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        status = path.stat()
        key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        found = _files.get(key)
        if found is None:
            found = _files[key] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return found


def is_vast(proto: onnx.ModelProto) -> bool:
    """Tell whether the external weights of a graph are too many to be copied."""
    return sum(tensor_bytes(tensor) or 0 for tensor in external_tensors(proto)) > VAST_BYTES


def is_vast_file(path: Path) -> bool:
    """Tell the same of a model's file; files that hold their weights themselves are none."""
    try:
        beside = sum(entry.stat().st_size for entry in path.parent.iterdir() if entry.is_file())
        own = path.stat().st_size
        if own > LARGEST_GRAPH or beside - own <= VAST_BYTES:
            return False
        return is_vast(onnx.load(path, load_external_data=False))
    except Exception:  # whoever opens it says what is wrong with it
        return False
