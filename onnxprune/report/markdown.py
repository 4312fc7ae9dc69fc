"""A report as Markdown, for the page of a build: verdict, gates, costs."""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.files.shown import one_line
from onnxprune.report import headline
from onnxprune.report.layout import sections
from onnxprune.report.record import Report
from onnxprune.report.section import Table

MOST_ROWS = 20
SHOWN = ("Gates", "Steps", "Latency", "Outputs against", "Candidates", "Tensors", "Nodes")
"""Beginnings of the titles of sections whose tables a summary has; costs have the names of the models."""


def to_markdown(report: Report) -> str:
    """Return a summary of a screen or two; nothing in it is taken for Markdown or HTML but what is meant."""
    model = report.input.path if report.input is not None else None
    parts = [f"### onnxprune {report.command}{f': {_plain(model)}' if model else ''}"]
    status, said = headline.status(report), headline.sentence(report)
    verdict = report.details.get("verdict", {})
    parts += [f"**{_plain(said)}**"] if said else []
    parts += [f"Verdict: **{status}**. {_plain(' '.join(verdict['reasons']))}"] if status else []
    parts += list(_tables(report))
    parts += [f"> warning: {_plain(text)}" for text in report.warnings]
    command = headline.command(report)
    parts += [f"```\n{one_line(command).replace('```', '')}\n```"] if command else []
    known = dict(headline.facts(report))
    made = [known[name] for name in ("date", "versions", "machine") if name in known]
    parts += [_plain("; ".join(made))] if made else []
    return "\n\n".join(parts) + "\n"


def _tables(report: Report) -> Iterator[str]:
    for section in sections(report):
        is_cost = section.picture == "cost"
        if section.table is not None and (is_cost or (section.title and section.title.startswith(SHOWN))):
            yield _table(section.table)


def _table(table: Table) -> str:
    rule = " | ".join("---:" if index >= table.numbers else "---" for index in range(len(table.headers)))
    rows = [table.headers, *table.rows[:MOST_ROWS]]
    lines = [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]
    lines.insert(1, f"| {rule} |")
    more = len(table.rows) - MOST_ROWS
    return "\n".join(lines) + (f"\n\n{more} more rows: see the report." if more > 0 else "")


def _plain(text: str) -> str:
    """Return a text in which nothing is markup."""
    line = one_line(text).replace("\\", "\\\\")
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{char}" if char in "|`*_[]#!~$@" else char for char in line)
