"""The rows of a stored matrix in pieces, as embeddings may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.graph.model import Model
from onnxprune.types import Array, BoolArray, IntArray

PIECE_BYTES = 1 << 24
CHUNK = 1024
"""Rows that are compared with all kept ones at a time."""

Pieces = Callable[[], Iterator[Array]]
"""Gives consecutive rows of a matrix, (rows of the piece, width), anew at each call."""


@dataclass(frozen=True)
class TableRows:
    """The rows of a stored tensor, by its key in a view."""

    model: Model
    key: str
    tensor: onnx.TensorProto

    def pieces(self) -> Iterator[Array]:
        """Yield consecutive rows, some at a time."""
        rows = self.model.content(self.key, self.tensor)  # a large external one is mapped, not read
        each = max(1, PIECE_BYTES // max(rows[:1].nbytes, 1))
        for start in range(0, len(rows), each):
            yield rows[start : start + each]

    def picked(self, wanted: BoolArray) -> Array:
        """Return the rows where `wanted`, (rows,), is True."""
        return np.concatenate(list(chosen(self.pieces, wanted)))


def chosen(pieces: Pieces, wanted: BoolArray) -> Iterator[Array]:
    """Yield of each piece the rows where `wanted`, (rows,), is True."""
    start = 0
    for piece in pieces():
        yield piece[wanted[start : start + len(piece)]]
        start += len(piece)


def nearest(pieces: Pieces, kept: BoolArray) -> IntArray:
    """Return (rows that go,) the number among the kept rows of the most similar one, by cosine."""
    stay = np.concatenate([_unit(rows) for rows in chosen(pieces, kept)])
    found = [np.zeros(0, dtype=np.int64)]
    for rows in chosen(pieces, ~kept):
        unit = _unit(rows)
        found += [np.argmax(unit[start : start + CHUNK] @ stay.T, axis=1) for start in range(0, len(unit), CHUNK)]
    return np.concatenate(found)


def _unit(rows: Array) -> Array:
    rows = np.asarray(rows, dtype=np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
