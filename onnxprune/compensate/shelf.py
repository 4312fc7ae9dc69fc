"""Where activations wait for the layers that need them: in memory up to a bound, beyond it in files."""

from __future__ import annotations

import sys
import tempfile
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.files.scratch import scratch_folder
from onnxprune.types import Array

MODE: Literal["r"] | None = None if sys.platform == "win32" else "r"
"""Files are mapped, except where a mapped one cannot be removed."""


@dataclass(eq=False)
class Parcel:
    """One array on a shelf: at hand, or in a file that goes when nobody holds the parcel."""

    array: Array | None
    path: Path | None = None

    def open(self) -> Array:
        """Return the array."""
        if self.array is not None:
            return self.array
        return np.asarray(np.load(str(self.path), mmap_mode=MODE))


@dataclass(eq=False)
class Shelf:
    """Holds arrays; what comes when `limit` bytes are taken goes to files of a temporary folder.

    limit: None, there is no bound.
    spilled: bytes that went to files so far.
    """

    limit: int | None = None
    taken: int = 0
    spilled: int = 0
    _folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    def put(self, array: Array) -> Parcel:
        """Take an array.

        Raises:
            ModelError: the temporary folder is full.
        """
        if self.limit is None or array.dtype.hasobject or self.taken + array.nbytes <= self.limit:
            parcel = Parcel(array)
            self.taken += array.nbytes
            weakref.finalize(parcel, self._give_back, array.nbytes)
            return parcel
        path = self._write(array)
        parcel = Parcel(None, path)
        weakref.finalize(parcel, path.unlink, missing_ok=True)
        return parcel

    def _give_back(self, size: int) -> None:
        self.taken -= size

    def _write(self, array: Array) -> Path:
        if self._folder is None:
            self._folder = scratch_folder()
        path = Path(self._folder.name) / f"{self.spilled}.npy"
        try:
            with path.open("wb") as file:
                np.save(file, array)
        except OSError as error:
            raise ModelError(
                f"activations beyond --memory do not fit into '{path.parent}' ({error.strerror or error}); "
                "raise --memory, use fewer --samples, or set TMPDIR to a larger disk."
            ) from error
        self.spilled += max(array.nbytes, 1)
        return path
