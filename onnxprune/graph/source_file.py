"""The bytes of a model's file, unpacked where it is compressed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from onnxprune.errors import ModelError

PROTOBUF_LIMIT = 1 << 31
GZIP = b"\x1f\x8b"


def stem(path: Path) -> str:
    """Return the name of a model's file without its endings."""
    return Path(path.name.removesuffix(".gz")).stem


def is_packed(path: Path) -> bool:
    """Tell whether a file is gzip, whatever its name says."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, unpacked.

    Raises:
        ModelError: it is more than protobuf can read, or damaged.
        OSError: it cannot be read.
    """
    if path.stat().st_size >= PROTOBUF_LIMIT:
        raise ModelError(f"'{path}' has more than 2 GiB, which protobuf cannot read; save it with external data.")
    if not is_packed(path):
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            content = file.read(PROTOBUF_LIMIT)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ModelError(f"'{path}' is damaged ({error}); copy it again.") from error
    if len(content) >= PROTOBUF_LIMIT:
        raise ModelError(f"'{path}' unpacks to more than 2 GiB, which protobuf cannot read.")
    return content
