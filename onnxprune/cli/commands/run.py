"""onnxprune run: a recipe, step after step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import options
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand
from onnxprune.job.gates import Gates
from onnxprune.job.run import Run

if TYPE_CHECKING:
    from onnxprune.job.outputs import Outputs

INSTEAD = {
    "samples": "Instead of the recipe's samples.",
    "threads": "Instead of the recipe's threads.",
    "eval": "Instead of the recipe's gates: eval.",
}


@click.command(cls=SectionedCommand)
@click.argument("recipe", type=options.PATH)
@click.option("--model", type=options.PATH, metavar="FILE", help="Instead of the recipe's model.")
@click.option("--data", metavar="PATH", help="Instead of the recipe's data.")
@options.given_from("run", Run, "samples", "threads", "verify", **INSTEAD)
@options.given_from("gates", Gates, "eval", "strict", **INSTEAD)
@options.outputs("MODEL-RECIPE.onnx", recipe=False)
@options.screen
def command(
    recipe: Path,
    model: Path | None,
    data: str | None,
    run: dict[str, Any],
    gates: dict[str, Any],
    outputs: Outputs,
    screen: Screen,
) -> None:
    """Carry out a recipe: a YAML or JSON file of model, data, steps, gates and outputs.

    cnn-cpu-fast, edge-int8, smallest-file and transformer-int8 come with the package. Paths in a recipe are relative to
    its folder. A gate that fails stops it with exit code 3.
    """
    from onnxprune.cli.jobs import finish
    from onnxprune.recipe import read_recipe

    job = read_recipe(recipe)
    job = replace(
        job,
        model=model or job.model,
        data=data or job.data,
        run=replace(job.run, **run),
        gates=replace(job.gates, **gates),
        outputs=replace(job.outputs, **{name: value for name, value in vars(outputs).items() if value}),
    )
    finish(job, screen, suffix=recipe.stem, also=(recipe,))
