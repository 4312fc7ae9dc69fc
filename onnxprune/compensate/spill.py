"""New values of weights that are stored in files wait in files too, until the model is written."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.files.scratch import scratch_folder
from onnxprune.graph.mapped import SMALLEST_BYTES
from onnxprune.types import Array


@dataclass(eq=False)
class Spill:
    """Takes arrays and tells how to get them back; the files go when nobody can ask for one any more.

    Small arrays stay in memory, and all of them where a mapped file could not be removed.
    """

    count: int = 0
    _folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)
    _rooms: dict[int, tuple[Array, Path]] = field(default_factory=dict, repr=False)

    def put(self, array: Array) -> Callable[[], Array]:
        """Return what gives an array back, a room that was written to at no cost.

        Raises:
            ModelError: the temporary folder is full.
        """
        place = array.ctypes.data
        if place not in self._rooms:
            if array.nbytes < SMALLEST_BYTES or sys.platform == "win32":
                return lambda: array
            room = self.room(array)
            room[...] = array
            place = room.ctypes.data
        _, path = self._rooms.pop(place)
        return partial(_mapped, path, np.broadcast_to(np.zeros((), array.dtype), array.shape), self._folder)

    def room(self, like: Array) -> Array:
        """Return an array of a file to write to, before it is handed to `put`; a small one is in memory."""
        if like.nbytes < SMALLEST_BYTES or sys.platform == "win32":
            return np.empty(like.shape, like.dtype)
        if self._folder is None:
            self._folder = scratch_folder()
        path = Path(self._folder.name) / f"{self.count}.weights"
        self.count += 1
        _take(path, like.nbytes)
        room = np.memmap(path, like.dtype, "r+", shape=like.shape)
        self._rooms[room.ctypes.data] = room, path
        return room


def _take(path: Path, size: int) -> None:
    """Make a file of zeros: a page of a mapped file that the disk has no room for would end the process."""
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
                return
            for start in range(0, size, SMALLEST_BYTES):
                file.write(bytes(min(SMALLEST_BYTES, size - start)))
    except OSError as error:
        raise ModelError(
            f"new weights do not fit into '{path.parent}' ({error.strerror or error}); free some space, or set TMPDIR "
            "to a larger disk."
        ) from error


def _mapped(path: Path, like: Array, folder: object) -> Array:
    """Return the array of a file; `folder` lives as long as this can be asked for."""
    return np.asarray(np.memmap(path, like.dtype, "r", shape=like.shape))
