"""The methods that a step can be, as one table: name -> options, call, and what the output is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnxprune.errors import ModelError, UsageError
from onnxprune.graph.model import Model

if TYPE_CHECKING:
    from onnxprune.job.gates import Gates
    from onnxprune.job.original import Original
    from onnxprune.types import Array

Progress = Callable[[str], None]
RANDOM_RANGES = "without --data ranges come from random inputs: the result runs, but its accuracy means nothing"


@dataclass(frozen=True)
class Method:
    """A method: how it is called, and where its options are.

    run: (model, options, original, gates, progress) -> what the method gives.
    home: module and name of the class of its options.
    ending: what the default name of the output gets: "pruned" gives `<stem>-pruned.onnx`.
    title: what is being done, while it is.
    same_work: the result does the same work on as many parameters.
    all_data: it reads all samples of the user, not a few hundred.
    """

    name: str
    run: Callable[[Model, Any, Original, Gates, Progress], Any]
    home: tuple[str, str]
    ending: str | Callable[[Any], str]
    title: str
    same_work: bool = False
    all_data: bool = False

    @cached_property
    def options(self) -> Any:
        """The class of its options."""
        return getattr(importlib.import_module(f"onnxprune.methods.{self.home[0]}"), self.home[1])

    @cached_property
    def option_names(self) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(item.name for item in fields(self.options))

    def suffix(self, options: Any) -> str:
        """Return what the default name of the output gets."""
        return self.ending if isinstance(self.ending, str) else self.ending(options)


def _prune(model: Model, options: Any, original: Original, gates: Gates, progress: Progress) -> Any:
    from onnxprune.methods.prune import prune

    result = prune(model, options, original.data, synthetic=True, runtime=original.run, progress=progress)
    return _with_border(result, original)


def _with_border(result: Any, original: Original) -> Any:
    """Return the result; what comes after it is told how inputs and outputs changed."""
    if not result.border.is_open:
        if not original.border.is_open:
            raise UsageError("inputs and outputs change twice in this recipe; let one step do it.")
        original.border, original.current = result.border, result.model
    return result


def _apply(model: Model, options: Any, original: Original, gates: Gates, progress: Progress) -> Any:
    from onnxprune.methods.apply import apply, check_source

    plan = options.read_plan()
    if plan.trim:
        check_source(model, plan, options.force)
        return _trim(model, METHODS["trim"].options.of(**plan.trim), original, gates, progress)
    result = apply(model, options, original.data, runtime=original.run, progress=progress)
    return _with_border(result, original)


def _tune(model: Model, options: Any, original: Original, gates: Gates, progress: Progress) -> Any:
    from onnxprune.methods.tune import tune

    if original.data is None:
        raise UsageError("tune measures on inputs of the model: give --data.")
    return tune(
        model,
        original.data,
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


def _sparsify(model: Model, options: Any, original: Original, gates: Gates, progress: Progress) -> Any:
    from onnxprune.methods.sparsify import sparsify

    return sparsify(model, options, original.data, runtime=original.run, progress=progress)


def _factorize(model: Model, options: Any, original: Original, gates: Gates, progress: Progress) -> Any:
    from onnxprune.methods.factorize import factorize

    return factorize(model, options, original.data, runtime=original.run, progress=progress)


def _quantize(model: Model, options: Any, original: Original, gates: Gates, progress: Progress) -> Any:
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


def _bits(options: Any) -> str:
    from onnxprune.methods.quantization.options import suffix

    return suffix(options, options.mode or "dynamic")


def _trim(model: Model, options: Any, original: Original, gates: Gates, progress: Progress) -> Any:
    from onnxprune.methods.trim import trim

    if model is not original.source:
        raise UsageError("trim changes what the model takes and gives, so it is the first step of a recipe.")
    result = trim(model, options, progress=progress)
    original.border, original.current = result.border, result.model
    return result


def _finetune(model: Model, options: Any, original: Original, gates: Gates, progress: Progress) -> Any:
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
        Method("apply", _apply, ("apply", "ApplyOptions"), "pruned", "removing channels"),
        Method("factorize", _factorize, ("factors.options", "FactorizeOptions"), "factorized", "weighing ranks"),
        Method(
            "finetune", _finetune, ("finetuning.options", "FinetuneOptions"), "finetuned", "improving", all_data=True
        ),
        Method("prune", _prune, ("options", "PruneOptions"), "pruned", "choosing and removing channels"),
        Method("quantize", _quantize, ("quantization.options", "QuantizeOptions"), _bits, "quantizing", same_work=True),
        Method(
            "sparsify", _sparsify, ("sparsity.options", "SparsifyOptions"), "sparse", "choosing zeros", same_work=True
        ),
        Method("trim", _trim, ("trimming.options", "TrimOptions"), "trimmed", "taking away"),
        Method("tune", _tune, ("tune_options", "TuneOptions"), "tuned", "measuring groups"),
    )
}
