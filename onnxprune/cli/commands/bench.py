"""onnxprune bench: latency of one or more models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand
from onnxprune.cli.words import whole_numbers
from onnxprune.job.run import THERE

if TYPE_CHECKING:
    from onnxprune.evidence.latency import Timing
    from onnxprune.job.run import Run


@click.command(cls=SectionedCommand)
@click.argument("models", type=options.PATH, nargs=-1, metavar="MODEL [MODEL ..]")
@click.option(
    "--times",
    "files",
    type=options.PATH,
    multiple=True,
    metavar="FILE",
    help="Times that onnxruntime_perf_test, trtexec, benchmark_app or qnn-net-run gave (repeatable).",
)
@click.option(
    "--batch", "batches", type=whole_numbers(1), default="1", help="Batch sizes, if dynamic: 1,8 [default: 1]."
)
@click.option(
    "--threads", "counts", type=whole_numbers(0), default="0", help="Threads of onnxruntime: 1,2 [default: all]."
)
@click.option(
    "--runs", "rounds", type=click.IntRange(3, 1_000_000), default=50, metavar="N", help="Rounds [default: 50]."
)
@click.option("--warmup", type=click.IntRange(1, 10_000), default=3, metavar="N", help="Rounds before [default: 3].")
@click.option(
    "--seconds", type=click.FloatRange(0, 86_400), default=20.0, metavar="S", help="Time limit [default: 20]."
)
@options.report
@options.runs("seed", "input_shapes", "provider", *THERE, without=())
@options.screen
def command(
    models: tuple[Path, ...],
    files: tuple[Path, ...],
    batches: tuple[int, ...],
    counts: tuple[int, ...],
    rounds: int,
    warmup: int,
    seconds: float,
    report: Path | None,
    run: Run,
    screen: Screen,
) -> None:
    """Measure latency, in turns, with spread.

    Every round runs every model once, so that a busy machine is unfair to none of them. With --device or
    --latency-command they are timed there.
    """
    from onnxprune.errors import UsageError
    from onnxprune.evidence.bench import bench
    from onnxprune.evidence.elsewhere_bench import timing_of_file
    from onnxprune.evidence.latency import histogram
    from onnxprune.graph.external import WeightFiles

    if not models and not files:
        raise UsageError("bench measures models: name one or more, or files with their times (--times).")
    where = run.device or run.latency_command
    if where is not None and (batches != (1,) or len(counts) > 1):
        raise UsageError("elsewhere one sample is timed, on one number of threads: leave --batch and lists out.")
    known = {str(file): timing_of_file(file) for file in files}
    there = {name: getattr(run, name) for name in THERE}
    weights = (file for model in models for file in WeightFiles(model))
    with telling("bench", screen, report, {"a model": models, "weights of a model": weights, "times": files}) as record:
        settings = [(threads, batch) for threads in counts for batch in batches]
        grid = []
        with screen.stage(record, "bench", "measuring") as tell:
            for threads, batch in settings:
                tell(f"measuring: batch {batch}, {_threads(threads)}")
                timings = dict(known)
                if models:
                    timings |= bench(
                        models,
                        batch=batch,
                        runs=rounds,
                        warmup=warmup,
                        seconds=seconds / len(settings),
                        threads=threads,
                        provider=run.provider,
                        input_shapes=run.input_shapes,
                        seed=run.seed,
                        **there,
                    )
                of = {"threads": threads, "batch": batch}
                grid += [{"model": name, **of, **timing.to_json()} for name, timing in timings.items()]
        record.details["seed"] = run.seed
        if len(settings) == 1:
            record.details["histogram"] = histogram(timings)
            record.latency = {name: timing.to_json() for name, timing in timings.items()}
            here = f"batch {batch}, {_threads(threads)}, random inputs"
            inputs = here if models and where is None else f"timed by {where}" if models else "as the files say"
            record.details |= {"inputs": inputs, "threads": threads}
            record.details |= _energy(models, timings, run)
        else:
            record.details["grid"] = grid


def _energy(models: tuple[Path, ...], timings: dict[str, Timing], run: Run) -> dict[str, object]:
    """Return what was measured, and estimates to lay beside it; nothing where nothing was."""
    from onnxprune.graph.model import load
    from onnxprune.hardware.rapl import energy_meter
    from onnxprune.job.footprint import footprint

    meter = energy_meter()
    if meter is None or not any(timing.joules is not None for timing in timings.values()):
        return {}
    found = {str(model): footprint(load(model), run.input_shapes or {}) for model in models}
    estimates = {name: taken["joules"] for name, taken in found.items() if taken is not None}
    return {"energy": {"measured": f"{meter.names}, all that ran meanwhile included", "estimates": estimates}}


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}" if number else "all threads"
