"""Sums over the positions of a tensor that tell how its channels behave: mean, size, variance, zeros, Gram matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.types import Array, FloatArray

BLOCK_ROWS = 8192
FEW_ROWS = 256
"""A product of fewer rows takes as long to read and write the sums as to multiply: they wait for others."""


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """What a tensor looks like along one axis, over samples and all other axes.

    count: number of positions (rows).
    mean, abs_mean, variance, zero_share: (channels,).
    gram: (channels, channels) second moment X X^T / count; None if it was not asked for.
    """

    axis: int
    count: int
    mean: FloatArray
    abs_mean: FloatArray
    variance: FloatArray
    zero_share: FloatArray
    gram: FloatArray | None = None

    @property
    def covariance(self) -> FloatArray:
        """(channels, channels) second moment of the centred channels.

        Raises:
            ValueError: no Gram matrix was collected.
        """
        if self.gram is None:
            raise ValueError("no Gram matrix was collected")
        return np.asarray(self.gram - np.outer(self.mean, self.mean))


@dataclass(frozen=True, eq=False)
class Sums:
    """What was added up over the rows of a tensor; sums of parts of the data are added in a fixed order.

    axis: where its channels stand. count: number of rows.
    rows: (4, channels) sums of values, absolute values, squares, zeros.
    gram: (channels, channels) sum of products; None if it was not asked for.
    """

    axis: int
    count: int
    rows: FloatArray
    gram: FloatArray | None = None

    def plus(self, other: Sums) -> Sums:
        """Return the sums over both.

        Raises:
            ValueError: they are of tensors that differ.
        """
        if self.axis != other.axis or self.rows.shape != other.rows.shape or self.has_gram != other.has_gram:
            raise ValueError("sums of tensors that differ")
        gram = None if self.gram is None or other.gram is None else self.gram + other.gram
        return Sums(self.axis, self.count + other.count, self.rows + other.rows, gram)

    @property
    def has_gram(self) -> bool:
        """Whether products were added up."""
        return self.gram is not None

    def statistics(self) -> ChannelStatistics:
        """Return means out of the sums."""
        mean, abs_mean, square, zeros = self.rows / self.count
        gram = self.gram / self.count if self.gram is not None else None
        variance = np.maximum(square - mean**2, 0.0)
        return ChannelStatistics(self.axis, self.count, mean, abs_mean, variance, zeros, gram)


class Accumulator:
    """Adds up batches; products of a block in float32, sums in float64."""

    def __init__(self, axis: int, *, gram: bool) -> None:
        self._axis, self._wants_gram = axis, gram
        self._count = 0
        self._sums: FloatArray | None = None
        self._gram: FloatArray | None = None
        self._waiting: list[Array] = []

    def add(self, array: Array, axis: int | None = None) -> None:
        """Add one batch; channels stand on the axis (None: the usual one)."""
        axis = self._axis if axis is None else axis
        self.add_rows(np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]))

    def add_rows(self, rows: Array) -> None:
        """Add rows of shape (positions, channels)."""
        channels = rows.shape[1]
        if self._sums is None:
            self._sums = np.zeros((4, channels))
            self._gram = np.zeros((channels, channels)) if self._wants_gram else None
        self._count += len(rows)
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS].astype(np.float32, copy=False)
            if len(block) < FEW_ROWS:
                self._waiting.append(np.array(block))
                if sum(map(len, self._waiting)) >= FEW_ROWS:
                    self._multiply_waiting()
            else:
                self._multiply(block)

    def _multiply_waiting(self) -> None:
        if self._waiting:
            self._multiply(np.concatenate(self._waiting))
            self._waiting = []

    def _multiply(self, block: Array) -> None:
        if self._sums is None:
            raise ValueError("there are no sums to add to")
        size = np.abs(block)
        self._sums[0] += block.sum(0, dtype=np.float64)
        self._sums[1] += size.sum(0, dtype=np.float64)
        self._sums[2] += np.einsum("rc,rc->c", block, block, dtype=np.float64)
        self._sums[3] += (size == 0).sum(0)
        if self._gram is not None:
            self._gram += block.T @ block

    def sums(self) -> Sums:
        """Return the sums of what was added.

        Raises:
            ValueError: nothing was added.
        """
        if self._sums is None or not self._count:
            raise ValueError("no rows were added")
        self._multiply_waiting()
        return Sums(self._axis, self._count, self._sums, self._gram)

    def result(self) -> ChannelStatistics:
        """Return the statistics of what was added.

        Raises:
            ValueError: nothing was added.
        """
        return self.sums().statistics()
