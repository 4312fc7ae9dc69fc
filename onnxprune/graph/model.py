"""A model and where it came from; reading it from a file, bytes or an object in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from onnxprune.errors import ModelError
from onnxprune.graph.check import check_groups, check_structure, check_tensors, check_versions
from onnxprune.graph.external import external_tensors, locate, read
from onnxprune.graph.mapped import mapped_array
from onnxprune.graph.repair import repaired
from onnxprune.graph.source_file import read_bytes
from onnxprune.graph.structure import structure_of
from onnxprune.graph.tensors import check_contents, is_external, tensor_bytes, to_array
from onnxprune.processes import memory
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnx_graphsurgeon import Graph

__all__ = ["Model", "Source", "load"]

COMMON_IR = 8
"""The IR version that models made in memory get at least: it has functions, and every runtime in use reads it."""

_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model. Nothing in it is changed by anyone; what prunes it makes a new one.

    proto: the graph with its embedded weights; external weights are not loaded.
    path: file it came from; external data are relative to its folder.
    pending: key of an external parameter -> makes its new content when the file is written, so that a model
        larger than memory can be changed. The shape of its TensorProto is already the new one.
    file_bytes: length of the file (unpacked), None where the proto is not what a file holds.
    origin: what a result says of where it comes from when it is saved: hash of its source, and what was asked for.
    notes: what was mended when it was read.
    """

    proto: onnx.ModelProto
    path: Path | None = None
    pending: Mapping[str, Callable[[], Array]] = field(default_factory=dict)
    file_bytes: int | None = None
    origin: tuple[str, Mapping[str, Any]] | None = None
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path | None:
        """Where external data are looked for."""
        return self.path.parent if self.path is not None else None

    @cached_property
    def sha256(self) -> str:
        """Identity of the source: hash of the file it came from, or of the serialised proto when made in memory."""
        if self.path is not None:
            return file_sha256(self.path)
        return hashlib.sha256(self.proto.SerializeToString(deterministic=True)).hexdigest()

    @cached_property
    def structure(self) -> str:
        """What it has in common with the same network of other weights: a hash of all but these."""
        return structure_of(self.proto)

    @cached_property
    def size_bytes(self) -> int:
        """Bytes on disk: the file and its external data (without padding)."""
        own = int(self.proto.ByteSize()) if self.file_bytes is None else self.file_bytes  # ByteSize serialises it all
        return own + self.external_bytes

    @property
    def external_bytes(self) -> int:
        """Bytes of the external data."""
        return sum(tensor_bytes(t) or 0 for t in external_tensors(self.proto))

    def array(self, tensor: TensorProto) -> Array:
        """Return the content of a stored tensor, read-only; large external content is a view of its mapped file.

        bfloat16, float8 and int4 come as `ml_dtypes` arrays.

        Raises:
            ModelError: the content is missing, outside the model's folder, or does not fit the shape.
        """
        if is_external(tensor):
            region = locate(tensor, self.folder)
            found = mapped_array(tensor, region)
            if found is not None:
                return found
            content = read(region)
            tensor = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
        try:
            return to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"tensor '{tensor.name}': its content does not fit its shape ({error}).") from error

    def content(self, key: str, tensor: TensorProto) -> Array:
        """Return the values of a stored tensor, given its key in a view; those still to be written included."""
        make = self.pending.get(key)
        return make() if make is not None else self.array(tensor)


Source = Union[str, Path, bytes, onnx.ModelProto, "Graph", Model]
"""What `load` takes: a path, the bytes of a file, a ModelProto, an onnx-graphsurgeon Graph, or a Model."""


def load(source: Source) -> Model:
    """Read a model and check it; external data are checked for presence and length, not loaded.

    Raises:
        ModelError: it cannot be read, is not ONNX, is invalid, too old or too new, or its external data are not there.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx.ModelProto):
        return _checked(Model(source))
    if isinstance(source, bytes):
        return _checked(Model(_parse(source, "the bytes")))
    if isinstance(source, str | Path):
        path = Path(source)
        try:
            content = _read(path)
            memory.allow(model=len(content))
            return _checked(Model(_parse(content, f"'{path}'"), path, file_bytes=len(content)))
        except ModelError as error:
            if str(path) in str(error):
                raise
            raise ModelError(f"'{path}': {error}") from error.__cause__
    if type(source).__module__.partition(".")[0] == "onnx_graphsurgeon":
        return _checked(Model(_from_graphsurgeon(source)))
    raise ModelError(f"a model is a path, bytes, a ModelProto or a graphsurgeon Graph, not {type(source).__name__}.")


def file_sha256(path: Path) -> str:
    """Return the hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelError(f"'{path}' is a folder; give the .onnx file in it.")
        if path.exists() and not path.is_file():
            raise ModelError(f"'{path}' is not a regular file; give an .onnx file.")
        return read_bytes(path)
    except FileNotFoundError:
        raise ModelError(f"'{path}' does not exist.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def _parse(content: bytes, what: str) -> onnx.ModelProto:
    if not content:
        raise ModelError(f"{what} is empty; an ONNX model was expected.")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"{what} is not an ONNX model, or it is truncated; export or copy it again.") from error
    if not proto.HasField("ir_version") or not proto.HasField("graph"):
        raise ModelError(f"{what} is not an ONNX model (it has no graph); export or copy it again.")
    return proto


def _checked(given: Model) -> Model:
    proto, notes = repaired(given.proto)
    model = replace(given, proto=proto, notes=notes) if notes or proto is not given.proto else given
    check_versions(model.proto)
    check_tensors(model.proto)
    check_groups(model.proto)
    for tensor in external_tensors(model.proto):
        locate(tensor, model.folder)
    check_contents(model.proto)
    check_structure(model.proto)
    return model


def _from_graphsurgeon(graph: Graph) -> onnx.ModelProto:
    import onnx_graphsurgeon

    try:
        proto: onnx.ModelProto = onnx_graphsurgeon.export_onnx(graph, do_type_check=False)
    except Exception as error:  # graphsurgeon raises whatever it meets
        raise ModelError(f"the onnx-graphsurgeon graph cannot be exported ({error}).") from error
    if getattr(graph, "ir_version", None) is None:  # onnx would stamp its newest, which runtimes may not read
        needed = onnx.helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
        proto.ir_version = max(needed, COMMON_IR)
    return proto
