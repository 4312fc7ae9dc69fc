"""A table of vectors, of which Gather looks rows up, as a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.operators.layouts import Rows
from onnxprune.types import Array


@dataclass(frozen=True)
class LookupTable:
    """y[..] = table[index[..]]: (rows, width)."""

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        rows, width = shape
        return 1, rows, width

    def matrix(self, weight: Array) -> Array:
        return np.asarray(weight, np.float64)[None]

    def weight(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        return matrix.reshape(shape)

    def inputs(self, x: Array, y_shape: tuple[int, ...]) -> Rows:
        raise NotImplementedError("a table multiplies nothing")

    def outputs(self, y: Array) -> Array:
        return y.reshape(1, -1, y.shape[-1])
