"""What travels to workers: large parts on their own, known by their content, so that each goes once."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping

import cloudpickle

LARGE_BYTES = 1 << 16
"""Bytes and models from this size on travel apart from what holds them."""


def packed(thing: object) -> tuple[bytes, dict[str, bytes]]:
    """Return a value as bytes, and its large parts by the hash of their content."""
    parts: dict[str, bytes] = {}
    buffer = io.BytesIO()
    _Packer(buffer, parts).dump(thing)
    return buffer.getvalue(), parts


def unpacked(content: bytes, parts: Mapping[str, bytes]) -> object:
    """Return the value again.

    Raises:
        KeyError: a part has not come.
    """
    found: object = _Unpacker(io.BytesIO(content), parts).load()
    return found


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def __init__(self, file: io.BytesIO, parts: dict[str, bytes]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._parts = parts

    def persistent_id(self, thing: object) -> tuple[type | None, str] | None:
        """Name what travels apart: models (any message of protobuf) and bytes."""
        kind: type | None = None
        if isinstance(thing, bytes):
            content = thing
        elif hasattr(thing, "SerializeToString") and not isinstance(thing, type):
            kind, content = type(thing), thing.SerializeToString(deterministic=True)
        else:
            return None
        if len(content) < LARGE_BYTES:
            return None
        name = hashlib.sha256(content).hexdigest()
        self._parts[name] = content
        return kind, name


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, parts: Mapping[str, bytes]) -> None:
        super().__init__(file)
        self._parts = parts

    def persistent_load(self, pid: tuple[type | None, str]) -> object:
        """Return what travelled apart."""
        kind, name = pid
        return self._parts[name] if kind is None else kind.FromString(self._parts[name])  # type: ignore[attr-defined]  # messages have it
