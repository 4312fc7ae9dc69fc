"""Data as files of a folder, so that other processes read the same samples in the same pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxprune.statistics.data import Data, Unit


@dataclass(frozen=True)
class StoredUnits:
    """Units one after the other, one file each.

    kinds: names of the inputs, number of samples, and whether they are stacked, of every unit.
    """

    folder: Path
    kinds: tuple[tuple[tuple[str, ...], int, bool], ...]

    def __iter__(self) -> Iterator[Unit]:
        for number, (names, samples, stacked) in enumerate(self.kinds):
            # strings are pickled; the files are our own
            with np.load(self.folder / f"{number}.npz", allow_pickle=True) as arrays:
                yield Unit({name: arrays[f"arr_{i}"] for i, name in enumerate(names)}, samples, stacked)


def store(data: Data, folder: Path) -> Data:
    """Return the same data, read from a folder that they are written to; they can be sent to other processes."""
    kinds = []
    for number, unit in enumerate(data.stream):
        with (folder / f"{number}.npz").open("wb") as file:
            np.savez(file, *unit.feed.values())
        kinds.append((tuple(unit.feed), unit.samples, unit.stacked))
    return replace(data, stream=StoredUnits(folder, tuple(kinds)))
