"""How each kind of reader sees its refit: weights as matrices, activations as rows, one small class a family.

Everything is blocks: weights (groups, outs, features), inputs (groups, rows, features), outputs (groups, rows, outs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

import numpy as np

from onnxprune.operators.patches import Patches, Window, begin_pads
from onnxprune.types import Array, IntArray


class Rows(Protocol):
    """Rows of one batch, made when they are asked for."""

    @property
    def count(self) -> int:
        """Number of rows."""
        ...

    def rows(self, indices: IntArray) -> Array:
        """Return (groups, rows, features)."""
        ...


class Layout(Protocol):
    """One kind of linear reader."""

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return groups, outs and features of the matrix of a stored weight of a shape."""
        ...

    def matrix(self, weight: Array) -> Array:
        """Return the stored weight as (groups, outs, features)."""
        ...

    def weight(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        """Return the matrix in the shape of the stored weight: the inverse of `matrix`."""
        ...

    def inputs(self, x: Array, y_shape: tuple[int, ...]) -> Rows:
        """Return the rows of a batch of activations."""
        ...

    def outputs(self, y: Array) -> Array:
        """Return a batch of outputs as (groups, rows, outs)."""
        ...


@dataclass(frozen=True)
class MatrixRows:
    """All rows of a matrix at hand."""

    matrix: Array

    @property
    def count(self) -> int:
        return len(self.matrix)

    def rows(self, indices: IntArray) -> Array:
        return self.matrix[None, indices]


@dataclass(frozen=True)
class Dense:
    """y[.., n] = scale * sum over k of x[.., k] * w[k, n], with the weight or the input transposed."""

    transposed: bool = False
    input_axis: int = -1
    output_axis: int = -1
    scale: float = 1.0

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        outs, features = shape if self.transposed else reversed(shape)
        return 1, outs, features

    def outputs_of(self, weight: Array, outs: slice) -> Array:
        """Return the part of a stored weight that gives some of the outputs."""
        return weight[outs] if self.transposed else weight[:, outs]

    def matrix(self, weight: Array) -> Array:
        return np.asarray(self.scale * (weight if self.transposed else weight.T).astype(np.float64)[None])

    def weight(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        weight = matrix[0] / self.scale
        return np.reshape(weight if self.transposed else weight.T, shape)

    def inputs(self, x: Array, y_shape: tuple[int, ...]) -> Rows:
        x = np.moveaxis(x, self.input_axis, -1)
        return MatrixRows(x.reshape(-1, x.shape[-1]))

    def outputs(self, y: Array) -> Array:
        y = np.moveaxis(y, self.output_axis, -1)
        return y.reshape(1, -1, y.shape[-1])


@dataclass(frozen=True)
class Convolution:
    """y[n, o, p] = sum over c, k of x[n, c, p * stride - pad + k * dilation] * w[o, c, k]; transposed likewise."""

    window: Window
    groups: int
    pads: tuple[int, ...]
    auto_pad: str

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        outs, inner = (
            (shape[1], shape[0] // self.groups) if self.window.transposed else (shape[0] // self.groups, shape[1])
        )
        return self.groups, outs, inner * prod(shape[2:])

    def matrix(self, weight: Array) -> Array:
        taps = weight.reshape(*weight.shape[:2], -1).astype(np.float64)
        if self.window.transposed:
            blocks = taps.reshape(self.groups, -1, *taps.shape[1:])
            return blocks.transpose(0, 2, 3, 1).reshape(self.groups, taps.shape[1], -1)
        return taps.transpose(0, 2, 1).reshape(self.groups, len(taps) // self.groups, -1)

    def weight(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        blocks = matrix.reshape(self.groups, matrix.shape[1], self.window.taps, -1)
        if self.window.transposed:
            return blocks.transpose(0, 3, 1, 2).reshape(shape)
        return blocks.transpose(0, 1, 3, 2).reshape(shape)

    def inputs(self, x: Array, y_shape: tuple[int, ...]) -> Rows:
        window = self.window
        if self.auto_pad.startswith("SAME"):
            begins = begin_pads(self.auto_pad, self.pads, x.shape[2:], window.kernel, window.strides, window.dilations)
            window = replace(window, begins=begins)
        return Patches(x, y_shape[2:], window, self.groups)

    def outputs(self, y: Array) -> Array:
        y = np.moveaxis(y, 1, -1).reshape(-1, self.groups, y.shape[1] // self.groups)
        return np.ascontiguousarray(y.transpose(1, 0, 2))


@dataclass(frozen=True)
class Recurrent:
    """y[d, r] = sum over c of w[d, r, c] * x[c]: the weights of a recurrent layer, one block for each direction."""

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        groups, outs, features = shape
        return groups, outs, features

    def matrix(self, weight: Array) -> Array:
        return weight.astype(np.float64)

    def weight(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        return matrix.reshape(shape)

    def inputs(self, x: Array, y_shape: tuple[int, ...]) -> Rows:
        return MatrixRows(x.reshape(-1, x.shape[-1]))

    def outputs(self, y: Array) -> Array:
        return y.reshape(1, -1, y.shape[-1])
