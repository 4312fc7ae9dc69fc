"""The parts of a report that the terminal and the page both draw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table: columns from index `numbers` on are aligned to the right."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 1


@dataclass(frozen=True)
class Section:
    """A titled part of a report; an empty title starts without one.

    detail: shown with -v and on the page only.
    picture: name of what the page draws above the table (`onnxprune.report.pictures`).
    name: of a section that the page draws in its own way.
    """

    title: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    detail: bool = False
    picture: str = ""
    name: str = ""
