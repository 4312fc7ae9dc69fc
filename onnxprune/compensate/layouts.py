"""How each kind of reader sees its refit: weights as matrices, activations as rows, one small class a family.

Everything is blocks: weights (groups, outs, features), inputs (groups, rows, features), outputs (groups, rows, outs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import onnx

from onnxprune.statistics.patches import Patches, Window, begin_pads
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


def layout_of(node: onnx.NodeProto, weight: Array, weight_index: int) -> Layout | None:
    """Return how a node multiplies its stored weight, or None if it is no linear reader that can be refitted."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in ("Conv", "ConvTranspose"):
        return _convolution(node.op_type, attributes, weight)
    if weight.ndim != 2:
        return None
    if node.op_type == "MatMul":
        return Dense() if weight_index == 1 else Dense(transposed=True, input_axis=-2, output_axis=-2)
    if node.op_type == "Gemm" and attributes.get("alpha", 1.0):
        scale = float(attributes.get("alpha", 1.0))
        if weight_index == 1:
            axis = 0 if attributes.get("transA") else 1
            return Dense(bool(attributes.get("transB")), axis, 1, scale)
    return None


def _convolution(op_type: str, attributes: dict[str, Any], weight: Array) -> Layout | None:
    axes = weight.ndim - 2
    ones, raw = (1,) * axes, attributes.get("auto_pad", b"NOTSET")
    auto_pad = raw.decode() if isinstance(raw, bytes) else str(raw)
    transposed = op_type == "ConvTranspose"
    if axes < 1 or (transposed and (auto_pad.startswith("SAME") or "output_shape" in attributes)):
        return None
    kernel = weight.shape[2:]

    def ints(name: str) -> tuple[int, ...]:
        return tuple(attributes.get(name) or ones)

    pads = tuple(attributes.get("pads") or (0,) * (2 * axes))
    strides, dilations = ints("strides"), ints("dilations")
    begins = (0,) * axes if auto_pad != "NOTSET" else pads[:axes]
    window = Window(kernel, strides, dilations, begins, transposed)
    return Convolution(window, int(attributes.get("group", 1)), pads, auto_pad)
