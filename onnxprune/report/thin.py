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
    title = "Layers; errors are shares of the variance of what they give"
    yield Section(title, table=Table(headers, rows, 2), detail=True, picture="zeros")


def factors(report: Report) -> Iterator[Section]:
    """Yield which layers were replaced, and by what."""
    done = report.details.get("factors")
    if not done:
        return
    layers = done["layers"]
    replaced = [layer for layer in layers if layer["form"]]
    kinds = ", ".join(
        f"{sum(layer['form'] == form for layer in replaced)} {form}"
        for form in dict.fromkeys(layer["form"] for layer in replaced)
    )
    how = ["on the inputs of the data" if done["whitened"] else "as matrices"]
    how += ["last factors fitted to the original"] if done["refitted"] else []
    yield Section("", (f"Replaced {len(replaced)} of {len(layers)} layers ({kinds}); {'; '.join(how)}.",))
    rows = tuple(
        (
            layer["name"],
            layer["operator"],
            figures.count(layer["params"]),
            figures.count(layer["params_left"]),
            " x ".join(str(rank) for rank in layer["ranks"]),
            figures.figure(layer["error"] if layer["form"] else None),
            layer["form"] or layer["reason"] or "",
        )
        for layer in layers
    )
    headers = ("layer", "operator", "weights", "left", "rank", "error", "form")
    title = "Layers; errors are shares of what they give, before factors are fitted"
    yield Section(title, table=Table(headers, rows, 2), detail=True, picture="factors")
