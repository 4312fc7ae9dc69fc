"""Whether what was quantized is faster than the original, on this machine."""

from __future__ import annotations

from onnxprune.errors import OnnxpruneError
from onnxprune.evidence.latency import Timing
from onnxprune.graph.model import Model
from onnxprune.job.job import Job
from onnxprune.report import Report

RUNS, SECONDS = 24, 2.0
"""A part of what quantizing a model of milliseconds takes; `onnxprune bench` measures longer."""
SLOWER = 1.05
"""Share of the float model's time from which a model is called slower."""


def note_latency(
    report: Report, source: Model, result: Model, mode: str, job: Job, known: tuple[Timing, Timing] | None = None
) -> None:
    """Measure both models in turns, and say so when the result is slower here.

    Args:
        known: times that were measured on one thread, used where the job has one.
    """
    from onnxprune.evidence.bench import bench

    run = job.run
    if known is not None and run.threads == 1:
        _note(report, source, known, mode, job)
        return
    try:
        timings = bench(
            [source.path or source, result],
            runs=RUNS,
            seconds=SECONDS,
            threads=run.threads,
            provider=run.provider,
            input_shapes=run.input_shapes,
            seed=run.seed,
        )
    except OnnxpruneError as error:
        report.warn(f"latency could not be measured: {error}")
        return
    before, after = timings.values()
    _note(report, source, (before, after), mode, job)


def _note(report: Report, source: Model, timings: tuple[Timing, Timing], mode: str, job: Job) -> None:
    (before, after), run = timings, job.run
    name = str(job.target()) if job.source_path is not None or job.outputs.output is not None else "result"
    report.latency = {str(source.path or "original"): before.to_json(), name: after.to_json()}
    ratio = after.median_ms / before.median_ms if before.median_ms else 1.0
    threads = f"{run.threads} thread{'s' * (run.threads > 1)}" if run.threads else "all threads"
    report.details |= {"latency_ratio": round(ratio, 4), "latency_inputs": f"one sample, {threads}, in turns"}
    if ratio > SLOWER:
        report.warn(
            f"on this machine the result takes {ratio:.2f} of the original's time: it is smaller, not faster "
            f"({mode} mode)"
        )
