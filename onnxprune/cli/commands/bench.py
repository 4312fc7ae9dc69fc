"""onnxprune bench: latency of one or more models."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli import options
from onnxprune.cli.options import Runs
from onnxprune.cli.screen import Screen


@click.command()
@click.argument("models", type=options.PATH, nargs=-1, required=True, metavar="MODEL [MODEL ..]")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, metavar="N", help="Batch size, if dynamic [default: 1]."
)
@click.option("--runs", "rounds", type=click.IntRange(min=3), default=50, metavar="N", help="Rounds [default: 50].")
@click.option("--warmup", type=click.IntRange(min=1), default=3, metavar="N", help="Rounds before [default: 3].")
@click.option("--seconds", type=click.FloatRange(min=0), default=20.0, metavar="S", help="Time limit [default: 20].")
@click.option("--report", type=options.PATH, metavar="FILE", help="Write the report to a .json or .html file.")
@options.runs("seed", "input_shape", "provider", "threads")
@options.screen
def command(
    models: tuple[Path, ...],
    batch: int,
    rounds: int,
    warmup: int,
    seconds: float,
    report: Path | None,
    runs: Runs,
    screen: Screen,
) -> None:
    """Measure latency, in turns, with spread.

    Every round runs every model once, so that a busy machine is unfair to none of them.
    """
    from onnxprune.cli.files import check_writable, write_report
    from onnxprune.report import Report
    from onnxprune.validate.bench import bench

    check_writable(report, inputs=models)
    record = Report("bench")
    with screen.stage(record, "bench", "measuring"):
        timings = bench(
            models,
            batch=batch,
            runs=rounds,
            warmup=warmup,
            seconds=seconds,
            threads=runs.threads,
            provider=runs.provider,
            input_shapes=runs.input_shapes,
            seed=runs.seed,
        )
    record.latency = {name: timing.to_json() for name, timing in timings.items()}
    threads = f"{runs.threads} thread{'s' * (runs.threads > 1)}" if runs.threads else "all threads"
    record.details |= {"inputs": f"batch {batch}, {threads}, random inputs", "seed": runs.seed, "threads": runs.threads}
    write_report(report, record)
    screen.show(record)
