"""Statistics kept on disk, so that a second command on the same model and data does not compute them again.

They stand in a folder of their own inside the one that was asked for (`onnxprune.processes.places`), under names that
only we make, and nothing else is ever touched. A file is believed when its content has the hash that it begins with,
was stored under its name by the same release, and belongs to this user; any trouble means that there is none.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import stat
import zipfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np

from onnxprune.files.owner import draft_name, sweep
from onnxprune.files.staging import create
from onnxprune.processes.places import statistics_folder
from onnxprune.types import Array
from onnxprune.version import __version__

LIMIT_BYTES = 2 << 30
"""The oldest of our files go when they are more than this together; larger results are not stored."""

SUBFOLDER = "statistics-of-onnxprune"
_NAME = re.compile(r"[0-9a-f]{64}\.statistics")
_MAGIC = b"onnxprune statistics 2\n"


def folder() -> Path | None:
    """Return where statistics are kept, None if nowhere."""
    asked = statistics_folder()
    return None if asked is None else asked / SUBFOLDER


def key(*parts: object) -> str:
    """Return the name under which a result of these parts is stored; another release does not share it."""
    text = json.dumps([_release(), *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def load(name: str) -> dict[str, Array] | None:
    """Return stored arrays, None if there are none that can be believed."""
    place = folder()
    if place is None:
        return None
    try:
        if not _is_own(place):
            return None
        with (place / f"{name}.statistics").open("rb") as file:
            if not _is_own(file.fileno()) or os.fstat(file.fileno()).st_size > LIMIT_BYTES:
                return None
            content = file.read()
        start = len(_head(name, b""))
        return _unpack(content[start:]) if content.startswith(_head(name, content[start:])) else None
    except (OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, zipfile.BadZipFile):
        return None


def store(name: str, arrays: dict[str, Array]) -> None:
    """Keep arrays, atomically; a folder that cannot be written is no error."""
    place = folder()
    if place is None or sum(array.nbytes for array in arrays.values()) > LIMIT_BYTES // 4:
        return
    with suppress(OSError, ValueError, MemoryError):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_own(place):
            return
        sweep(place)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy types allow_pickle among them
        draft = place / draft_name()
        try:
            with create(draft) as file:
                file.write(_head(name, buffer.getbuffer()))
                file.write(buffer.getbuffer())
            draft.replace(place / f"{name}.statistics")
        finally:
            draft.unlink(missing_ok=True)
        _evict(place)


def _head(name: str, content: bytes | memoryview) -> bytes:
    return _MAGIC + f"{name} {hashlib.sha256(content).hexdigest()}\n".encode()


def _unpack(content: bytes) -> dict[str, Array] | None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > LIMIT_BYTES:
            return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {entry: arrays[entry] for entry in arrays.files}


def _is_own(place: Path | int) -> bool:
    """Tell whether a folder or open file belongs to this user, and nobody else may write into it."""
    found = os.fstat(place) if isinstance(place, int) else place.stat()
    if not hasattr(os, "geteuid"):
        return True
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)


def _evict(place: Path) -> None:
    """Remove the oldest files of ours beyond the limit: regular files with names that only `store` gives."""
    found = []
    for entry in os.scandir(place):
        if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            state = entry.stat(follow_symlinks=False)
            found.append((state.st_mtime, state.st_size, Path(entry.path)))
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > LIMIT_BYTES:
            path.unlink(missing_ok=True)


@functools.cache
def _release() -> str:
    """Return the version of this package and what else a result depends on."""
    found = [f"onnxprune {__version__}"]
    for package in ("onnxruntime", "numpy"):
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return ", ".join(found)
