"""How close two sets of outputs are: sums over samples, so that nothing has to be kept in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.types import Array

SQNR_LIMIT_DB = 300.0
"""Identical outputs read +300 dB and hopeless ones -300 dB, so that figures stay finite (and valid JSON)."""


@dataclass(frozen=True)
class Parity:
    """How close one output is to the reference.

    cosine: of all values of all samples as one vector, in [-1, 1].
    sqnr_db: 10 log10 of (energy of the reference / energy of the difference), in [-300, 300].
    max_abs: the largest difference; None if a value is finite on one side only.
    agreement: share of positions with the same top-1 class, for floats with at least two classes (on axis 1 of maps,
        that is from rank 4 up, else on the last axis); share of equal values for integers; None without classes.
    """

    cosine: float
    sqnr_db: float
    max_abs: float | None
    agreement: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the figures rounded to what they are worth."""
        figures = {"cosine": self.cosine, "sqnr_db": self.sqnr_db, "max_abs": self.max_abs, "agreement": self.agreement}
        return {name: None if value is None else float(f"{value:.8g}") for name, value in figures.items()}


class Meter:
    """Collects one output over samples."""

    def __init__(self) -> None:
        self._dot = self._reference = self._other = self._error = 0.0
        self._max_abs = self._peak = 0.0
        self._same = self._classes = 0
        self._broken = 0
        self.shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        """The first pair of shapes that differ: such samples cannot be compared."""
        self.elements = 0
        """Values that were compared."""

    def add(self, reference: Array, other: Array) -> None:
        """Take the outputs of one sample in; a NaN or an infinity in the same place on both sides counts as equal."""
        if reference.shape != other.shape:
            self.shapes = self.shapes or (reference.shape, other.shape)
            return
        self.elements += reference.size
        if reference.dtype.kind not in "fiub" and reference.dtype.kind != "V":
            self._same += int((reference == other).sum())
            self._classes += reference.size
            return
        self._count_classes(reference, other)
        a, b = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        finite = np.isfinite(a) & np.isfinite(b)
        equal = (a == b) | (np.isnan(a) & np.isnan(b))
        self._broken += int((~finite & ~equal).sum())
        if not finite.all():
            a, b = a[finite], b[finite]
        error = a - b
        self._dot += float(a @ b)
        self._reference += float(a @ a)
        self._other += float(b @ b)
        self._error += float(error @ error)
        self._max_abs = max(self._max_abs, float(np.abs(error).max(initial=0.0)))
        self._peak = max(self._peak, float(np.abs(a).max(initial=0.0)))

    def _count_classes(self, reference: Array, other: Array) -> None:
        if reference.dtype.kind in "iub":
            self._same += int((reference == other).sum())
            self._classes += reference.size
            return
        axis = 1 if reference.ndim >= 4 else reference.ndim - 1
        if reference.size == 0 or reference.ndim == 0 or reference.shape[axis] < 2:
            return
        same = reference.argmax(axis) == other.argmax(axis)
        self._same += int(same.sum())
        self._classes += same.size

    def relative_error(self) -> float:
        """Return the largest difference over the largest reference value (infinite where finiteness differs)."""
        if self._broken or self.shapes:
            return math.inf
        return self._max_abs / self._peak if self._peak else (math.inf if self._max_abs else 0.0)

    def result(self) -> Parity | None:
        """Return the figures over all samples, or None if shapes differ or there was nothing to compare."""
        if self.shapes or not self.elements:
            return None
        agreement = self._same / self._classes if self._classes else None
        if self._broken:
            return Parity(0.0, -SQNR_LIMIT_DB, None, agreement)
        return Parity(self._cosine(), self._sqnr_db(), self._max_abs, agreement)

    def _cosine(self) -> float:
        norms = math.sqrt(self._reference) * math.sqrt(self._other)
        if not norms:
            return 1.0 if self._error == 0 else 0.0
        return max(-1.0, min(1.0, self._dot / norms))

    def _sqnr_db(self) -> float:
        if self._error == 0:
            return SQNR_LIMIT_DB
        if self._reference == 0:
            return -SQNR_LIMIT_DB
        ratio = math.log10(self._reference) - math.log10(self._error)
        return max(-SQNR_LIMIT_DB, min(SQNR_LIMIT_DB, 10 * ratio))


class Meters:
    """One meter for each output name."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def add(self, reference: Mapping[str, Array], other: Mapping[str, Array]) -> None:
        """Take one sample in; outputs are matched by name, and those of one side only are left out."""
        for name in reference:
            if name in other:
                self._meters.setdefault(name, Meter()).add(reference[name], other[name])

    def results(self) -> dict[str, Parity | None]:
        """Return the figures of every output."""
        return {name: meter.result() for name, meter in self._meters.items()}

    def relative_errors(self) -> dict[str, float]:
        """Return the relative error of every output."""
        return {name: meter.relative_error() for name, meter in self._meters.items()}

    def empty(self) -> list[str]:
        """Return the outputs that never held a value."""
        return [name for name, meter in self._meters.items() if not meter.elements and not meter.shapes]

    def shapes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Return the outputs whose shapes differ, with both shapes."""
        return {name: meter.shapes for name, meter in self._meters.items() if meter.shapes}


class Variety:
    """Tells whether outputs depend on the inputs at all: constant ones would agree with almost anything."""

    def __init__(self) -> None:
        self._seen: dict[tuple[tuple[int, ...], ...], Mapping[str, Array]] = {}
        self._compared = self._varied = False

    def add(self, outputs: Mapping[str, Array]) -> None:
        """Take the outputs of one sample in."""
        shapes = tuple(array.shape for array in outputs.values())
        first = self._seen.setdefault(shapes, outputs)
        if first is not outputs:
            self._compared = True
            self._varied = self._varied or any(first[name].tobytes() != outputs[name].tobytes() for name in outputs)

    @property
    def is_missing(self) -> bool:
        """Samples could be compared with each other, and all of them were alike."""
        return self._compared and not self._varied
