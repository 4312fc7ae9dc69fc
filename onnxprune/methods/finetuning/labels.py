"""Labels of samples: read, counted against the data, and as a loss reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from onnxprune.compensate.ctc import tables
from onnxprune.errors import DataError
from onnxprune.statistics.data import Data
from onnxprune.statistics.sources import read_arrays
from onnxprune.statistics.split import places, read_in_all
from onnxprune.types import Array

LEAST_CHANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of samples, in their order; `ready` turns those of a run into what a loss reads."""

    values: Array
    criterion: str
    ready: Callable[[Array], Array]

    @property
    def can_mix(self) -> bool:
        """Whether the mean of two labels is one."""
        return self.criterion in ("cross-entropy", "mse", "bce")

    @property
    def chance(self) -> float:
        """What the best answer loses that is the same for every sample; 1 where that is nothing."""
        values = self.values.astype(np.float64)
        if self.criterion == "mse":
            loss = float(values.var(axis=0).mean())
        elif self.criterion == "bce":
            shares = values.mean(axis=0)
            loss = float(_entropy(shares) + _entropy(1 - shares)) / max(shares.size, 1)
        elif self.values.dtype.kind == "f":
            loss = _entropy(values.mean(axis=tuple(axis for axis in range(values.ndim) if axis != 1)))
        else:
            found = self.values[self.values >= 0]  # of sequences: -1 stands behind the last
            loss = _entropy(np.unique(found, return_counts=True)[1] / max(found.size, 1))
            loss *= found.size / max(self.values.size, 1)
        return loss if loss > LEAST_CHANCE else 1.0


def _entropy(shares: Array) -> float:
    return float(-(shares * np.log(np.clip(shares, 1e-30, 1))).sum())


def read_labels(given: object) -> Array:
    """Return labels out of a .npy or .npz:KEY file, a .csv with one a line (its last column), or an array.

    Raises:
        DataError: they cannot be read.
    """
    if not isinstance(given, str | Path):
        return np.asarray(given)
    file, colon, key = str(given).rpartition(":")
    path = Path(file) if colon and file.endswith(".npz") else Path(given)
    if not path.is_file():
        raise DataError(f"labels '{given}' do not exist; give .npy, .npz:KEY or .csv.")
    if path.suffix == ".csv":
        return _csv(path)
    arrays = read_arrays(path)
    if path.suffix == ".npy":
        return np.asarray(arrays["arr_0"])
    names = [name for name in arrays if not name.startswith("_")]
    name = key if colon and path != Path(given) else names[0] if len(names) == 1 else ""
    if name not in arrays:
        raise DataError(f"labels '{path}': has {', '.join(arrays)}; say which: {path}:KEY.")
    return arrays[name]


def _csv(path: Path) -> Array:
    try:
        cells = [line.rpartition(",")[2].strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"labels '{path}' cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if cells and not _is_number(cells[0]):
        cells = cells[1:]
    bad = next((number for number, cell in enumerate(cells, 1) if not _is_number(cell)), None)
    if bad is not None or not cells:
        raise DataError(f"labels '{path}': label {bad or 1} is no number; give one number a line, in the last column.")
    numbers = np.array([float(cell) for cell in cells])
    return numbers.astype(np.int64) if all(cell.lstrip("+-").isdigit() for cell in cells) else numbers


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def labels_of(given: object, data: Data, samples: int | None) -> Array:
    """Return the labels of the samples of the data, which may be a part of what was read.

    Args:
        samples: the user wanted only so many of the data, so labels may be more.

    Raises:
        DataError: there are not as many labels as samples.
    """
    values, count = read_labels(given), read_in_all(data)
    have = len(values) if values.ndim else 0
    if have < count or (have > count and samples is None):
        raise DataError(f"there are {have} labels and {count} samples; give one label for each sample, in their order.")
    return np.asarray(values[places(data)])


def fitted(
    values: Array, shape: tuple[int, ...], criterion: str | None, output: str, at: Array | None = None
) -> Labels:
    """Return labels for an output, (samples, ..) as `shape` says, classes along axis 1.

    Args:
        at: (samples,) which of the labels that were given these are, for messages.

    Raises:
        DataError: their shape, type or values do not fit.
    """
    if values.dtype.kind not in "fiub":
        raise DataError(f"labels are {values.dtype}; give numbers.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("labels have NaN or infinite values; clean them.")
    whole = values.dtype.kind in "iub"
    criterion = criterion or ("cross-entropy" if whole and len(shape) > 1 else "mse")
    one = tuple(shape[1:])
    if criterion == "cross-entropy" and whole:
        if values.ndim == len(shape) and 1 in values.shape[1:2]:
            values = values[:, 0]
        _check_shape(values, (*one[1:],), output)
        wrong = np.argwhere((values < 0) | (values >= one[0]))
        if len(wrong):
            number = _place(wrong[0][0], at)
            raise DataError(
                f"label {values[tuple(wrong[0])]} of sample {number} is outside the {one[0]} classes of '{output}'."
            )
        return Labels(values.astype(np.int64), criterion, partial(_one_hot, classes=one[0]))
    if values.ndim < len(shape) and int(np.prod(one)) == int(np.prod(values.shape[1:])):
        values = values.reshape(len(values), *one)
    _check_shape(values, one, output)
    if criterion != "mse" and len(values) and not 0 <= values.min() <= values.max() <= 1:
        raise DataError(f"labels of {criterion} are shares from 0 to 1, not {values.min()} to {values.max()}.")
    return Labels(values.astype(np.float32), criterion, partial(np.asarray, dtype=np.float32))


def fitted_sequences(
    values: Array, shape: tuple[int, ...], steps: int, blank: int, output: str, at: Array | None = None
) -> Labels:
    """Return labels (samples, longest), whole numbers with -1 behind the last, for an output of (.., classes).

    Args:
        shape: of the output. steps: how many there are.
        at: (samples,) which of the labels that were given these are, for messages.

    Raises:
        DataError: their shape, type or values do not fit, or one is longer than the output can say.
    """
    classes = shape[-1]
    if not -classes <= blank < classes:
        raise DataError(f"blank {blank} is outside the {classes} classes of '{output}'.")
    blank %= classes
    if values.dtype.kind not in "iub" or values.ndim != 2 or not values.shape[1]:
        raise DataError(
            f"labels of ctc are {values.dtype} of shape {list(values.shape)}; give whole numbers, (samples, longest), "
            "with -1 behind the last of each."
        )
    values = values.astype(np.int64)
    behind = np.cumsum(values < 0, axis=1) > 0
    wrong = np.argwhere((values >= classes) | (values == blank) | (behind & (values >= 0)) | (values < -1))
    if len(wrong):
        number = _place(wrong[0][0], at)
        raise DataError(
            f"label {values[tuple(wrong[0])]} of sample {number} is the blank, behind a -1, or outside the {classes} "
            f"classes of '{output}'."
        )
    # between two of the same class a blank is needed
    least = (values >= 0).sum(axis=1) + ((values[:, 1:] == values[:, :-1]) & (values[:, 1:] >= 0)).sum(axis=1)
    if len(values) and least.max() > steps:
        number = _place(least.argmax(), at)
        raise DataError(f"the label of sample {number} needs {least.max()} steps, '{output}' has {steps}.")
    return Labels(values, "ctc", partial(tables, classes=classes, blank=blank))


def _place(number: int, at: Array | None) -> int:
    """Return where a label stands among all that were given, some of whose samples are kept for judging."""
    return int(number if at is None else at[number])


def _check_shape(values: Array, wanted: tuple[int, ...], output: str) -> None:
    if values.shape[1:] != wanted:
        raise DataError(
            f"a label has shape {list(values.shape[1:])}, output '{output}' wants {list(wanted)} for each sample."
        )


def _one_hot(values: Array, classes: int) -> Array:
    """Return whole numbers as shares of classes along axis 1; shares stay what they are."""
    if values.dtype.kind == "f":
        return values
    return np.asarray(np.moveaxis(np.eye(classes, dtype=np.float32)[values], -1, 1))
