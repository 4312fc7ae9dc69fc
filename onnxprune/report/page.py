"""Draws a report as one HTML page that needs nothing else: style, script and pictures are inside."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from onnxprune.report import headline
from onnxprune.report.charts.frame import Chart, written
from onnxprune.report.decision_section import pictures_of
from onnxprune.report.layout import sections
from onnxprune.report.look import SCRIPT, STYLE, policy
from onnxprune.report.pictures import PICTURES
from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table

MOST_ROWS = 300
"""Rows of a table on the page; the rest stands in the JSON report."""
MOST_LETTERS = 140_000
"""Of all tables: names can be long, and a page can be sent to others."""
LINES = frozenset({"grid", "spread", "median", "stem", "front", "bound"})
"""Marks that are drawn as lines."""


def to_html(report: Report) -> str:
    """Return the page; everything that comes from the model is escaped."""
    title = f"onnxprune {report.command}"
    model = report.input.path if report.input is not None else None
    name = f"{title}: {model}" if model else title
    parts = _joined([section for section in sections(report) if section.name not in ("verdict", "left alone")])
    most = MOST_LETTERS // max(1, sum(section.table is not None for section in parts))
    body = "\n".join(_section(section, report, number, most) for number, section in enumerate(parts, 1))
    head = (
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{written(policy())}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{written(name)}</title>\n'
        f"<style>\n{STYLE}\n</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{_header(report, title)}\n'
        f"<main>\n{body}\n</main>\n<footer>Made by onnxprune. The same figures as JSON: --report FILE.json.</footer>\n"
        f"<script>\n{SCRIPT}\n</script>\n</body>\n</html>\n"
    )


def _header(report: Report, title: str) -> str:
    said, status = headline.sentence(report), headline.status(report)
    reasons = report.details.get("verdict", {}).get("reasons", ())
    parts = [f"<h1>{written(title)}</h1>"]
    parts += [f'<p class="lead">{written(said)}</p>'] if said else []
    if status:
        badge = f'<span class="badge {headline.MARKS.get(status, "unsure")}">Verdict: {written(status)}</span>'
        parts.append(f"<p>{badge} {written(' '.join(reasons))}</p>")
    parts += [f'<p class="warning">Warning: {written(text)}</p>' for text in report.warnings]
    known = "".join(f"<dt>{written(name)}</dt><dd>{written(value)}</dd>" for name, value in headline.facts(report))
    parts += [f"<dl>{known}</dl>"] if known else []
    parts += [_block(what, text) for what, text in (("Command", headline.command(report)),) if text]
    recipe = headline.recipe(report)
    if recipe:
        parts.append(f"<details><summary>Recipe that does the same</summary>{_block('Recipe', recipe, True)}</details>")
    return f"<header>\n{chr(10).join(parts)}\n</header>"


def _block(what: str, text: str, lines: bool = False) -> str:
    shown = "\n".join(_kept(line) for line in text.splitlines()) if lines else written(text)
    return f'<pre data-what="{written(what)}">{shown}</pre>'


def _kept(line: str) -> str:
    """Return a line with the spaces before it, which mean something in YAML."""
    bare = line.lstrip(" ")
    return " " * (len(line) - len(bare)) + written(bare)


def _section(section: Section, report: Report, number: int, most: int) -> str:
    draw = PICTURES.get(section.picture)
    chart = draw(report) if draw is not None else None
    title = chart.title if chart is not None else section.title
    parts = [f'<h2 id="s{number}">{written(title)}</h2>'] if title else []
    parts += [f"<p>{written(line)}</p>" for line in section.lines]
    if chart is not None:
        parts.append(_figure(chart, number))
    if section.name == "decisions":
        parts.append(_gallery(pictures_of(report)))
    if section.table is not None:
        name = section.title or title or "Table"
        drawn = _table(section.table, name, most, is_told=chart is None and name == title)
        folded = f"<details><summary>The same as a table</summary>{drawn}</details>"
        parts.append(folded if chart is not None else drawn)
    labelled = f' aria-labelledby="s{number}"' if title else ""
    return f"<section{labelled}>\n{chr(10).join(parts)}\n</section>"


def _joined(parts: list[Section]) -> list[Section]:
    """Return the sections with lines that stand alone put to the section that follows."""
    joined: list[Section] = []
    waiting: tuple[str, ...] = ()
    for part in parts:
        if not part.title and part.table is None:
            waiting += part.lines
            continue
        joined.append(replace(part, lines=(*waiting, *part.lines)))
        waiting = ()
    return [*joined, Section("", waiting)] if waiting else joined


def _figure(chart: Chart, number: int) -> str:
    caption = f"<figcaption>{written(chart.description)}</figcaption>"
    drawn = (
        f'<svg role="img" aria-labelledby="t{number} d{number}" width="100%" height="{chart.height}">'
        f'<title id="t{number}">{written(chart.title)}</title><desc id="d{number}">{written(chart.description)}</desc>'
        f"{chart.body}</svg>"
    )
    keys = "".join(f"<li>{_key(mark)}{written(meaning)}</li>" for mark, meaning in chart.legend)
    return f'<figure>{caption}{drawn}<ul class="legend">{keys}</ul></figure>'


def _gallery(pictures: list[tuple[str, str]]) -> str:
    """Return small pictures with what is seen on them; nothing where there are none, or one is no picture of ours."""
    sound = [(data, told) for data, told in pictures if data.startswith("data:image/png;base64,")]
    items = (f'<li><img src="{escape(data)}" alt=""><span>{written(told)}</span></li>' for data, told in sound)
    return f'<ul class="gallery">{"".join(items)}</ul>' if sound else ""


def _key(mark: str) -> str:
    if mark in LINES:
        shape = f'<line class="{mark}" x1="0" x2="14" y1="7" y2="7"/>'
    elif mark.startswith("dot"):
        shape = f'<circle class="{mark}" cx="7" cy="7" r="5"/>'
    else:
        shape = f'<rect class="{mark}" x="1" y="1" width="12" height="12" rx="2"/>'
    return f'<svg aria-hidden="true">{shape}</svg>'


def _table(table: Table, caption: str, most: int, is_told: bool = False) -> str:
    head = "".join(_cell("th", cell, index >= table.numbers, "col") for index, cell in enumerate(table.headers))
    rows, letters = [], 0
    for row in table.rows[:MOST_ROWS]:
        drawn = _row(row, table.numbers)
        letters += len(drawn)
        if letters > most:
            break
        rows.append(drawn)
    left = len(table.rows) - len(rows)
    more = f"<p>{left} more rows: see the JSON report.</p>" if left else ""
    name = written(caption)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}"><table>'
        f"<caption{' class=unseen' if is_told else ''}>{name}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table></div>{more}"
    )


def _row(cells: tuple[str, ...], numbers: int) -> str:
    first = _cell("th", cells[0], False, "row")
    return f"<tr>{first}{''.join(_cell('td', cell, index >= numbers) for index, cell in enumerate(cells[1:], 1))}</tr>"


def _cell(tag: str, text: str, is_number: bool, scope: str = "") -> str:
    reach = f' scope="{scope}"' if scope and text else ""
    tag = tag if text or tag == "td" else "td"
    return f"<{tag}{reach}{' class=number' if is_number else ''}>{written(text)}</{tag}>"
