"""onnxprune sparsify: zeros in weights, with the others changed to make up for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.options import Limits, Outputs, Runs
from onnxprune.cli.screen import Screen


@click.command()
@options.model
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="S",
    help="Share of the weights that become zero [default: 0.5].",
)
@click.option("--pattern", metavar="N:M|block:RxC", help="2:4: of 4 inputs 2 stay; block:4x1: 4 outputs of 1 input.")
@click.option(
    "--scope",
    type=click.Choice(["uniform", "global", "lamp", "erk"]),
    default="uniform",
    help="How zeros are spread over the layers: the same share, one threshold, or LAMP, ERK [default: uniform].",
)
@click.option(
    "--score",
    type=click.Choice(["obc", "wanda", "magnitude", "random"]),
    help="Which weights go: by what can be made up for (obc), by |w| times the input, by |w|, by chance "
    "[default: obc with --data, else magnitude].",
)
@click.option(
    "--reconstruct/--no-reconstruct",
    default=None,
    help="Change the other weights to make up for the zeros [default: with --data].",
)
@click.option(
    "--storage",
    type=click.Choice(["dense", "sparse"]),
    default="dense",
    help="Write a usual file, or sparse_initializer where that is smaller [default: dense].",
)
@options.layers("Leave nodes or tensors alone", "Sparsify")
@options.outputs("output", "no_clobber", "report", "no_provenance")
@options.runs()
@options.gates
@options.screen
def command(model: Path, outputs: Outputs, runs: Runs, limits: Limits, screen: Screen, **choices: Any) -> None:
    """Make single weights zero: smaller after compression, faster on hardware with sparse units only."""
    from onnxprune.cli import evidence, thinning
    from onnxprune.cli.finish import Ending, finish
    from onnxprune.methods.calibration import Runtime
    from onnxprune.methods.sparsify import sparsify
    from onnxprune.methods.sparsity.options import SparsifyOptions
    from onnxprune.report import Report

    wanted = SparsifyOptions(**choices, input_shapes=runs.input_shapes, seed=runs.seed)
    settings = {"command": "sparsify", **wanted.to_dict()}
    ending = Ending(model, "sparse", outputs, runs, limits, None, settings, screen)
    ending.check()
    record = Report("sparsify", details={"seed": runs.seed, "options": settings})
    source, traced = evidence.read(record, screen, model, runs)
    record.output = evidence.same_work(record.input)
    with screen.stage(record, "sparsify", "choosing zeros") as tell:
        data = evidence.samples_of(source, runs)
        result = sparsify(source, wanted, data, runtime=Runtime(runs.threads, runs.provider), progress=tell)
    with screen.stage(record, "compress", "compressing to learn the size"):
        thinning.note_sparsity(record, source, result)
    finish(ending, record, source, result.model, None, traced=traced)
