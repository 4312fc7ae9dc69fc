"""Positions as people write them: `0-3,7`, labels, or a file of either."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.methods.trimming.spellings import Spec
from onnxprune.types import BoolArray

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def items(spec: Spec, what: str) -> tuple[str | int, ...]:
    """Return the entries of a specification: numbers and labels, ranges spelled out; `@FILE` has one entry a line.

    Args:
        spec: `"0-3,7"`, `"person,car"`, `"@classes.txt"`, or a sequence of numbers and labels.
        what: named in errors.

    Raises:
        UsageError: a file cannot be read, a range runs backwards, or there is no entry.
    """
    if isinstance(spec, int):
        entries: list[str | int] = [spec]
    elif not isinstance(spec, str | Iterable):
        raise UsageError(f"{what}: {spec!r} is no list of positions; give 0-3,7, labels, or @FILE.")
    elif not isinstance(spec, str):
        entries = list(spec)
    elif spec.startswith("@"):
        entries = [entry for line in _lines(Path(spec[1:]), what) for entry in _spelled(line, what)]
    else:
        entries = [entry for word in spec.split(",") for entry in _spelled(word.strip() or word, what)]
    found = tuple(entry for entry in entries if entry != "")
    if not found:
        raise UsageError(f"{what}: nothing is kept; name at least one position.")
    return found


def _lines(path: Path, what: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{what}: '{path}' cannot be read ({reason}).") from error


def _spelled(word: str, what: str) -> list[str | int]:
    match = _RANGE.fullmatch(word)
    if match is None:
        return [word]
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UsageError(f"{what}: '{word}' runs backwards; write {last}-{first}.")
    return list(range(first, last + 1))


def positions(entries: Sequence[str | int], size: int, labels: Sequence[str] | None, what: str) -> BoolArray:
    """Return (size,) True for every position that is named.

    Args:
        entries: numbers and labels, see `items`. A label wins over a number that is written the same.
        size: positions of the axis.
        labels: one label a position; equal labels name all of their positions. None where there are none.
        what: named in errors.

    Raises:
        UsageError: a number outside the axis, or a label that does not exist.
    """
    table: dict[str, list[int]] = {}
    for number, label in enumerate(labels or ()):
        table.setdefault(label, []).append(number)
    kept = np.zeros(size, dtype=bool)
    for entry in entries:
        if str(entry) in table:
            kept[table[str(entry)]] = True
        elif isinstance(entry, int):
            if not 0 <= entry < size:
                raise UsageError(f"{what}: position {entry} is outside the axis, which has {size} (0 to {size - 1}).")
            kept[entry] = True
        else:
            raise UsageError(f"{what}: there is no label '{entry}'{_hint(entry, table)}.")
    return kept


def _hint(entry: str, table: dict[str, list[int]]) -> str:
    if not table:
        return "; the axis has no labels: give numbers, a file of labels, or the metadata key that holds them"
    close = difflib.get_close_matches(entry, table, n=3, cutoff=0.5)
    return f"; near are {', '.join(repr(name) for name in close)}" if close else f" among {len(table)}"


def split_target(text: str) -> tuple[str, str]:
    """Split `NAME=VALUE`; the name may hold colons, not an equals sign.

    Raises:
        UsageError: there is no equals sign, or nothing on a side of it.
    """
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageError(f"'{text}' is not like NAME=VALUE.")
    return name, value
