"""What a report shows of one group: what was asked, what held the rest, and its channels one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnxprune.report import figures
from onnxprune.report.charts.dots import Dots, dots
from onnxprune.report.charts.frame import MOST_MARKS, Chart
from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table


def explained(report: Report) -> Iterator[Section]:
    """Show a group and its channels."""
    found = report.details.get("explain")
    if not found:
        return
    channels = found["channels"]
    gone = sum(not line["kept"] for line in channels)
    exact = "removing equals zeroing" if found["exact"] else "an operator normalises over it"
    sites = ", ".join(f"{site['role']} {site['tensor']}:{site['axis']}" for site in found["sites"])
    lines = [f"{found['group']} ({found['kind']}, {found['size']} channels, {exact}). Asked: {found['asked']}."]
    lines += [f"Left alone: {found['reason']}." if found["reason"] else f"{gone} go, {len(channels) - gone} stay."]
    lines += [f"Where it lives: {sites}."]
    held = (f"{lock['size']} positions of {lock['tensor']}:{lock['axis']}: {lock['reason']}" for lock in found["locks"])
    lines += [f"Held: {line}" for line in held]
    rows = tuple(_row(line) for line in sorted(channels, key=lambda line: -float(line["score"])))
    headers = ("channel", "outcome", "largest reader", "score", "weight there", "nearest twin", "likeness")
    yield Section("Channels", tuple(lines), Table(headers, rows, 3), picture="scores")


def scores(report: Report) -> Chart | None:
    """Draw the scores of the channels, the largest first, with what stays and what goes."""
    channels = sorted(report.details["explain"]["channels"], key=lambda line: -float(line["score"]))
    if not channels:
        return None
    shown = channels[:: max(1, -(-len(channels) // MOST_MARKS))]
    kinds = {True: "after", False: "missed"}
    marks = [Dots(f"channel {line['channel']}", ((kinds[line["kept"]], line["score"]),)) for line in shown]
    gone = [line["score"] for line in channels if not line["kept"]]
    body, height = dots(marks, lambda value: f"{value:.3g}", bound=max(gone, default=None))
    cut = f", those up to {max(gone):.4g} go" if gone else ", none goes"
    legend = (("dot after", "stays"), ("dot missed", "goes"), ("bound", "largest score that goes"))
    told = f"{len(channels)} channels, the largest score first{cut}."
    return Chart("Scores of the channels", told, body, height, legend if gone else legend[:1])


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    twin = "-" if line["twin"] is None else str(line["twin"])
    weight = figures.figure(line["weight"], 3)
    likeness = figures.figure(line["likeness"], 3)
    outcome = "stays" if line["kept"] else "goes"
    return (str(line["channel"]), outcome, line["reader"] or "-", f"{line['score']:.4g}", weight, twin, likeness)
