"""Statistics kept on disk, so that a second command on the same model and data does not compute them again.

The folder is `ONNXPRUNE_CACHE`, else `onnxprune` in the user's cache folder; `ONNXPRUNE_CACHE=off` keeps nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.types import Array

VERSION = 1
LIMIT_BYTES = 2 << 30
"""The oldest files go when the folder grows beyond this; larger results are not stored."""


def folder() -> Path | None:
    """Return where statistics are kept, None if nowhere."""
    chosen = os.environ.get("ONNXPRUNE_CACHE", "")
    if chosen.lower() in ("off", "0", "none", "false"):
        return None
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "onnxprune"


def key(*parts: Any) -> str:
    """Return the name under which a result of these parts is stored; another release does not share it."""
    text = json.dumps([VERSION, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def load(name: str) -> dict[str, Array] | None:
    """Return stored arrays, None if there are none or the file is damaged."""
    place = folder()
    if place is None:
        return None
    try:
        with np.load(place / f"{name}.npz", allow_pickle=False) as arrays:
            return {entry: arrays[entry] for entry in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def store(name: str, arrays: dict[str, Array]) -> None:
    """Keep arrays, atomically; a folder that cannot be written is no error."""
    place = folder()
    if place is None or sum(array.nbytes for array in arrays.values()) > LIMIT_BYTES // 4:
        return
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=place)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            Path(temporary).replace(place / f"{name}.npz")
        finally:
            Path(temporary).unlink(missing_ok=True)
        _evict(place)


def _evict(place: Path) -> None:
    files = sorted(place.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > LIMIT_BYTES:
            file.unlink(missing_ok=True)
