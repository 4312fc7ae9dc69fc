"""Between commands and recipes: the options of `run`, steps in the report, and the recipe that a command amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cli.options import Limits, Outputs, Runs
from onnxprune.cli.screen import Screen
from onnxprune.errors import UsageError
from onnxprune.report import Report, Side

if TYPE_CHECKING:
    from onnxprune.cli.finish import Ending
    from onnxprune.graph.model import Model
    from onnxprune.recipe import Done, Recipe

SAME_WORK = frozenset({"quantize"})
"""Steps whose result does the same work on as many parameters, in fewer bits."""
_SHARED = ("seed", "input_shapes")


def with_options(
    recipe: Recipe,
    given: Mapping[str, Any],
    evaluation: str | None,
    outputs: Outputs,
    keep: Path | None,
    keep_last_good: bool,
) -> Recipe:
    """Return the recipe with what the command line says instead.

    Raises:
        UsageError: there is no model, or a plan is asked for where there is not one prune.
    """
    recipe = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    if recipe.model is None:
        raise UsageError("the recipe names no model; give --model FILE.")
    if evaluation is not None:
        recipe = replace(recipe, gates=replace(recipe.gates, eval=evaluation))
    mine = recipe.outputs
    chosen = replace(
        mine,
        output=outputs.output or mine.output,
        report=outputs.report or mine.report,
        plan=outputs.plan or mine.plan,
        intermediates=keep or mine.intermediates,
        keep_last_good=keep_last_good or mine.keep_last_good,
        no_clobber=outputs.no_clobber or mine.no_clobber,
        no_provenance=outputs.no_provenance or mine.no_provenance,
    )
    if chosen.plan is not None and [step.method.name for step in recipe.steps].count("prune") != 1:
        raise UsageError("a plan says what one prune removes; this recipe has not exactly one, leave the plan out.")
    return replace(recipe, outputs=chosen)


def ending_of(recipe: Recipe, path: Path, screen: Screen, verify: bool | None = None) -> Ending:
    """Return what is asked for about the result of a recipe."""
    from onnxprune.cli.finish import Ending

    images = recipe.images
    runs = Runs(
        data=recipe.data,
        image_size=images.size,
        mean=images.mean,
        std=images.std,
        layout=images.layout,
        samples=recipe.samples,
        seed=recipe.seed,
        input_shape=tuple(recipe.input_shapes.items()),
        provider=recipe.provider,
        threads=recipe.threads,
    )
    limits = asdict(recipe.gates) | dict(recipe.steps[-1].limits)
    names = {item.name for item in fields(Outputs)}
    outputs = Outputs(**{name: value for name, value in vars(recipe.outputs).items() if name in names})
    source = Path(recipe.model or "")
    return Ending(source, path.stem, outputs, runs, Limits(**limits), verify, recipe.settings, screen, (path,))


def without_limits(ending: Ending, done: list[Done]) -> Ending:
    """Return the ending for the model of an earlier step, which has kept its limits."""
    steps = [item.step.settings for item in done]
    settings = steps[0] if len(steps) == 1 else {"command": "run", "steps": steps}
    return replace(ending, limits=Limits(None, None, None, None, None), settings=settings)


def note_step(record: Report, source: Model, done: Done) -> None:
    """Put a step into the report, and what its model is made of."""
    from onnxprune.cli import evidence
    from onnxprune.recipe.run import figures_of

    shapes = dict(getattr(done.step.options, "input_shapes", {}))
    if record.input is None:
        record.input = evidence.describe(source, shapes)
    before = record.output or record.input
    line: dict[str, Any] = {"step": done.step.method.name, "options": done.step.options.to_dict()}
    if done.model is not None and done.file is not None:
        side = before if done.step.method.name in SAME_WORK else evidence.describe(done.model, shapes)
        bytes_ = done.file.stat().st_size + done.model.external_bytes
        if not done.failures:
            record.output = Side(path=None, params=side.params, macs=side.macs)
        line |= {"params": side.params, "macs": side.macs, "bytes": bytes_}
    if done.evidence is not None and done.evidence.masked is not None:
        record.details.setdefault("verdicts", []).append(f"Step {done.number}: {done.evidence.lines[-1]}")
        masked = done.evidence.masked
        line["masked_parity"] = {"relative_error": evidence.finite(masked.errors), "tolerance": masked.tolerance}
    line |= {"parity": dict(figures_of(done)), "drop": done.drop, "failures": list(done.failures)}
    record.details.setdefault("steps", []).append({**line, "seconds": round(done.seconds, 3)})


def recipe_of(ending: Ending) -> dict[str, Any] | None:
    """Return the recipe that gives the same model as a command, None if it is no step (`apply`).

    Paths are as they were given: relative ones hold in the folder where the command ran.
    """
    from onnxprune.recipe.steps import known

    settings = dict(ending.settings)
    command = settings.pop("command")
    if command not in known():
        return None
    runs = ending.runs
    images = {"size": runs.image_size, "mean": runs.mean, "std": runs.std, "layout": runs.layout}
    outputs = {**vars(ending.outputs), "output": ending.outputs.output or ending.target, "print_recipe": False}
    parts: dict[str, Any] = {
        "model": ending.source,
        "data": runs.data,
        "samples": runs.samples,
        "seed": runs.seed or None,
        "threads": runs.threads or None,
        "provider": runs.provider,
        "input_shapes": runs.input_shapes or None,
        "images": _said(images),
        "steps": [{command: {name: value for name, value in settings.items() if name not in _SHARED}}],
        "gates": _said(vars(ending.limits)),
        "outputs": _said(outputs),
    }
    return _said(parts)


def plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as JSON data."""
    from onnxprune.recipe.recipe import plain as plain_values

    values: dict[str, Any] = plain_values(recipe)
    return values


def written(ending: Ending) -> str:
    """Return the recipe of a command as YAML.

    Raises:
        UsageError: the command is no step of recipes.
    """
    from onnxprune.recipe import to_yaml

    recipe = recipe_of(ending)
    if recipe is None:
        raise UsageError(f"{ending.settings['command']} is no step of recipes.")
    return to_yaml(recipe)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not (value is None or value is False or value in ((), {}))}
