"""The picture of each section that has one: from the figures of a report to a chart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from onnxprune.report import figures
from onnxprune.report.charts.columns import Column, columns
from onnxprune.report.charts.dots import Dots, dots
from onnxprune.report.charts.frame import MOST_MARKS, Chart
from onnxprune.report.charts.heat import heat
from onnxprune.report.charts.histogram import histogram
from onnxprune.report.charts.pairs import Pair, pairs
from onnxprune.report.charts.scatter import Point, scatter
from onnxprune.report.explained import scores
from onnxprune.report.record import Report
from onnxprune.report.walk_section import losses

BEFORE_AFTER = (("before", "before"), ("after", "after"))
MOST_ROWS = 40
"""Rows of a heat map."""
Item = TypeVar("Item")
GOALS = {"agreement": "min_agreement", "cosine": "min_cosine", "drop": "max_drop"}
"""What candidates are judged by, and the gate that bounds it."""


def cost(report: Report) -> Chart | None:
    """Draw parameters, MACs, file and latency, before and after."""
    before, after = report.input, report.output
    if before is None or after is None:
        return None
    known = [
        ("parameters", before.params, after.params, figures.count),
        ("MACs", before.macs, after.macs, figures.count),
        ("file", before.bytes, after.bytes, figures.size),
    ]
    rows = [
        Pair(name, old, new, f"{tell(old)} → {tell(new)} ({figures.share(new, old)})")
        for name, old, new, tell in known
        if old and new is not None
    ]
    times = [values for values in report.latency.values() if isinstance(values, dict)]
    if len(times) == 2 and times[0]["median_ms"]:
        old, new = (values["median_ms"] for values in times)
        told = f"{figures.milliseconds(old)} → {figures.milliseconds(new)} ({figures.share(new, old)})"
        rows.append(Pair("latency", old, new, told, (times[1]["p10_ms"], times[1]["p90_ms"])))
    body, height = pairs(rows)
    legend = (*BEFORE_AFTER, ("spread", "middle 80 % of the runs")) if times else BEFORE_AFTER
    told = _told(f"{row.name} {row.told}" for row in rows)
    return Chart("What it costs, before and after", told, body, height, legend)


def widths(report: Report) -> Chart | None:
    """Draw the width of every group before and after along the network, with the MACs that run through it below."""
    groups = [group for group in report.groups if not group.locked and group.details.get("active", True)]
    if not groups:
        return None
    shown = _most(groups, lambda group: group.details.get("macs") or group.size)
    items = [
        Column(group.name, group.size, group.kept if group.kept is not None else group.size, group.details.get("macs"))
        for group in shown
    ]
    body, height = columns(items, "channels")
    has_cost = any(item.cost for item in items)
    chosen = any(group.kept is not None for group in groups)
    title = "Width of every group along the network" + (", before and after" if chosen else "")
    changed = sum(item.after < item.before for item in items)
    what = f"{_part(shown, groups, 'groups')} in graph order; {changed} became narrower." if chosen else ""
    what = what or f"{_part(shown, groups, 'groups')} in graph order."
    what += " Below: multiply-adds that run through it." if has_cost else ""
    more = (("cost", "MACs that run through it"),) if has_cost else ()
    legend = BEFORE_AFTER if chosen else (("after", "channels"),)
    return Chart(title, what, body, height, (*legend, *more))


def errors(report: Report) -> Chart | None:
    """Draw the error of every layer before and after the refit."""
    layers = report.details["compensation"]["layers"]
    known = [layer for layer in layers if layer["before"] is not None and layer["after"] is not None]
    shown = _most(known, lambda layer: layer["before"])
    marks = [Dots(layer["name"], (("before", layer["before"]), ("after", layer["after"]))) for layer in shown]
    body, height = dots(marks, lambda value: f"{value:.2g}", logarithmic=True)
    better = sum(layer["after"] < layer["before"] for layer in known)
    told = f"{_part(shown, known, 'layers')} in order, logarithmic; the refit made {better} better."
    legend = (("dot before", "before the refit"), ("dot after", "after"))
    return Chart("Error of every layer, as a share of the variance of what it gives", told, body, height, legend)


def noise(report: Report) -> Chart | None:
    """Draw the signal to noise ratio of every quantized layer."""
    return _ratios(report.details["layers"], "Signal to noise of every layer, in dB", None)


def compared(report: Report) -> Chart | None:
    """Draw the signal to noise ratio of every layer that two models share, with the bound."""
    title = "Signal to noise of every layer, original against compressed, in dB"
    return _ratios(report.details["compared_layers"], title, report.details.get("layer_bound_db"))


def zeros(report: Report) -> Chart | None:
    """Draw the errors that zeros leave, against those of plain magnitude."""
    layers = [layer for layer in report.details["sparsity"]["layers"] if layer["error"] is not None]
    if not layers:
        return None
    shown = _most(layers, lambda layer: layer["error"])
    marks = [Dots(layer["name"], (("before", layer["magnitude_error"]), ("after", layer["error"]))) for layer in shown]
    body, height = dots(marks, lambda value: f"{value:.2g}", logarithmic=True)
    legend = (("dot before", "zeros by magnitude alone"), ("dot after", "as done"))
    told = f"{_part(shown, layers, 'layers')} in order, logarithmic, as shares of the variance."
    return Chart("Error that the zeros leave in every layer", told, body, height, legend)


def factors(report: Report) -> Chart | None:
    """Draw the weights of every layer before and after it was replaced by factors."""
    layers = report.details["factors"]["layers"]
    shown = _most(layers, lambda layer: layer["params"])
    items = [Column(layer["name"], layer["params"], layer["params_left"]) for layer in shown]
    body, height = columns(items, "weights")
    told = f"{_part(shown, layers, 'layers')} in order; {sum(bool(layer['form']) for layer in layers)} were replaced."
    return Chart("Weights of every layer, before and after", told, body, height, BEFORE_AFTER)


def sensitivity(report: Report) -> Chart | None:
    """Draw what cutting each group costs as a heat map, groups in the order of the network."""
    rows = report.details["sensitivity"]
    keys = [key for key in rows[0] if key.startswith("error_at_")]
    shown = _most(rows, lambda row: row[keys[-1]], MOST_ROWS)
    cells = [(row["group"], [float(row[key]) for key in keys]) for row in shown]
    body, height = heat(cells, [f"{float(key.removeprefix('error_at_')):.0%}" for key in keys])
    worst = max(rows, key=lambda row: float(row[keys[-1]]))
    told = f"{_part(shown, rows, 'groups')}, columns are shares cut, darker is worse. The dearest is {worst['group']}."
    return Chart("What cutting each group does to the outputs", told, body, height, (("cell", "error, logarithmic"),))


def curve(report: Report) -> Chart | None:
    """Draw the candidates of a search: MACs left against closeness, with the bound and what was chosen."""
    found, gates = report.details["curve"], {gate["name"]: gate["limit"] for gate in report.details.get("gates", [])}
    usable = [name for name in GOALS if any(point.get(name) is not None for point in found)]
    if not usable:
        return None
    goal = next((name for name in usable if GOALS[name] in gates), usable[0])
    sign, bound = (-1.0 if goal == "drop" else 1.0), gates.get(GOALS[goal])
    known = [point for point in found if point.get(goal) is not None]
    best = min((point for point in known if point["kept"]), key=lambda point: float(point["macs"]), default=None)
    points = []
    for point in known:
        kind = "chosen" if point is best else "kept" if point["kept"] else "missed"
        told = f"{point['macs']:.1%} of the MACs, {goal} {point[goal]:.4g}: {kind}"
        points.append(Point(point["macs"], sign * point[goal], kind, told, _is_front(point, known, goal, sign)))
    body, height = scatter(points, lambda value: f"{value:.0%}", None if bound is None else sign * bound)
    upwards = f"{goal} upwards{' (less is up)' * (sign < 0)}"
    told = f"{len(known)} candidates; multiply-adds left from left to right, {upwards}."
    told += f" Chosen: {best['macs']:.1%} of the MACs at {goal} {best[goal]:.4g}." if best else " None keeps the bound."
    legend = (("dot chosen", "chosen"), ("dot kept", "keeps the bound"), ("dot missed", "misses it"))
    more = ((("bound", "bound"),) if bound is not None else ()) + (("front", "none better in both"),)
    return Chart(f"Candidates: MACs left against {goal}", told, body, height, (*legend, *more))


def steps(report: Report) -> Chart | None:
    """Draw the file after every step of a recipe: what each step took away."""
    found = report.details["steps"]
    size = report.input.bytes if report.input is not None else None
    rows = []
    for number, step in enumerate(found, 1):
        if size and step.get("bytes"):
            told = f"{figures.size(size)} → {figures.size(step['bytes'])} ({figures.change(size, step['bytes'])})"
            rows.append(Pair(f"{number} {step['step']}", size, step["bytes"], told))
        size = step.get("bytes") or size
    if not rows:
        return None
    body, height = pairs(rows, common=True)
    legend = (("before", "before the step"), ("after", "after it"))
    return Chart("The file, step after step", _told(f"{row.name}: {row.told}" for row in rows), body, height, legend)


def times(report: Report) -> Chart | None:
    """Draw how often which latency was measured."""
    found = report.details.get("histogram")
    if not found:
        return None
    body, height = histogram(found["edges_ms"], found["runs"], report.latency)
    medians = ((name, figures.milliseconds(values["median_ms"])) for name, values in report.latency.items())
    told = _told(f"{name}: median {median}" for name, median in medians)
    legend = (("spread", "middle 80 % of the runs"), ("median", "median"))
    told += " The last column holds slower ones too."
    return Chart("How long runs took", told, body, height, legend)


PICTURES: dict[str, Callable[[Report], Chart | None]] = {
    draw.__name__: draw
    for draw in (
        *(cost, widths, errors, losses, noise, compared, zeros, factors, sensitivity, curve, steps, times, scores),
    )
}
"""Name of a section's picture -> what draws it; None where there is nothing to see."""


def _is_front(point: dict[str, Any], others: Sequence[dict[str, Any]], goal: str, sign: float) -> bool:
    """Tell whether no other candidate is at least as good in both figures that are drawn, and better in one."""
    place = (-point["macs"], sign * point[goal])
    places = [(-other["macs"], sign * other[goal]) for other in others]
    return not any(one >= place[0] and two >= place[1] and (one, two) != place for one, two in places)


def _ratios(layers: Sequence[dict[str, Any]], title: str, bound: float | None) -> Chart | None:
    known = [layer for layer in layers if layer["sqnr_db"] is not None and math.isfinite(layer["sqnr_db"])]
    if not known:
        return None
    shown = _most(known, lambda layer: -layer["sqnr_db"])
    marks = [Dots(layer["name"], (("after", min(layer["sqnr_db"], 160.0)),)) for layer in shown]
    body, height = dots(marks, lambda value: f"{value:.3g} dB" if value < 160 else "equal", bound=bound)
    worst = min(known, key=lambda layer: float(layer["sqnr_db"]))
    lowest = f"{worst['name']}, {worst['sqnr_db']:.1f} dB"
    told = f"{_part(shown, known, 'layers')} in order; higher is nearer. Lowest: {lowest}."
    legend = (("dot after", "layer"), *((("bound", "bound"),) if bound is not None else ()))
    return Chart(title, told, body, height, legend)


def _most(items: Sequence[Item], weigh: Callable[[Item], float], most: int = MOST_MARKS) -> list[Item]:
    """Return those that weigh most, in their order."""
    heaviest = sorted(range(len(items)), key=lambda index: -weigh(items[index]))[:most]
    return [items[index] for index in sorted(heaviest)]


def _part(shown: Sequence[object], found: Sequence[object], what: str) -> str:
    if len(shown) == len(found):
        return f"{len(found)} {what}"
    return f"The {len(shown)} of {len(found)} {what} that weigh most"


def _told(parts: Any) -> str:
    return f"{'; '.join(parts)}."
