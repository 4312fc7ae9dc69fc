"""onnxprune run: a recipe, step after step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import options
from onnxprune.cli.screen import Screen

if TYPE_CHECKING:
    from onnxprune.job.outputs import Outputs


@click.command()
@click.argument("recipe", type=options.PATH)
@click.option("--model", type=options.PATH, metavar="FILE", help="Instead of the recipe's model.")
@click.option("--data", metavar="PATH", help="Instead of the recipe's data.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Instead of the recipe's samples.")
@click.option("--threads", type=click.IntRange(min=0), metavar="N", help="Instead of the recipe's threads.")
@click.option("--eval", "evaluation", metavar="FILE.PY:FUNCTION", help="Instead of the recipe's gates: eval.")
@click.option("--keep", type=options.PATH, metavar="FOLDER", help="Keep the model after every step there.")
@click.option("--keep-last-good", is_flag=True, help="If a gate fails, write the model of the step before.")
@options.verify
@options.outputs("MODEL-RECIPE.onnx", "output", "no_clobber", "report", "summary", "plan", "no_provenance")
@options.screen
def command(
    recipe: Path,
    model: Path | None,
    data: str | None,
    evaluation: str | None,
    keep: Path | None,
    keep_last_good: bool,
    outputs: Outputs,
    print_recipe: bool,
    screen: Screen,
    **run: Any,
) -> None:
    """Carry out a recipe: a YAML or JSON file of model, data, steps, gates and outputs.

    Paths in a recipe are relative to its folder. A gate that fails stops it with exit code 3.
    """
    from onnxprune.cli.jobs import finish
    from onnxprune.recipe import read_recipe

    job = read_recipe(recipe)
    outputs = replace(outputs, intermediates=keep, keep_last_good=keep_last_good)
    given = {"model": model, "data": data}
    job = replace(
        job,
        run=replace(job.run, **{name: value for name, value in run.items() if value is not None}),
        gates=replace(job.gates, **_said({"eval": evaluation})),
        outputs=replace(job.outputs, **_said(vars(outputs))),
        **_said(given),
    )
    finish(job, screen, suffix=recipe.stem, also=(recipe,))


def _said(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None and value is not False}
