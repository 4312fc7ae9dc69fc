"""What reports show of residual branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxprune.report import figures
from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table

MOST_OPERATORS = 4


def branches(report: Report) -> Iterator[Section]:
    """Show the branches that a model has."""
    found = report.details.get("branches")
    if not found:
        return
    headers = ("branch", "operators", "note", "MACs", "parameters", "time, predicted")
    free = sum(line["droppable"] for line in found)
    title = f"Residual branches: {len(found)}, {free} of which can be dropped (prune --drop NAME)"
    yield Section(title, table=Table(headers, tuple(_row(line) for line in found), numbers=3))


def dropped(report: Report) -> Iterator[Section]:
    """Show the branches that went."""
    found = report.details.get("dropped")
    if found:
        count, instead = len(found["branches"]), found.get("substitutes", {})
        names = (f"{name} ({instead[name]} instead)" if name in instead else name for name in found["branches"])
        yield Section("", (f"Dropped {count} branch{'es' * (count > 1)}: {', '.join(names)}.",))


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = list(line["operators"].items())
    shown = ", ".join(f"{count} {name}" for name, count in kinds[:MOST_OPERATORS])
    more = ", .." if len(kinds) > MOST_OPERATORS else ""
    share = f"{100 * line['time_share']:.1f} %"
    return (
        line["name"],
        shown + more,
        line["reason"] or "",
        figures.count(line["macs"]),
        figures.count(line["params"]),
        share,
    )
