"""Tensors whose content stands in files beside the model: found, checked and read, one at a time.

A location is only followed inside the folder of the model, whatever `..` and symbolic links say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import is_external, tensor_bytes, walk

LONGEST_NUMBER = 19
"""Digits of the largest length that a file can have."""


@dataclass(frozen=True)
class Region:
    """Where the content of one tensor stands."""

    path: Path
    offset: int
    length: int


def external_tensors(proto: onnx.ModelProto) -> list[TensorProto]:
    """Return the tensors of a model whose content stands elsewhere."""
    return [tensor for tensor in walk(proto) if is_external(tensor)]


def locate(tensor: TensorProto, folder: Path | None) -> Region:
    """Return where the content of an external tensor stands.

    Raises:
        ModelError: there is no folder, the location leaves it, or the file is missing or too short.
    """
    if folder is None:
        raise _error(tensor, "its content is in another file, but the model came without a path; load it by its path")
    fields = {entry.key: entry.value for entry in tensor.external_data}
    location = fields.get("location", "")
    path = _inside(tensor, location, folder)
    offset, length = _number(tensor, fields, "offset"), _number(tensor, fields, "length")
    try:
        available = path.stat().st_size - (offset or 0)
    except OSError as error:
        raise _error(tensor, f"its data file '{location}' cannot be read ({error.strerror})") from error
    needed = tensor_bytes(tensor)
    if needed is None:
        needed = length if length is not None else available
    if length is not None and length < needed:
        raise _error(tensor, f"its shape needs {needed} bytes, its entry in '{location}' has {length}; export it again")
    if available < needed:
        raise _error(tensor, f"its data file '{location}' ends {needed - available} bytes too early; copy it again")
    return Region(path, offset or 0, needed)


def data_files(proto: onnx.ModelProto, folder: Path) -> set[Path]:
    """Return the files that the external tensors of a model stand in, as far as they exist."""
    locations = {e.value for t in external_tensors(proto) for e in t.external_data if e.key == "location"}
    return {path for path in (folder / location for location in locations) if path.is_file()}


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold weights of a model file, looked up when they are asked for; none of a file that is none."""

    model: Path

    def __iter__(self) -> Iterator[Path]:
        try:
            proto = onnx.load(self.model, load_external_data=False)
        except (OSError, DecodeError, ValueError, RuntimeError):
            return iter(())
        return iter(data_files(proto, self.model.parent))


def read(region: Region) -> bytes:
    """Return the bytes of a region, fresh from the file."""
    try:
        with region.path.open("rb") as file:
            file.seek(region.offset)
            content = file.read(region.length)
    except OSError as error:
        raise ModelError(f"data file '{region.path.name}' cannot be read ({error.strerror}).") from error
    if len(content) != region.length:
        raise ModelError(f"data file '{region.path.name}' became shorter while it was read; copy it again.")
    return content


def _inside(tensor: TensorProto, location: str, folder: Path) -> Path:
    if not location or "\0" in location:
        raise _error(tensor, "it names no data file; export the model again")
    root = folder.resolve()
    path = (root / location.replace("\\", "/")).resolve()
    if Path(location).is_absolute() or not path.is_relative_to(root):
        raise _error(
            tensor, f"its data file '{location}' is outside the model's folder, which is refused; copy it there"
        )
    if not path.exists():
        raise _error(tensor, f"its data file '{location}' is missing; copy it beside the model")
    if not path.is_file():
        raise _error(tensor, f"its data file '{location}' is not a regular file")
    return path


def _number(tensor: TensorProto, fields: dict[str, str], key: str) -> int | None:
    value = fields.get(key)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > LONGEST_NUMBER:
        raise _error(tensor, f"the {key} of its external data is '{value[:40]}', not a number; export the model again")
    return int(value)


def _error(tensor: TensorProto, what: str) -> ModelError:
    return ModelError(f"tensor '{tensor.name}': {what}.")
