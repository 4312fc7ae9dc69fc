"""Draws a report as one HTML page that needs nothing else: no script, no external file."""

from __future__ import annotations

from html import escape

from onnxprune.report.layout import sections
from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1d2329; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #dde3e9; text-align: left; overflow-wrap: anywhere; }
th { background: #f3f6f9; } .number { text-align: right; font-variant-numeric: tabular-nums; }
.warning { background: #fff6dd; border-left: 4px solid #e0a800; padding: 0.4rem 0.8rem; margin: 0.5rem 0; }
footer { margin-top: 2.5rem; color: #66707a; font-size: 0.85rem; }
""".strip()


def to_html(report: Report) -> str:
    """Return the page; everything that comes from the model is escaped."""
    warnings = [f'<p class="warning">{escape(text)}</p>' for text in report.warnings]
    body = "\n".join([*warnings, *(_section(section) for section in sections(report))])
    title = f"onnxprune {report.command}"
    digests = [
        f"{escape(side.path or 'model')}: sha256 {side.sha256}"
        for side in (report.input, report.output)
        if side is not None and side.sha256
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        f"<footer>{'<br>'.join(digests)}</footer>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"] if section.title else []
    parts += [f"<p>{escape(line)}</p>" for line in section.lines]
    if section.table:
        parts.append(_table(section.table))
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = _row(table.headers, table.numbers, "th")
    rows = "\n".join(_row(row, table.numbers, "td") for row in table.rows)
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _row(cells: tuple[str, ...], numbers: int, tag: str) -> str:
    drawn = [
        f"<{tag}{' class=number' if index >= numbers else ''}>{escape(cell)}</{tag}>"
        for index, cell in enumerate(cells)
    ]
    return f"<tr>{''.join(drawn)}</tr>"
