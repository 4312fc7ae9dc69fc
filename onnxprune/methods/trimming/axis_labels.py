"""Names of classes in a model's metadata: read in the forms that exporters write, and written back in the same form."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.types import BoolArray

KEYS = ("names", "character", "labels", "classes", "class_names", "id2label", "label2id", "label_names", "categories")
"""Metadata keys under which exporters keep names of classes (YOLO `names`, PP-OCR `character`, ..)."""
LONGEST = 1 << 24
"""Longer values are not read as data."""
MARKS = ("\r\n", "\n", ";", "\t", ", ", ",")
"""What stands between the names of a plain list; of those that are there, the one that parts it most counts."""
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
    table = {entry.key: entry.value for entry in model.metadata_props}
    used = _parse(table.get(labels.key, ""))
    for entry in model.metadata_props:
        parsed = _parse(entry.value) if entry.key in (labels.key, *KEYS) else None
        if parsed is not None and used is not None and parsed.names == used.names:  # id2label with its label2id
            chosen = np.flatnonzero(kept[labels.first : labels.first + labels.listed])
            numbers = range(len(chosen)) if renumber else chosen.tolist()
            entry.value = parsed.text(list(zip(numbers, chosen.tolist(), strict=True)))


@dataclass(frozen=True)
class _Listed:
    """Names as the metadata spell them. text: (new number, old place) of those that stay -> the same form again."""

    names: tuple[str, ...]
    text: Callable[[Sequence[tuple[int, int]]], str]


def _parse(text: str) -> _Listed | None:
    for reader, writer in ((json.loads, json.dumps), (ast.literal_eval, repr)):
        try:
            found = _structured(reader(text), writer) if len(text) < LONGEST else None
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if found is not None:
            return found
    counts = {mark: text.count(mark) for mark in MARKS}
    mark = max(MARKS, key=lambda mark: counts[mark])
    if not counts[mark]:
        return None
    names = text.split(mark)
    end = mark if names[-1] == "" else ""
    listed = tuple(names[:-1] if end else names)
    return _Listed(listed, lambda kept: mark.join(listed[place] for _, place in kept) + end)


def _structured(value: object, write: Callable[[object], str]) -> _Listed | None:
    if isinstance(value, list | tuple) and value:
        if all(isinstance(name, str) for name in value):
            return _Listed(tuple(value), lambda kept: write([value[place] for _, place in kept]))
        return _records(value, write)
    if not isinstance(value, dict) or not value:
        return None
    if all(type(number) is int for number in value.values()) and all(isinstance(name, str) for name in value):
        return _numbered({number: name for name, number in value.items()}, lambda n, name: (name, n), write)
    if not all(str(key).isdigit() for key in value):
        return None
    keys = type(next(iter(value)))
    return _numbered({int(key): str(name) for key, name in value.items()}, lambda n, name: (keys(n), name), write)


def _numbered(
    table: dict[int, str], entry: Callable[[int, str], tuple[object, object]], write: Callable[[object], str]
) -> _Listed | None:
    """Names by number; `entry` makes key and value of a number and a name."""
    first = _first(table)
    if first is None:
        return None
    names = tuple(table[first + place] for place in range(len(table)))
    return _Listed(names, lambda kept: write(dict(entry(first + number, names[place]) for number, place in kept)))


def _first(numbers: Collection[int]) -> int | None:
    """Return what names are counted from, 0 or 1; None where numbers are missing."""
    return next((first for first in (0, 1) if set(numbers) == set(range(first, first + len(numbers)))), None)


def _records(value: Sequence[object], write: Callable[[object], str]) -> _Listed | None:
    """Names in records, as annotations of images have them: {"id": 3, "name": "car"}, in the order of the axis."""
    records = [entry for entry in value if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
    if len(records) != len(value):
        return None
    ids = [entry.get("id") for entry in records]
    counted = next((first for first in (0, 1) if ids == list(range(first, first + len(ids)))), None)

    def text(kept: Sequence[tuple[int, int]]) -> str:
        new = [{**records[place], "id": counted + n} if counted is not None else records[place] for n, place in kept]
        return write(new)

    return _Listed(tuple(entry["name"] for entry in records), text)
