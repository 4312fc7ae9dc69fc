"""Grids of stored integers: which values a weight may take, and how its codes are laid out in the file.

A weight is (code - zero point) * scale; scale and zero point stay as they are. Steps change a float master of it, the
network reads the master rounded to its grid, and the derivative there is taken for the master's (straight through).
Source: Bengio et al., 2013 (straight-through estimator); Jacob et al., 2018, section 3 (training on integer grids).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxprune.types import Array

MANY_ZEROS = 0.4
"""A share of zeros above this is no work of rounding: they stay zero."""


@dataclass(frozen=True, eq=False)
class CodeGrid:
    """Where a master may stand.

    stored: the tensor of the file. scale, zero: as large as the master, or of size 1 along its axes.
    low, high: of the codes. laid: codes, as large as the master -> the tensor of the file.
    """

    stored: str
    scale: Array
    zero: Array
    low: int
    high: int
    laid: Callable[[Array], Array]

    def codes(self, values: Array) -> Array:
        """Return the nearest codes, whole numbers as doubles."""
        found = np.rint(values.astype(np.float64) / self.scale + self.zero)
        return np.asarray(np.clip(found, self.low, self.high))

    def values(self, codes: Array) -> Array:
        """Return what codes stand for, as DequantizeLinear computes it."""
        return np.asarray((codes - self.zero).astype(np.float32) * self.scale.astype(np.float32))

    def rounded(self, values: Array) -> Array:
        """Return the nearest values on the grid."""
        return self.values(self.codes(values))


def code_range(kind: np.dtype[np.generic]) -> tuple[int, int] | None:
    """Return the least and the largest code of an integer type, `ml_dtypes` of a few bits among them."""
    found = re.fullmatch(r"(u?)int(\d+)", kind.name)
    if found is None:
        return None
    bits = int(found[2])
    return (0, 2**bits - 1) if found[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def packed(codes: Array, bits: int) -> Array:
    """Return codes along the last axis as bytes; see `codes_of`."""
    if bits == 8:
        return codes.astype(np.uint8)
    parts = codes.astype(np.uint8).reshape(*codes.shape[:-1], -1, 8 // bits)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(parts << shifts, axis=-1))
