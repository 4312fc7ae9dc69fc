"""Run a recipe: step after step, each result written, looked at against the original, and handed to the next step."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import GateError, UsageError
from onnxprune.graph.model import Model, Source, load, save
from onnxprune.methods.calibration import Runtime
from onnxprune.methods.result import PruneResult
from onnxprune.recipe.original import Original, is_active
from onnxprune.recipe.recipe import Recipe, read_recipe
from onnxprune.recipe.steps import Step

if TYPE_CHECKING:
    from onnxprune.channels.plan import Plan
    from onnxprune.validate.compare import Comparison
    from onnxprune.validate.examine import Evidence

MASKED_SAMPLES = 8
"""Masked parity is a law, which a few samples show."""


@dataclass(frozen=True, eq=False)
class Done:
    """A step that was carried out.

    result: what its method gave; None where the method itself could not keep a gate.
    model: its model, as it is in memory. file: the same, written.
    comparison: its outputs against those of the original, where a gate asked for it.
    drop: how much the user's value fell from the original.
    failures: limits that are not kept.
    evidence: what masked parity says of a step that removes channels, against the model that it was given.
    """

    number: int
    step: Step
    result: Any
    model: Model | None
    file: Path | None
    comparison: Comparison | None = None
    drop: float | None = None
    failures: tuple[str, ...] = ()
    seconds: float = 0.0
    evidence: Evidence | None = None

    @property
    def label(self) -> str:
        """How people are told of it."""
        return f"step {self.number} ({self.step.method.name})"


@dataclass(frozen=True, eq=False)
class RecipeResult:
    """What a recipe gave.

    model: of the last step.
    steps: what was done. Their files are gone: the models are in memory.
    plan: of the prune, if there was exactly one.
    """

    model: Model
    steps: tuple[Done, ...]
    plan: Plan | None = None
    warnings: tuple[str, ...] = ()


def run_recipe(
    recipe: Recipe | str | Path,
    model: Source | None = None,
    data: Any = None,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> RecipeResult:
    """Carry out a recipe and return the result; nothing is written.

    Args:
        recipe: a Recipe, or the path of one.
        model, data: instead of those of the recipe.

    Raises:
        GateError: a limit is not kept; `last_good` of the error is the model of the step before, or None.
        UsageError: the recipe makes no sense, or has no model.
        OnnxpruneError: what the steps raise.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    recipe = recipe if data is None else replace(recipe, data=data)
    source = load(_required(recipe.model if model is None else model))
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        done = list(run_steps(recipe, source, Path(folder), progress))
        if done[-1].failures:
            raise failed(done, "Nothing was written.")
        result = done[-1].model
        if result is None or result.external_bytes:
            raise UsageError("weights in external files: run this recipe on the command line, which writes its result.")
    return RecipeResult(result, tuple(done), plan_of(done), warnings_of(done))


class RecipeGateError(GateError):
    """A limit was not kept. `last_good`: the model before that step; None if it was the first."""

    last_good: Model | None = None


def failed(done: list[Done], outcome: str) -> RecipeGateError:
    """Return the error of the last step."""
    error = RecipeGateError(f"{done[-1].label}: {'; '.join(done[-1].failures)} {outcome}".replace("..", "."))
    error.last_good = done[-2].model if len(done) > 1 else None
    return error


def run_steps(
    recipe: Recipe,
    source: Model,
    folder: Path,
    progress: Callable[[str], None] = lambda text: None,
    verify: bool | None = None,
) -> Iterator[Done]:
    """Carry out step after step; the last one has failures where a limit was not kept.

    Args:
        folder: the model after every step is written there, and must stay until the last one is done.
        verify: check masked parity of steps that remove channels; None: where it is quick.

    Raises:
        OnnxpruneError: a step is not what the model before it is with the removed channels zeroed: our defect.
    """
    original = Original(recipe, source, folder)
    with closing(original):
        model = source
        for number, step in enumerate(recipe.steps, 1):
            progress(f"step {number} of {len(recipe.steps)}: {step.method.name}")
            done = _carry_out(original, number, step, model, folder, progress, verify)
            yield done
            if done.failures or done.file is None:
                return
            model = load(done.file)


def plan_of(done: list[Done]) -> Plan | None:
    """Return the plan of the one prune there is."""
    plans = [plan for item in done if (plan := getattr(item.result, "plan", None)) is not None]
    return plans[0] if len(plans) == 1 else None


def warnings_of(done: list[Done]) -> tuple[str, ...]:
    """Return what the steps warn of."""
    return tuple(
        f"{item.label}: {text}"
        for item in done
        for text in (*getattr(item.result, "warnings", ()), *(item.evidence.warnings if item.evidence else ()))
    )


def _required(model: Source | Path | None) -> Source:
    if model is None:
        raise UsageError("the recipe names no model; give one.")
    return model


def _carry_out(
    original: Original,
    number: int,
    step: Step,
    model: Model,
    folder: Path,
    progress: Callable[[str], None],
    verify: bool | None,
) -> Done:
    start, recipe = time.perf_counter(), original.recipe
    gates = replace(recipe.gates, **step.limits)
    offered: dict[str, Callable[[], Any]] = {
        "data": lambda: original.data,
        "feeds": lambda: original.feeds(required=bool(is_active(gates))),
        "judge": lambda: original.judge(gates),
        "runtime": lambda: Runtime(recipe.threads, recipe.provider),
        "threads": lambda: recipe.threads,
        "synthetic": lambda: recipe.data is None,
        "progress": lambda: progress,
    }
    try:
        result = step.method.run(model, step.options, offered)
    except GateError as error:
        text = str(error).removesuffix(" Nothing was written.")
        return Done(number, step, None, None, None, failures=(text,), seconds=time.perf_counter() - start)
    file = folder / f"{number}-{step.method.name}.onnx"
    save(result.model, file, source=model)
    evidence = None if verify is False else _masked(original, model, result, file, verify)
    comparison = original.compare(file) if gates.needs_outputs else None
    drop = original.drop(file) if gates.max_drop is not None else None
    failures = tuple(gates.failures(comparison.parity if comparison else {}, drop))
    seconds = time.perf_counter() - start
    return Done(number, step, result, result.model, file, comparison, drop, failures, seconds, evidence)


def _masked(original: Original, model: Model, result: Any, file: Path, verify: bool | None) -> Evidence | None:
    """Check a step that removed channels against the model before it with these channels zeroed."""
    if not isinstance(result, PruneResult) or not result.keep:
        return None
    from onnxprune.validate.examine import examine
    from onnxprune.validate.oracle import masked_model

    recipe = original.recipe
    return examine(
        model,
        file,
        lambda: original.opened(model, min(MASKED_SAMPLES, recipe.samples or MASKED_SAMPLES)),
        lambda: masked_model(result.channels, result.keep),
        verify=verify,
        own_data=recipe.data is not None,
        threads=recipe.threads,
        provider=recipe.provider,
        uncompensated=result.uncompensated if result.compensation is not None else None,
    )


def keep_files(done: list[Done], folder: Path) -> None:
    """Copy the model after every step to a folder, with the data files that belong to it."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in done:
        if item.file is not None:
            for path in item.file.parent.glob(f"{item.file.name}*"):
                shutil.copyfile(path, folder / path.name)


def figures_of(done: Done) -> Mapping[str, float | None]:
    """Return the worst figure of all outputs: cosine, sqnr_db, agreement; empty where nothing was compared."""
    parity = [item.to_json() for item in (done.comparison.parity if done.comparison else {}).values() if item]
    worst = {}
    for name in ("cosine", "sqnr_db", "agreement"):
        values = [value for item in parity if (value := item[name]) is not None and math.isfinite(value)]
        if values:
            worst[name] = min(values)
    return worst
