"""onnxprune factorize: layers of low rank, each written as a chain of smaller ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.options import Limits, Outputs, Runs
from onnxprune.cli.screen import Screen

SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@options.model
@click.option("--params", type=SHARE, metavar="R", help="Share of the parameters that is left [default: 0.5].")
@click.option("--macs", type=SHARE, metavar="R", help="Share of the multiply-adds that is left.")
@click.option("--energy", type=SHARE, metavar="E", help="Share of what each layer gives that its factors keep.")
@click.option(
    "--align",
    type=click.IntRange(min=1),
    metavar="N",
    help="Ranks are multiples of N [default: 8 from rank 64, 4 from 32].",
)
@click.option(
    "--whiten/--no-whiten", default=None, help="Nearest on the inputs of --data, or as matrices [default: with --data]."
)
@click.option(
    "--refit/--no-refit", default=None, help="Fit last factors to what the original gave [default: with --data]."
)
@options.layers("Leave nodes or tensors alone", "Factorize")
@options.outputs("output", "no_clobber", "report", "no_provenance")
@options.runs()
@options.gates
@options.screen
def command(model: Path, outputs: Outputs, runs: Runs, limits: Limits, screen: Screen, **choices: Any) -> None:
    """Replace layers by low-rank factors where that saves parameters and multiply-adds.

    Give at most one target out of --params, --macs and --energy.
    """
    from onnxprune.cli import evidence, thinning
    from onnxprune.cli.finish import Ending, finish
    from onnxprune.methods.calibration import Runtime
    from onnxprune.methods.factorize import factorize
    from onnxprune.methods.factors.options import FactorizeOptions
    from onnxprune.report import Report, Side

    wanted = FactorizeOptions(**choices, input_shapes=runs.input_shapes, seed=runs.seed)
    settings = {"command": "factorize", **wanted.to_dict()}
    ending = Ending(model, "factorized", outputs, runs, limits, None, settings, screen)
    ending.check()
    record = Report("factorize", details={"seed": runs.seed, "options": settings})
    source, traced = evidence.read(record, screen, model, runs)
    with screen.stage(record, "factorize", "weighing ranks") as tell:
        data = evidence.samples_of(source, runs)
        result = factorize(source, wanted, data, runtime=Runtime(runs.threads, runs.provider), progress=tell)
        after = evidence.describe(result.model, runs.input_shapes)
    record.output = Side(path=None, params=after.params, macs=after.macs)
    thinning.note_factors(record, result)
    finish(ending, record, source, result.model, None, traced=traced)
