"""What reports show of the steps of a recipe, of two models layer by layer, and of latency under several settings."""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.report import figures
from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table


def steps(report: Report) -> Iterator[Section]:
    """Show every step with its options and the model that it gave."""
    rows = []
    for number, step in enumerate(report.details.get("steps", []), 1):
        said = ", ".join(f"{name} {value}" for name, value in step["options"].items())
        sizes = (figures.count(step.get("params")), figures.count(step.get("macs")), figures.size(step.get("bytes")))
        cosine = step["parity"].get("cosine")
        rows.append((f"{number} {step['step']}", said, *sizes, "-" if cosine is None else figures.figure(cosine)))
    headers = ("step", "options", "parameters", "MACs", "file", "cosine")
    yield Section("Steps" if rows else "", table=Table(headers, tuple(rows), 2) if rows else None, picture="steps")


def layers(report: Report) -> Iterator[Section]:
    """Show the SQNR of every layer that two models share, and the first one below the bound."""
    found = report.details.get("compared_layers", [])
    if not found:
        return
    rows = []
    for layer in found:
        shapes, kept = layer.get("shapes"), layer.get("kept")
        note = f"{shapes[0]} against {shapes[1]}" if shapes else ""
        note = f"{kept[0]} of {kept[1]} channels" if kept else note
        rows.append((layer["name"], layer["operator"], figures.decibels(layer["sqnr_db"]), note))
    below, bound = report.details.get("first_below"), report.details.get("layer_bound_db")
    lines = (f"First below {bound:g} dB: {below['name']} ({below['operator']}).",) if below else ()
    table = Table(("layer", "operator", "SQNR", "note"), tuple(rows), 2)
    yield Section("Layers, original against compressed", lines, table, picture="compared")


def robustness(report: Report) -> Iterator[Section]:
    """Show how much of what each model says stays when its inputs change a little."""
    found = report.details.get("robustness")
    if not found:
        return
    rows = tuple(
        (
            line["change"],
            line["output"],
            line["figure"],
            *(f"{line[name]:.4f}" for name in ("original", "compressed", "both")),
            "more brittle" if line["brittle"] else "",
        )
        for line in found["lines"]
    )
    headers = ("change", "output", "figure", "original keeps", "compressed keeps", "both alike", "")
    title = f"Small changes of inputs, on {found['samples']} samples"
    yield Section(title, (found["sentence"],), Table(headers, rows, 3) if rows else None)


def grid(report: Report) -> Iterator[Section]:
    """Show latency by threads and batch; ratios are to the first model under the same setting."""
    rows = []
    first: dict[tuple[int, int], float] = {}
    for line in report.details.get("grid", []):
        setting = (line["threads"], line["batch"])
        base = first.setdefault(setting, line["median_ms"])
        spread = f"{line['p10_ms']:.3g} - {line['p90_ms']:.3g} ms"
        ratio = f"{line['median_ms'] / base:.2f}" if base else "-"
        threads, batch = str(line["threads"] or "all"), str(line["batch"])
        rows.append((line["model"], threads, batch, figures.milliseconds(line["median_ms"]), spread, ratio))
    headers = ("model", "threads", "batch", "median", "p10 - p90", "of the first")
    yield Section("Latency, in turns", table=Table(headers, tuple(rows)) if rows else None)
