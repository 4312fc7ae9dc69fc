"""What the report of a recipe shows: its steps, and what each of them left."""

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
    yield Section("", table=Table(headers, tuple(rows), 2) if rows else None)
