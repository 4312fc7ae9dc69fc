"""onnxprune run: a recipe, step after step."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli import options
from onnxprune.cli.options import Outputs
from onnxprune.cli.screen import Screen


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
@options.outputs("output", "no_clobber", "report", "plan", "no_provenance")
@options.screen
def command(
    recipe: Path,
    model: Path | None,
    data: str | None,
    samples: int | None,
    threads: int | None,
    evaluation: str | None,
    keep: Path | None,
    keep_last_good: bool,
    verify: bool | None,
    outputs: Outputs,
    screen: Screen,
) -> None:
    """Carry out a recipe: a YAML or JSON file of model, data, steps, gates and outputs.

    Paths in a recipe are relative to its folder. A gate that fails stops it with exit code 3.
    """
    import tempfile

    from onnxprune.cli import recipes
    from onnxprune.cli.finish import finish
    from onnxprune.graph.model import load
    from onnxprune.recipe import read_recipe, run_steps
    from onnxprune.recipe.run import failed, keep_files, plan_of, warnings_of
    from onnxprune.report import Report

    given = {"model": model, "data": data, "samples": samples, "threads": threads}
    wanted = recipes.with_options(read_recipe(recipe), given, evaluation, outputs, keep, keep_last_good)
    ending = recipes.ending_of(wanted, recipe, screen, verify)
    ending.check()
    record = Report("run", details={"seed": wanted.seed, "options": wanted.settings})
    with screen.stage(record, "load", "reading the model"):
        source = load(ending.source)
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        done = []
        with screen.stage(record, "steps", "running the recipe") as tell:
            for item in run_steps(wanted, source, Path(folder), tell, verify):
                done.append(item)
                recipes.note_step(record, source, item)
        if wanted.outputs.intermediates is not None:
            keep_files(done, wanted.outputs.intermediates)
        for warning in warnings_of(done):
            record.warn(warning)
        if done[-1].failures:
            good = done[-2].model if len(done) > 1 else None
            outcome = "Nothing was written."
            if wanted.outputs.keep_last_good and good is not None:
                finish(recipes.without_limits(ending, done[:-1]), record, source, good, plan_of(done[:-1]))
                outcome = f"The model of {done[-2].label} was written to '{ending.target}'."
            raise failed(done, outcome)
        if done[-1].model is not None:
            finish(ending, record, source, done[-1].model, plan_of(done))
