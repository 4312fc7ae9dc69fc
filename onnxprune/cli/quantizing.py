"""What `quantize` needs around the method: samples, the judge of its search, latency, and the layers in the report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli import evidence
from onnxprune.cli.options import Limits, Runs
from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.report import Report

if TYPE_CHECKING:
    from onnxprune.graph.model import Model
    from onnxprune.graph.trace import Trace
    from onnxprune.graph.view import View
    from onnxprune.methods.quantization.options import QuantizeOptions
    from onnxprune.methods.quantization.search import Judge
    from onnxprune.methods.quantize import QuantizeResult
    from onnxprune.types import Array
    from onnxprune.validate.gates import Gates

BENCH_RUNS, BENCH_SECONDS = 40, 4.0
SLOWER = 1.05
"""Share of the float model's time from which a model is called slower."""


def samples(
    record: Report,
    model: Model,
    traced: tuple[View, Trace],
    options: QuantizeOptions,
    runs: Runs,
    limits: Limits,
    gates: Gates,
) -> tuple[list[dict[str, Array]], Judge | None]:
    """Return the inputs for ranges and noise, and the judge if there are gates."""
    from onnxprune.methods.quantization.native import release
    from onnxprune.methods.quantization.search import Judge

    gated = gates.needs_outputs or gates.max_drop is not None
    try:
        reference = evidence.reference(model, runs, traced)
    except ModelError:
        if options.mode == "static" or gated:
            raise
        return [], None
    feeds = [dict(feed) for feed in reference.samples]
    if runs.data is None and options.mode == "static":
        record.warn("without --data ranges come from random inputs: the result runs, but its accuracy means nothing")
    if not gated:
        reference.session.close()
        release()
        return feeds, None
    drop = _drop(model, limits) if gates.max_drop is not None else None
    return feeds, Judge(reference, gates, runs.threads, drop)


def note(record: Report, result: QuantizeResult) -> None:
    """Put what was done into the report."""
    record.details["quantization"] = result.settings
    record.details["layers"] = [layer.to_json() for layer in result.layers]
    for warning in result.warnings:
        record.warn(warning)


def measure(record: Report, source: Model, result: QuantizeResult, target: Path, runs: Runs) -> None:
    """Measure float and quantized model in turns, and say so when the quantized one is slower here."""
    from onnxprune.validate.bench import bench

    try:
        timings = bench(
            [source.path or source, result.model],
            runs=BENCH_RUNS,
            seconds=BENCH_SECONDS,
            threads=runs.threads,
            provider=runs.provider,
            input_shapes=runs.input_shapes,
            seed=runs.seed,
        )
    except OnnxpruneError as error:
        record.warn(f"latency could not be measured: {error}")
        return
    before, after = timings.values()
    record.latency = {str(source.path or "original"): before.to_json(), str(target): after.to_json()}
    ratio = after.median_ms / before.median_ms if before.median_ms else 1.0
    threads = f"{runs.threads} thread{'s' * (runs.threads > 1)}" if runs.threads else "all threads"
    record.details |= {"latency_ratio": round(ratio, 4), "latency_inputs": f"one sample, {threads}, in turns"}
    if ratio > SLOWER:
        record.warn(
            f"on this machine the result takes {ratio:.2f} of the original's time: it is smaller, not faster "
            f"({result.mode} mode)"
        )


def _drop(model: Model, limits: Limits) -> Callable[[Model], float]:
    """Return what measures how much the user's value falls; the original is measured once."""
    from onnxprune.graph.model import save

    known: list[float] = []

    def drop(candidate: Model) -> float:
        with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
            path = Path(folder) / "candidate.onnx"
            save(candidate, path)
            if not known:
                known.append(evidence.evaluated(limits.eval or "", model.path or path))
            return known[0] - evidence.evaluated(limits.eval or "", path)

    return drop
