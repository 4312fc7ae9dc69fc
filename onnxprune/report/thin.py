"""What a report shows of zeros in weights and of factors: lines for everybody, tables of layers as detail."""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.report import figures
from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table

NO_FASTER = (
    "onnxruntime's CPU kernels are not faster for zeros: what is gained is size after compression, and speed on "
    "hardware with sparse units."
)


def sparsity(report: Report) -> Iterator[Section]:
    """Yield what became zero, and what that is worth."""
    done = report.details.get("sparsity")
    if not done:
        return
    layers = done["layers"]
    taking = [layer for layer in layers if layer["reason"] is None]
    share = figures.share(done["zeros"], done["weights"])
    how = f"pattern {done['pattern']}, scope {done['scope']}, score {done['score']}"
    rebuilt = ", others changed to make up for it" if done["reconstructed"] else ""
    lines = [f"Zero: {share} of the weights of {len(taking)} of {len(layers)} layers ({how}{rebuilt})."]
    packed = done["compressed_bytes"]
    if packed["input"] and packed["output"]:
        before, after = figures.size(packed["input"]), figures.size(packed["output"])
        left = figures.share(packed["output"], packed["input"])
        lines.append(f"Compressed (zlib): {before} before, {after} after, {left} left.")
    yield Section("", (*lines, NO_FASTER))
    rows = tuple(
        (
            layer["name"],
            layer["operator"],
            figures.count(layer["weights"]),
            figures.share(layer["zeros"], layer["weights"]),
            figures.figure(layer["error"]),
            figures.figure(layer["magnitude_error"]),
            layer["reason"] or layer["method"],
        )
        for layer in layers
    )
    headers = ("layer", "operator", "weights", "zero", "error", "by magnitude", "note")
    yield Section(
        "Layers; errors are shares of the variance of what they give", table=Table(headers, rows, 2), detail=True
    )
