"""The methods that a step can be, as one table: name -> options, call, and what the output is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnxprune.errors import ModelError, UsageError
from onnxprune.job.run import THERE

if TYPE_CHECKING:
    from onnxprune.graph.model import Model
    from onnxprune.job.gates import Gates
    from onnxprune.job.original import Original
    from onnxprune.methods.apply_options import ApplyOptions
    from onnxprune.methods.compensate_options import CompensateOptions
    from onnxprune.methods.factorize import FactorizeResult
    from onnxprune.methods.factorize_options import FactorizeOptions
    from onnxprune.methods.finetune import FinetuneResult
    from onnxprune.methods.finetune_options import FinetuneOptions
    from onnxprune.methods.prune_options import PruneOptions
    from onnxprune.methods.quantize import QuantizeResult
    from onnxprune.methods.quantize_options import QuantizeOptions
    from onnxprune.methods.result import PruneResult
    from onnxprune.methods.sparsify import SparsifyResult
    from onnxprune.methods.sparsify_options import SparsifyOptions
    from onnxprune.methods.trim import TrimResult
    from onnxprune.methods.trim_options import TrimOptions
    from onnxprune.methods.tune import TuneResult
    from onnxprune.methods.tune_options import TuneOptions
    from onnxprune.statistics.data import Data
    from onnxprune.types import Array

Progress = Callable[[str], None]
RANDOM_RANGES = "without --data ranges come from random inputs: the result runs, but its accuracy means nothing"


@dataclass(frozen=True)
class Method:
    """A method: how it is called, and where its options are.

    run: (model, options, original, gates, progress) -> what the method gives.
    kind: name of the class of its options, in the module `<name>_options`.
    ending: what the default name of the output gets: "pruned" gives `<stem>-pruned.onnx`.
    title: what is being done, while it is.
    about: what it is for; the first sentence stands in the list of commands.
    usual: the default name of the output, for the help.
    plans: what it removes can be written as a plan.
    same_work: the result does the same work on as many parameters.
    all_data: it reads all samples of the user, not a few hundred.
    timed: the command measures the result against the original.
    shares: a cluster can take a part of its work.
    measures: it measures latency, which a device can do.
    """

    name: str
    run: Callable[[Model, Any, Original, Gates, Progress], Any]
    kind: str
    ending: str | Callable[[Any], str]
    title: str
    about: str
    usual: str = ""
    plans: bool = False
    same_work: bool = False
    all_data: bool = False
    timed: bool = False
    shares: bool = False
    measures: bool = False

    @cached_property
    def options(self) -> Any:
        """The class of its options."""
        return getattr(importlib.import_module(f"onnxprune.methods.{self.name}_options"), self.kind)

    @cached_property
    def option_names(self) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(item.name for item in fields(self.options))

    @property
    def needless(self) -> tuple[str, ...]:
        """Names of what can be said of a run and would not be looked at."""
        there = () if self.measures else THERE
        targets = () if "target" in self.option_names else ("target",)
        return (*(() if self.shares else ("cluster",)), *targets, *there)

    def suffix(self, options: object) -> str:
        """Return what the default name of the output gets."""
        return self.ending if isinstance(self.ending, str) else self.ending(options)


def _prune(model: Model, options: PruneOptions, original: Original, gates: Gates, progress: Progress) -> PruneResult:
    from onnxprune.methods.prune import prune

    result = prune(model, options, _data(options, original), synthetic=True, runtime=original.run, progress=progress)
    return _with_border(result, original)


def _data(options: CompensateOptions, original: Original) -> Data | None:
    """Return the samples to fit to: all of them where the options choose among them."""
    return original.all_data if options.select is not None else original.data


def _with_border(result: PruneResult, original: Original) -> PruneResult:
    """Return the result; what comes after it is told how inputs and outputs changed."""
    if not result.border.is_open:
        if not original.border.is_open:
            raise UsageError("inputs and outputs change twice in this recipe; let one step do it.")
        original.border, original.current = result.border, result.model
    return result


def _apply(
    model: Model, options: ApplyOptions, original: Original, gates: Gates, progress: Progress
) -> PruneResult | TrimResult:
    from onnxprune.methods.apply import apply, check_source

    plan = options.read_plan()
    if plan.trim:
        check_source(model, plan, options.force, options.same_structure)
        return _trim(model, METHODS["trim"].options.of(**plan.trim), original, gates, progress)
    result = apply(model, options, _data(options, original), runtime=original.run, progress=progress)
    return _with_border(result, original)


def _tune(model: Model, options: TuneOptions, original: Original, gates: Gates, progress: Progress) -> TuneResult:
    from onnxprune.methods.tune import tune

    if original.data is None:
        raise UsageError("tune measures on inputs of the model: give --data.")
    return tune(
        model,
        _data(options, original),
        gates,
        options.prune,
        judged=original.judged,
        evaluate=gates.function(),
        step=options.step,
        finest=options.finest,
        state=options.state,
        workers=options.workers,
        latency=options.measure_latency,
        runtime=original.run,
        progress=progress,
    )


def _sparsify(
    model: Model, options: SparsifyOptions, original: Original, gates: Gates, progress: Progress
) -> SparsifyResult:
    from onnxprune.methods.sparsify import sparsify

    return sparsify(model, options, original.data, runtime=original.run, progress=progress)


def _factorize(
    model: Model, options: FactorizeOptions, original: Original, gates: Gates, progress: Progress
) -> FactorizeResult:
    from onnxprune.methods.factorize import factorize

    return factorize(model, options, original.data, runtime=original.run, progress=progress)


def _quantize(
    model: Model, options: QuantizeOptions, original: Original, gates: Gates, progress: Progress
) -> QuantizeResult:
    from onnxprune.methods.quantization.modes.table import mode_named
    from onnxprune.methods.quantization.recognise import quantized_as
    from onnxprune.methods.quantize import QuantizeResult, quantize

    how = quantized_as(model.proto)
    if how is not None and options.pass_through:
        note = f"the model is quantized already (it has {how}); it is passed through as it is"
        return QuantizeResult(model, "", (), warnings=(note,))
    judge = original.judge(gates)
    needs_data = options.mode is not None and mode_named(options.mode).needs_data

    def feeds() -> list[dict[str, Array]]:
        """Draw them only once there is something to quantize."""
        try:
            drawn = original.feeds()
        except ModelError:
            if needs_data or gates.is_active:
                raise
            drawn = []
        if judge is None:
            original.release()
        return drawn

    synthetic = original.data is None
    result = quantize(model, options, feeds=feeds, judge=judge, threads=original.run.threads, synthetic=synthetic)
    if synthetic and needs_data:
        result = replace(result, warnings=(RANDOM_RANGES, *result.warnings))
    return result


def _bits(options: QuantizeOptions) -> str:
    from onnxprune.methods.quantize_options import suffix

    return suffix(options, options.mode or "dynamic")


def _trim(model: Model, options: TrimOptions, original: Original, gates: Gates, progress: Progress) -> TrimResult:
    from onnxprune.methods.trim import trim

    if model is not original.source:
        raise UsageError("trim changes what the model takes and gives, so it is the first step of a recipe.")
    result = trim(model, options, progress=progress)
    original.border, original.current = result.border, result.model
    return result


def _finetune(
    model: Model, options: FinetuneOptions, original: Original, gates: Gates, progress: Progress
) -> FinetuneResult:
    from onnxprune.graph.model import load
    from onnxprune.methods.finetune import finetune

    if options.compressed is None and model is original.source:
        raise UsageError("finetune improves a compressed model: name it (compressed), or let a step before make it.")
    if original.all_data is None:
        raise UsageError("finetune needs inputs of the model: give --data.")
    if original.current is not None:
        raise UsageError("finetune compares with the original's inputs and outputs, which a step before has changed.")
    compressed = model if options.compressed is None else load(options.compressed)
    samples, run = original.run.samples, original.run
    return finetune(
        original.source, compressed, original.all_data, options, samples=samples, runtime=run, progress=progress
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "apply",
            _apply,
            "ApplyOptions",
            "pruned",
            "removing channels",
            """Apply a plan that was saved with --plan to the model that it was made for.

A plan says what to remove; with --same-structure from the same network trained again, too. What stays is refitted to
--data; without data it stays as it is (unless --compensate asks for made-up inputs), also where the prune that made the
plan refitted it.""",
        ),
        Method(
            "factorize",
            _factorize,
            "FactorizeOptions",
            "factorized",
            "weighing ranks",
            """Replace layers by low-rank factors where that saves parameters and multiply-adds.

Give at most one target out of --params, --macs and --energy.""",
        ),
        Method(
            "finetune",
            _finetune,
            "FinetuneOptions",
            "finetuned",
            "improving",
            """Bring a COMPRESSED model nearer to the original MODEL by gradient steps on --data, labelled or not.

Any model whose tensors correspond to the original's: pruned, trimmed, factorized, sparse (zeros stay zero).""",
            usual="COMPRESSED-finetuned.onnx",
            all_data=True,
            shares=True,
        ),
        Method(
            "prune",
            _prune,
            "PruneOptions",
            "pruned",
            "choosing and removing channels",
            """Remove channels and show that nothing else changed.

What stays is refitted to --data, else to made-up inputs. Give at most one target out of --ratio, --macs, --params,
--size and --latency.""",
            plans=True,
            measures=True,
            shares=True,
        ),
        Method(
            "quantize",
            _quantize,
            "QuantizeOptions",
            _bits,
            "quantizing",
            """Store and compute in fewer bits.

With a quality gate, the layers that cost most stay in float until the gate holds.""",
            usual="MODEL-int8.onnx, -int4, -fp16, -bf16",
            same_work=True,
            timed=True,
        ),
        Method(
            "sparsify",
            _sparsify,
            "SparsifyOptions",
            "sparse",
            "choosing zeros",
            "Make single weights zero: smaller after compression, faster on hardware with sparse units only.",
            same_work=True,
        ),
        Method(
            "trim",
            _trim,
            "TrimOptions",
            "trimmed",
            "taking away",
            """Take away classes, tokens, outputs and inputs that nobody needs. What stays gives what it gave.

SPEC: 0-3,7, labels of the axis (person,car), or @FILE with one of these a line.""",
            plans=True,
        ),
        Method(
            "tune",
            _tune,
            "TuneOptions",
            "tuned",
            "measuring groups",
            """Search the smallest model that keeps a bound, on --data.

The bound is --max-drop with --eval, --min-cosine, --min-agreement or --min-sqnr. Interrupted, the same command goes
on where it was.""",
            plans=True,
            measures=True,
            shares=True,
        ),
    )
}
