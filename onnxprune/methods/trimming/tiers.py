"""Rows of an embedding in few bits, looked up only for ids that are rare: y = levels[id] * scale[id].

`int8` has one byte a number. `int5` packs three numbers of 40 levels into 16 bits (40^3 = 64000), 5.33 bits a number.
Row 0 of either is zero: it is what an id that is not rare looks up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxprune.types import Array

LEVELS = 40
MIDDLE = LEVELS // 2
CLIPS = np.linspace(0.7, 1.0, 7)
"""Shares of the largest number of a row that its outermost level may stand for; the one of least error is taken."""

Op = Callable[..., str]
"""`op(kind, *inputs, **attributes)` adds a node and returns its output; arrays among the inputs are stored."""


@dataclass(frozen=True)
class Tier:
    """One way to keep rows in few bits.

    encode: (rows, width) floats -> stored codes, (rows, 1) scales.
    decode: adds the nodes that turn looked-up codes into integers of width `width` and returns their name.
    """

    encode: Callable[[Array], tuple[Array, Array]]
    decode: Callable[[Op, str, int], str]


def bytes_of(rows: Array) -> tuple[Array, Array]:
    """Return (rows, width) int8 levels and (rows, 1) scales, symmetric, with the largest number at 127."""
    scales = np.max(np.abs(rows), axis=1, keepdims=True, initial=0.0) / 127
    return np.rint(rows / np.where(scales > 0, scales, 1)).astype(np.int8), scales


def packed(rows: Array) -> tuple[Array, Array]:
    """Return (rows, width / 3 rounded up) uint16 codes and (rows, 1) scales."""
    scales, best = np.zeros((len(rows), 1)), np.full((len(rows), 1), np.inf)
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0.0)
    for clip in CLIPS:
        trial = largest * clip / (MIDDLE - 0.5)
        errors = np.square(_levels(rows, trial) * trial - rows).sum(axis=1, keepdims=True)
        scales, best = np.where(errors < best, trial, scales), np.minimum(errors, best)
    width = -(-rows.shape[1] // 3) * 3
    levels = np.full((len(rows), width), MIDDLE, dtype=np.int64)
    levels[:, : rows.shape[1]] = _levels(rows, scales) + MIDDLE
    low, middle, high = np.split(levels, 3, axis=1)
    return (low + LEVELS * middle + LEVELS * LEVELS * high).astype(np.uint16), scales


def _levels(rows: Array, scales: Array) -> Array:
    return np.clip(np.rint(rows / np.where(scales > 0, scales, 1)), -MIDDLE, LEVELS - MIDDLE - 1)


def _unpack(op: Op, codes: str, width: int) -> str:
    base = np.array(LEVELS, dtype=np.int32)
    whole = op("Cast", codes, to=onnx.TensorProto.INT32)
    upper = op("Div", whole, base)
    parts = [op("Mod", whole, base), op("Mod", upper, base), op("Div", upper, base)]
    levels = op("Sub", op("Concat", *parts, axis=-1), np.array(MIDDLE, dtype=np.int32))
    if width % 3 == 0:
        return levels
    bounds: list[Any] = [np.array([value], dtype=np.int64) for value in (0, width, -1)]
    return op("Slice", levels, *bounds)


TIERS = {
    "int8": Tier(bytes_of, lambda op, codes, width: codes),
    "int5": Tier(packed, _unpack),
}
