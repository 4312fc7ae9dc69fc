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

if TYPE_CHECKING:
    from onnxprune.job.run import Run


@click.command(cls=SectionedCommand)
@click.argument("models", type=options.PATH, nargs=-1, required=True, metavar="MODEL [MODEL ..]")
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
@options.runs("seed", "input_shapes", "provider")
@options.screen
def command(
    models: tuple[Path, ...],
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

    Every round runs every model once, so that a busy machine is unfair to none of them.
    """
    from onnxprune.evidence.bench import bench
    from onnxprune.evidence.latency import histogram
    from onnxprune.graph.external import WeightFiles

    weights = (file for model in models for file in WeightFiles(model))
    with telling("bench", screen, report, {"a model": models, "weights of a model": weights}) as record:
        settings = [(threads, batch) for threads in counts for batch in batches]
        grid = []
        with screen.stage(record, "bench", "measuring") as tell:
            for threads, batch in settings:
                tell(f"measuring: batch {batch}, {_threads(threads)}")
                timings = bench(
                    models,
                    batch=batch,
                    runs=rounds,
                    warmup=warmup,
                    seconds=seconds / len(settings),
                    threads=threads,
                    provider=run.provider,
                    input_shapes=run.input_shapes,
                    seed=run.seed,
                )
                of = {"threads": threads, "batch": batch}
                grid += [{"model": name, **of, **timing.to_json()} for name, timing in timings.items()]
        record.details["seed"] = run.seed
        if len(settings) == 1:
            record.details["histogram"] = histogram(timings)
            record.latency = {name: timing.to_json() for name, timing in timings.items()}
            record.details |= {"inputs": f"batch {batch}, {_threads(threads)}, random inputs", "threads": threads}
        else:
            record.details["grid"] = grid


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}" if number else "all threads"
