"""Names of classes in a model's metadata: read in the forms that exporters write, and written back in the same form."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.types import BoolArray

KEYS = ("names", "character", "labels", "classes", "class_names", "id2label", "label_names")
"""Metadata keys under which exporters keep names of classes (YOLO `names`, PP-OCR `character`, ..)."""
LONGEST = 1 << 24
"""Longer values are not read as data."""
BLANK = "blank"
"""The label of what no character stands for, before (CTC) the characters of an axis."""


@dataclass(frozen=True)
class AxisLabels:
    """Names of the positions of an axis.

    names: one a position of the axis. first: the position of the first name that the metadata list.
    listed: how many they list. key: where they are listed, "" for labels that the user gave.
    """

    names: tuple[str, ...]
    first: int
    listed: int
    key: str = ""


def read_labels(model: onnx.ModelProto, size: int, key: str | None) -> AxisLabels | None:
    """Return the names that the metadata give to an axis of `size` positions, None where none fit.

    A list shorter than the axis leaves positions over: two or fewer are a CTC blank before the characters (and a space
    after them, as PP-OCR has it), more are the coordinates of boxes before the classes (YOLO).
    """
    table = {entry.key: entry.value for entry in model.metadata_props}
    for name in (key,) if key else KEYS:
        listed = _parse(table[name]) if name in table else None
        if listed is not None and 0 < len(listed.names) <= size:
            return spread(listed.names, size, name)
    return None


def spread(names: Sequence[str], size: int, key: str = "") -> AxisLabels:
    """Lay a list of names over an axis that may have more positions."""
    extra = size - len(names)
    if extra in (1, 2):
        return AxisLabels((BLANK, *names, " ")[:size], 1, len(names), key)
    return AxisLabels((*["boxes"] * extra, *names), extra, len(names), key)


def rewrite_labels(model: onnx.ModelProto, labels: AxisLabels, kept: BoolArray, renumber: bool) -> None:
    """Leave only the kept names in the metadata, in the form that they have there.

    Args:
        kept: (positions of the axis,) True stays.
        renumber: numbers in the metadata count what is left; else they keep what they are (`{2: 'car'}`).
    """
    for entry in model.metadata_props:
        parsed = _parse(entry.value) if entry.key == labels.key else None
        if parsed is not None:
            chosen = np.flatnonzero(kept[labels.first : labels.first + labels.listed])
            numbers = range(len(chosen)) if renumber else chosen.tolist()
            names = {number: parsed.names[place] for number, place in zip(numbers, chosen, strict=True)}
            entry.value = parsed.text(names)


@dataclass(frozen=True)
class _Listed:
    """Names as the metadata spell them.

    write: makes text of a table or list (JSON, Python); None for plain lines between `mark`, with `end` after the last.
    keys: type of the keys of a table; None for a list.
    """

    names: tuple[str, ...]
    write: Callable[[object], str] | None = None
    keys: type[str] | type[int] | None = None
    mark: str = ""
    end: str = ""

    def text(self, names: dict[int, str]) -> str:
        """Return other names in the same form."""
        if self.write is None:
            return self.mark.join(names.values()) + self.end
        if self.keys is None:
            return self.write(list(names.values()))
        return self.write({self.keys(number): name for number, name in names.items()})


def _parse(text: str) -> _Listed | None:
    for reader, writer in ((json.loads, json.dumps), (ast.literal_eval, repr)):
        try:
            found = _structured(reader(text), writer) if len(text) < LONGEST else None
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if found is not None:
            return found
    for mark in ("\n", ","):
        names = text.split(mark)
        if len(names) > 1:
            end = mark if names[-1] == "" else ""
            return _Listed(tuple(names[:-1] if end else names), mark=mark, end=end)
    return None


def _structured(value: object, write: Callable[[object], str]) -> _Listed | None:
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return _Listed(tuple(value), write)
    if not isinstance(value, dict) or not all(str(key).isdigit() for key in value):
        return None
    numbers = sorted(value, key=int)
    if not numbers or [int(key) for key in numbers] != list(range(len(numbers))):
        return None
    return _Listed(tuple(str(value[key]) for key in numbers), write, str if isinstance(numbers[0], str) else int)
