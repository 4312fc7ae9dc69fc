"""Run a recipe: step after step, each result written, looked at against the original, and handed to the next step."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import DataError, GateError, ModelError, UsageError
from onnxprune.graph.model import Model, Source, load, save
from onnxprune.methods.calibration import Runtime, calibration
from onnxprune.recipe.recipe import Recipe, read_recipe
from onnxprune.recipe.steps import Step
from onnxprune.validate.compare import Reference, compare, open_reference
from onnxprune.validate.gates import Gates, evaluate
from onnxprune.validate.session import open_session

if TYPE_CHECKING:
    from onnxprune.channels.plan import Plan
    from onnxprune.statistics.data import Data
    from onnxprune.types import Array
    from onnxprune.validate.compare import Comparison

SAMPLES = 128
"""So many samples are compared when the recipe gives no number."""


@dataclass(frozen=True, eq=False)
class Done:
    """A step that was carried out.

    result: what its method gave; None where the method itself could not keep a gate.
    model: its model, as it is in memory. file: the same, written.
    comparison: its outputs against those of the original, where a gate asked for it.
    drop: how much the user's value fell from the original.
    failures: limits that are not kept.
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
    recipe: Recipe, source: Model, folder: Path, progress: Callable[[str], None] = lambda text: None
) -> Iterator[Done]:
    """Carry out step after step; the last one has failures where a limit was not kept.

    Args:
        folder: the model after every step is written there, and must stay until the last one is done.
    """
    original = _Original(recipe, source, folder)
    with closing(original):
        model = source
        for number, step in enumerate(recipe.steps, 1):
            progress(f"step {number} of {len(recipe.steps)}: {step.method.name}")
            done = _carry_out(original, number, step, model, folder, progress)
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
    return tuple(f"{item.label}: {text}" for item in done for text in getattr(item.result, "warnings", ()))


def _required(model: Source | Path | None) -> Source:
    if model is None:
        raise UsageError("the recipe names no model; give one.")
    return model


def _carry_out(
    original: _Original, number: int, step: Step, model: Model, folder: Path, progress: Callable[[str], None]
) -> Done:
    start, recipe = time.perf_counter(), original.recipe
    gates = replace(recipe.gates, **step.limits)
    offered: dict[str, Callable[[], Any]] = {
        "data": lambda: original.data,
        "feeds": lambda: original.feeds(required=bool(_active(gates))),
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
    comparison = original.compare(file) if gates.needs_outputs else None
    drop = original.drop(file) if gates.max_drop is not None else None
    failures = tuple(gates.failures(comparison.parity if comparison else {}, drop))
    return Done(number, step, result, result.model, file, comparison, drop, failures, time.perf_counter() - start)


def _active(gates: Gates) -> bool:
    return gates.needs_outputs or gates.max_drop is not None


@dataclass(eq=False)
class _Original:
    """The original model: what it gives on the data, and what the user's function says of it. Each is made once."""

    recipe: Recipe
    source: Model
    folder: Path
    _value: list[float] = field(default_factory=list)
    _reference: list[Reference] = field(default_factory=list)

    @cached_property
    def data(self) -> Data | None:
        """The checked data."""
        if self.recipe.data is None:
            return None
        return calibration(self.source, self.recipe.data, self.recipe.samples, self._images)

    @property
    def reference(self) -> Reference:
        """The original in a session, with the samples that outputs are compared on."""
        if not self._reference:
            self._reference.append(self._opened())
        return self._reference[0]

    def feeds(self, *, required: bool) -> list[dict[str, Array]]:
        """Return inputs; none where the model cannot be run, unless that is required."""
        try:
            return [dict(feed) for feed in self.reference.samples]
        except ModelError:
            if required:
                raise
            return []

    def judge(self, gates: Gates) -> Any:
        """Return what tells whether a model keeps the limits; None without limits."""
        if not _active(gates):
            return None
        from onnxprune.methods.quantization.search import Judge

        drop = self._drop_of_model if gates.max_drop is not None else None
        return Judge(self.reference, gates, self.recipe.threads, drop)

    def compare(self, file: Path) -> Comparison:
        """Return how close a model is to the original."""
        runs = self.recipe
        with open_session(file, threads=runs.threads, provider=runs.provider) as session:
            return compare(self.reference, session)

    def drop(self, file: Path) -> float:
        """Return how much the user's value falls."""
        if not self._value:
            self._value.append(self._evaluated(self.source.path or self._written(self.source, "original.onnx")))
        return self._value[0] - self._evaluated(file)

    def close(self) -> None:
        """Let the session go."""
        for reference in self._reference:
            reference.session.close()
        self._reference.clear()

    def _drop_of_model(self, model: Model) -> float:
        return self.drop(self._written(model, "candidate.onnx"))

    def _written(self, model: Model, name: str) -> Path:
        save(model, self.folder / name)
        return self.folder / name

    def _evaluated(self, file: Path) -> float:
        from onnxprune.statistics.sources import load_function

        spec = self.recipe.gates.eval or ""
        path, _, name = spec.rpartition(":")
        if not Path(path).is_file():
            raise DataError(f"eval '{spec}': there is no file '{path}'.")
        return evaluate(load_function(Path(path), name), file, spec)

    @property
    def _images(self) -> Any:
        from onnxprune.statistics.images import ImageOptions

        images = self.recipe.images
        return ImageOptions(images.size, images.mean, images.std, images.layout)

    def _opened(self) -> Reference:
        from onnxprune.graph.trace import trace
        from onnxprune.graph.view import View
        from onnxprune.statistics.batch import batch_size
        from onnxprune.statistics.data import read
        from onnxprune.statistics.feeds import input_specs

        recipe = self.recipe
        view = View(self.source)
        traced = view, trace(view, dict(recipe.input_shapes))
        data = None
        if recipe.data is not None:
            spec = recipe.data if isinstance(recipe.data, str | Path) else self.data
            count, batch = recipe.samples or SAMPLES, batch_size(*traced)
            data = read(spec, input_specs(self.source.proto), samples=count, batch=batch, images=self._images)
        return open_reference(
            self.source,
            file=self.source.path,
            traced=traced,
            data=data,
            data_name=f"{data.samples} samples of {recipe.data}" if data is not None else "",
            data_count=data.samples if data is not None else None,
            samples=recipe.samples,
            seed=recipe.seed,
            input_shapes=recipe.input_shapes,
            threads=recipe.threads,
            provider=recipe.provider,
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
