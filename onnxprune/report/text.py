"""Draws a report for a terminal (colours, lines) or for a pipe (plain, aligned text)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from onnxprune.files.shown import shown
from onnxprune.report.layout import sections
from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table

if TYPE_CHECKING:
    from rich.console import Console


LEAST_ROWS, LEAST_PREFIX = 3, 8
"""Rows of a table, and letters that they have in common, from which on these are told once."""


def print_report(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Print the sections of a report; those marked as detail only when `verbose`."""
    printed = False
    for section in sections(report):
        if section.detail and not verbose:
            continue
        if printed and (section.title or section.table):
            console.print()
        _print_section(section, console)
        printed = True


def _print_section(section: Section, console: Console) -> None:
    from rich.text import Text

    if section.title:
        console.print(Text(shown(section.title), style="bold"), soft_wrap=True)
    for line in section.lines:
        console.print(Text(shown(line, keep="\n")), soft_wrap=True)
    if section.table:
        if console.is_terminal:
            _print_drawn(section.table, console)
        else:
            _print_aligned(section.table, console)


def _print_drawn(table: Table, console: Console) -> None:
    from rich import box
    from rich.table import Table as DrawnTable
    from rich.text import Text

    prefix = common_prefix([row[0] for row in table.rows])
    drawn = DrawnTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(table.headers):
        is_number = index >= table.numbers
        drawn.add_column(header, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in table.rows:
        drawn.add_row(*(Text(shown(cell)) for cell in (row[0][len(prefix) :], *row[1:])))
    if prefix:
        console.print(Text(f"Names begin with {shown(prefix)}", style="dim"), soft_wrap=True)
    console.print(drawn)


def common_prefix(names: Sequence[str]) -> str:
    """Return what all names begin with, up to a slash or dot, where that is worth leaving out."""
    if len(names) < LEAST_ROWS:
        return ""
    pairs = zip(min(names), max(names), strict=False)  # what the first and the last in order share, all share
    shared = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    end = max(shared.rfind("/"), shared.rfind(".")) + 1
    return shared[:end] if end >= LEAST_PREFIX and all(len(name) > end for name in names) else ""


def _print_aligned(table: Table, console: Console) -> None:
    from rich.text import Text

    rows = [[shown(cell) for cell in row] for row in (table.headers, *table.rows)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.headers))]
    for row in rows:
        cells = [
            cell.rjust(width) if index >= table.numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        console.print(Text("  ".join(cells).rstrip()), soft_wrap=True)
