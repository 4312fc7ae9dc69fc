"""What a report shows of a model as it is: opsets, inputs, outputs, operators."""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.report.record import Report
from onnxprune.report.section import Section


def model(report: Report) -> Iterator[Section]:
    """Show opsets, inputs and outputs with types, and how often each operator occurs."""
    found = report.details.get("model_facts")
    if not found:
        return
    opsets = ", ".join(f"{domain} {number}" for domain, number in found["opsets"].items())
    lines = [f"opset {opsets}; IR version {found['ir_version']}"]
    lines += [f"input {name}: {kind}" for name, kind in found["inputs"].items()]
    lines += [f"output {name}: {kind}" for name, kind in found["outputs"].items()]
    counts = found["operators"]
    lines += [f"{sum(counts.values())} nodes: {', '.join(f'{number} {name}' for name, number in counts.items())}"]
    yield Section("Model", tuple(lines))


def collected(report: Report) -> Iterator[Section]:
    """Show what statistics are of, and where they were written."""
    found = report.details.get("statistics")
    if isinstance(found, dict):
        grams = f"{found['gram_matrices']} of them with their products"
        shards = f"{found['shards']} shard{'s' * (found['shards'] != 1)}"
        yield Section(
            "",
            (f"{found['file']}: {found['samples']} samples in {shards}, {found['tensors']} tensors, {grams}",),
        )
