"""The one data file of an output with external weights, written tensor by tensor so that memory stays small."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.files.staging import create
from onnxprune.graph.external import Region, external_tensors, locate
from onnxprune.graph.tensors import is_external, tensor_bytes, to_array, walk
from onnxprune.graph.view import View
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.graph.model import Model

EMBEDDED_LIMIT = 1_900_000_000
"""Bytes of weights above which they go to a data file: protobuf stops at 2 GiB."""

_MOVED_BYTES = 1024
_ALIGN_ABOVE, _ALIGNMENT = 1 << 20, 1 << 16
_CHUNK = 1 << 24


def needs_data_file(model: Model) -> bool:
    """Tell whether a model has external weights or too many to embed."""
    return bool(model.pending or external_tensors(model.proto)) or _embedded_bytes(model.proto) > EMBEDDED_LIMIT


def write_data_file(model: Model, path: Path) -> tuple[onnx.ModelProto, str]:
    """Write the external weights of a model to a new file, and return a proto that points to it.

    What is external stays external, what is embedded stays embedded, unless there is too much of it.
    The location in the proto is empty: the caller names the file after the hash that is returned.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    parameters = View(model).parameters if model.pending else {}  # held: ids of tensors last as long as their objects
    keys = {id(parameter.tensor): key for key, parameter in parameters.items()}
    unknown = [key for key in model.pending if key not in parameters or not is_external(parameters[key].tensor)]
    if unknown:
        raise OnnxpruneError(f"'{unknown[0]}' has new content to write but is no external tensor; please report this.")
    with create(path) as file:
        data = _DataFile(file)
        for old, new in zip(walk(model.proto), walk(proto), strict=True):
            if is_external(old):
                _move(model, keys.get(id(old), ""), old, new, data)
        if _embedded_bytes(proto) > EMBEDDED_LIMIT:
            for tensor in proto.graph.initializer:
                size = tensor_bytes(tensor) or 0
                if size >= _MOVED_BYTES and not is_external(tensor):
                    _point(tensor, *data.add(tensor.name, [_as_bytes(to_array(tensor))], size))
        file.flush()
        os.fsync(file.fileno())
    return proto, data.digest.hexdigest()[:16]


def set_location(proto: onnx.ModelProto, location: str) -> None:
    """Name the data file in every external tensor."""
    for tensor in walk(proto):
        if is_external(tensor):
            next(entry for entry in tensor.external_data if entry.key == "location").value = location


def _embedded_bytes(proto: onnx.ModelProto) -> int:
    return sum(tensor_bytes(tensor) or 0 for tensor in walk(proto) if not is_external(tensor))


class _DataFile:
    """Appends the content of tensors, aligned as runtimes that map the file into memory want it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.offset = 0
        self.digest = hashlib.sha256()
        self.regions: dict[Region, tuple[int, int]] = {}

    def add(self, name: str, chunks: Iterable[bytes | memoryview], size: int | None) -> tuple[int, int]:
        """Append one tensor and return its offset and length."""
        if size is not None and size >= _ALIGN_ABOVE:
            self._write(bytes(-self.offset % _ALIGNMENT))
        start = self.offset
        for chunk in chunks:
            self._write(chunk)
        length = self.offset - start
        if size is not None and length != size:
            raise ModelError(f"tensor '{name}': its content has {length} bytes where its shape needs {size}.")
        return start, length

    def _write(self, content: bytes | memoryview) -> None:
        self.file.write(content)
        self.digest.update(content)
        self.offset += len(content)


def _move(model: Model, key: str, old: TensorProto, new: TensorProto, data: _DataFile) -> None:
    """Write the content of one external tensor: the pending one, or a copy of the old region."""
    if key in model.pending:
        placed = data.add(old.name, [_as_bytes(model.pending[key]())], tensor_bytes(old))
        _point(new, *placed)
        return
    region = locate(old, model.folder)
    if region not in data.regions:  # tied tensors share one region
        data.regions[region] = data.add(old.name, _chunks(region), region.length)
    _point(new, *data.regions[region])


def _chunks(region: Region) -> Iterator[bytes]:
    with region.path.open("rb") as file:
        file.seek(region.offset)
        left = region.length
        while left and (chunk := file.read(min(left, _CHUNK))):
            yield chunk
            left -= len(chunk)


def _as_bytes(array: Array) -> memoryview:
    """Return the stored form of an array: little endian, sub-byte types packed."""
    if array.dtype.kind == "V":  # ml_dtypes
        return memoryview(onnx.numpy_helper.from_array(array).raw_data)
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _point(tensor: TensorProto, offset: int, length: int) -> None:
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(name)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", ""), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
