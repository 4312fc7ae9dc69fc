"""How close two sets of outputs are: sums over samples, so that nothing has to be kept in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.evidence.centred import Centred, log_odds
from onnxprune.evidence.classes import Classes
from onnxprune.evidence.kinds import LABELS, SCORES, VALUES, Kind
from onnxprune.evidence.slice_differences import SliceDifferences
from onnxprune.types import Array, BoolArray

SQNR_LIMIT_DB = 300.0
"""Identical outputs read +300 dB and hopeless ones -300 dB, so that figures stay finite (and valid JSON)."""


@dataclass(frozen=True)
class Parity:
    """How close one output is to the reference.

    cosine: of all values of all samples as one vector, in [-1, 1].
    sqnr_db: 10 log10 of (energy of the reference / energy of the difference), in [-300, 300].
    max_abs: the largest difference; None if a value is no number on either side.
    agreement: share of positions with the same top-1 class, for scores over classes; share of equal values for
        integers that are labels; None where the output has no classes.
    centred_cosine: cosine after the reference's mean over samples is taken from both: what all samples share does not
        make it near 1. None with fewer than two samples, or where the reference does not vary.
    log_odds_cosine: the same of log(p / (1 - p)), for probabilities.
    kind: what the output is, see `onnxprune.evidence.kinds`.
    not_finite: (reference, other) share of values that are NaN or infinite; minus infinity in the same place of both
        sides is none.
    judged_at: tensors before a sort that the figures are of; empty where they are of the output itself.
    top1: the agreement that there would be if an output were scores whose values do not look like it: for a limit that
        the user sets on it all the same.
    """

    cosine: float
    sqnr_db: float
    max_abs: float | None
    agreement: float | None
    centred_cosine: float | None = None
    log_odds_cosine: float | None = None
    kind: str = VALUES
    not_finite: tuple[float, float] = (0.0, 0.0)
    judged_at: tuple[str, ...] = ()
    top1: float | None = None

    @property
    def is_finite(self) -> bool:
        """Every value on both sides is a number."""
        return not any(self.not_finite)

    def to_json(self) -> dict[str, Any]:
        """Return the figures rounded to what they are worth; None for what cannot be said."""
        names = ("cosine", "sqnr_db", "max_abs", "agreement", "centred_cosine", "log_odds_cosine")
        figures: dict[str, Any] = {name: _rounded(getattr(self, name)) for name in names}
        figures["kind"] = self.kind
        if not self.is_finite:
            figures["not_finite"] = dict(zip(("original", "compressed"), map(_rounded, self.not_finite), strict=True))
        if self.judged_at:
            figures["judged_at"] = list(self.judged_at)
        return figures


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.8g}")


class Meter:
    """Collects one output over samples.

    kind: what the output is; None guesses from the array (floats are scores, on axis 1 of maps, else on the last).
    slices: looks at parts of the output as well, for the relative error.
    """

    def __init__(self, kind: Kind | None = None, slices: SliceDifferences | None = None) -> None:
        self._kind = kind
        self._slices = slices
        self._dot = self._reference = self._other = self._error = 0.0
        self._max_abs = self._peak = 0.0
        self._same = self._integers = 0
        self._bad = [0, 0]
        self._broken = 0
        self._numeric = False
        self._classes = Classes()
        self._centred, self._odds = Centred(), Centred()
        self.shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        """The first pair of shapes that differ: such samples cannot be compared."""
        self.elements = 0
        """Values that were compared."""
        self.compared = 0
        """Values among them that are numbers on both sides."""

    def add(self, reference: Array, other: Array) -> None:
        """Take the outputs of one sample in."""
        if reference.shape != other.shape:
            self.shapes = self.shapes or (reference.shape, other.shape)
            return
        self.elements += reference.size
        if reference.dtype.kind in "iub" or reference.dtype.kind not in "fV":
            if self._kind is None or self._kind.name != VALUES:
                self._same += int((reference == other).sum())
                self._integers += reference.size
            if reference.dtype.kind not in "iub":
                return
        self._add_numbers(reference.astype(np.float64), other.astype(np.float64))

    def _add_numbers(self, a: Array, b: Array) -> None:
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        finite = np.isfinite(a) & np.isfinite(b)
        ruled_out = (a == -np.inf) & (b == -np.inf)
        for side, values in enumerate((a, b)):
            self._bad[side] += int((~(np.isfinite(values) | ruled_out)).sum())
        self._broken += int((~finite & ~same).sum())
        self._numeric = True
        self.compared += int(finite.sum())
        if not self._integers:
            self._add_varying(a, b, finite)
        if self._slices is not None:
            self._slices.add(np.where(finite, a, 0.0), np.where(finite, b, 0.0))
        if not finite.all():
            a, b = a[finite], b[finite]
        a, b = a.ravel(), b.ravel()
        error = a - b
        self._dot += float(a @ b)
        self._reference += float(a @ a)
        self._other += float(b @ b)
        self._error += float(error @ error)
        self._max_abs = max(self._max_abs, float(np.abs(error).max(initial=0.0)))
        self._peak = max(self._peak, float(np.abs(a).max(initial=0.0)))

    def _add_varying(self, a: Array, b: Array, finite: BoolArray) -> None:
        kind = self._kind or guess(a)
        axis = kind.axis if kind.axis is not None and kind.axis < a.ndim else a.ndim - 1
        if kind.name == SCORES and a.ndim:
            self._classes.add(a, b, axis)
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
        self._centred.add(a, b, axis)
        if kind.squash in ("softmax", "sigmoid"):
            self._odds.add(log_odds(a), log_odds(b), axis)

    def relative_error(self) -> float:
        """Return the largest difference over the largest reference value.

        Infinite where finiteness differs, NaN where there is no number to compare.
        """
        if self._broken or self.shapes:
            return math.inf
        if self.elements and not self.compared and self._numeric:
            return math.nan
        if not self._peak:
            return math.inf if self._max_abs else 0.0
        return max(self._max_abs / self._peak, self._slices.error(self._peak) if self._slices is not None else 0.0)

    def result(self) -> Parity | None:
        """Return the figures over all samples, or None if shapes differ or there was nothing to compare."""
        if self.shapes or not self.elements:
            return None
        bad = (self._bad[0] / self.elements, self._bad[1] / self.elements)
        kind, agreement = self._agreement()
        if any(bad):
            return Parity(0.0, -SQNR_LIMIT_DB, None, agreement, kind=kind, not_finite=bad)
        return Parity(
            self._cosine(),
            self._sqnr_db(),
            self._max_abs,
            agreement,
            self._centred.cosine(),
            self._odds.cosine(),
            kind,
            top1=self._classes.agreement if agreement is None else None,
        )

    def _agreement(self) -> tuple[str, float | None]:
        """Return what the output is, by its values where the graph leaves it open, and the agreement that fits."""
        name = self._kind.name if self._kind is not None else LABELS if self._integers else SCORES
        if self._integers:
            return name, self._same / self._integers
        if name != SCORES:
            return name, None
        sure = self._kind is None or self._kind.sure or self._classes.are_likely(self._centred.steady())
        found = self._classes.agreement if sure else None
        return (SCORES, found) if found is not None else (VALUES, None)

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


def guess(array: Array) -> Kind:
    """Return what an output is taken for when nothing is known but its values."""
    return Kind(SCORES, 1 if array.ndim >= 4 else max(array.ndim - 1, 0))


class Meters:
    """One meter for each output name.

    kinds: what the outputs are, where it is known.
    slices: look at parts of the outputs as well, for relative errors.
    """

    def __init__(self, kinds: Mapping[str, Kind] | None = None, slices: bool = False) -> None:
        self._kinds = dict(kinds or {})
        self._slices = slices
        self._meters: dict[str, Meter] = {}

    def add(self, reference: Mapping[str, Array], other: Mapping[str, Array]) -> None:
        """Take one sample in; outputs are matched by name, and those of one side only are left out."""
        for name in reference:
            if name in other:
                if name not in self._meters:
                    self._meters[name] = Meter(self._kinds.get(name), SliceDifferences() if self._slices else None)
                self._meters[name].add(reference[name], other[name])

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
