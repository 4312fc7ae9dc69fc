"""Low rank: write layers as chains of smaller ones, nearest to what they give on the data.

Nothing stays exact but shapes, names and what is not replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onnxprune.compensate.refit import RefitOptions
from onnxprune.compensate.refit import refit as refit_layers
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.count import macs, params
from onnxprune.graph.model import Model, Source, load
from onnxprune.graph.trace import Trace, trace
from onnxprune.graph.view import View
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.compensate_options import require_data
from onnxprune.methods.factorize_options import FactorizeOptions
from onnxprune.methods.factors.choose import Choice, by_cost, by_energy
from onnxprune.methods.factors.grams import second_moments
from onnxprune.methods.factors.replaceable import Candidate, candidate, obstacle, tables
from onnxprune.methods.factors.replacing import rewrite
from onnxprune.methods.finetune import FinetuneResult
from onnxprune.methods.finetuning.after import improved
from onnxprune.methods.gather import KnownSums
from onnxprune.methods.linear import Linear, chosen_layers, linear_layers, twins
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import Seen, look
from onnxprune.report import Report
from onnxprune.statistics.blas import on_one_thread
from onnxprune.types import Array

NO_GAIN = "no aligned rank saves anything"
NO_NUMBERS = "its weights or what it reads hold NaN or infinite values"
NOT_CHOSEN = "other layers save as much at less error"


@dataclass(frozen=True)
class FactorLayer:
    """What happened to one layer.

    form: "low rank", "tucker", "spatial", or "" where it stays; error: share of what it gives that is lost.
    """

    name: str
    operator: str
    params: int
    form: str = ""
    ranks: tuple[int, ...] = ()
    params_left: int = 0
    error: float = 0.0
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class FactorizeResult:
    """A factorized model and how it came about."""

    model: Model
    layers: tuple[FactorLayer, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    report: Report | None = None
    improved: FinetuneResult | None = None


@on_one_thread
def factorize(
    source: Source,
    options: FactorizeOptions | None = None,
    data: DataSource | None = None,
    *,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> FactorizeResult:
    """Return the model with layers of low rank.

    Args:
        source: path, bytes, ModelProto, onnx-graphsurgeon Graph or Model; it is not changed.
        data: inputs of the kind that the model is used on: factors are near to the layer on them.

    Raises:
        DataError: the data do not fit the model.
        NothingToPruneError: nothing can be replaced, or the target cannot be reached.
        UsageError: a pattern matches nothing, or an option needs data.
    """
    options, runtime, model = options or FactorizeOptions(), runtime or Runtime(), load(source)
    require_data(options.effort, data)
    for name in ("whiten", "refit"):
        if getattr(options, name) and data is None and (name == "refit" or options.stats is None):
            raise UsageError(f"{name} needs inputs of the model: give --data.")
    samples = calibration(model, data) if data is not None else None
    view = View(model)
    traced = trace(view, dict(options.input_shapes))
    layers = [*linear_layers(view), *tables(view, traced)]
    open_ones, reasons = chosen_layers(view, layers, options.skip, options.only)
    for layer in open_ones:
        why = None if layer.node.op_type == "Gather" else obstacle(view, layer)
        if why is not None:
            reasons[layer.name] = why
    open_ones = [layer for layer in open_ones if layer.name not in reasons]
    known = KnownSums.of(options.stats, model) if options.stats is not None else None
    whiten = options.whiten if options.whiten is not None else samples is not None or known is not None
    progress("weighing ranks")
    seen = look(view, samples, runtime) if samples is not None else None
    grams, notes = _grams(open_ones, seen if whiten else None, runtime)
    if known is not None and whiten:
        table = known.grams(view, runtime)
        grams = {layer.name: table[layer.key][0] for layer in open_ones if layer.key in table}
    candidates = [_candidate(view, traced, layer, grams, options) for layer in open_ones]
    reasons |= {c.layer.name: NO_NUMBERS for c in candidates if not c.problem.is_finite}
    candidates = [c for c in candidates if c.layer.name not in reasons]
    choice = _choose(view, traced, candidates, options)
    if not choice:
        raise NothingToPruneError(_why_nothing(reasons, candidates))
    parts = {c.layer.name: (c.layer, choice[c.layer.name], c) for c in candidates if c.layer.name in choice}
    result = rewrite(view, {name: (layer, option, c.build(option)) for name, (layer, option, c) in parts.items()})
    refits = options.refit if options.refit is not None else samples is not None
    if refits and samples is not None and seen is not None:
        progress("fitting the factors to what the original gave")
        wanted = RefitOptions(mix=False, threads=runtime.threads or None)
        form = seen.form(result)
        result = seen.restored(refit_layers(seen.model, form, {}, samples, wanted).model, form, result)
    settings = {"target": dict([options.budget]), "whitened": whiten, "refitted": refits}
    lines = _report(layers, candidates, choice, reasons)
    made, shapes = Model(result.proto, model.path, dict(result.pending)), options.input_shapes
    better, told = improved(model, made, options.effort, samples, runtime, options.seed, shapes, progress)
    warnings = tuple(dict.fromkeys((*(samples.warnings if samples else ()), *notes, *told)))
    made = better.model if better is not None else made
    return FactorizeResult(made, lines, settings, warnings, improved=better)


def _grams(layers: list[Linear], seen: Seen | None, runtime: Runtime) -> tuple[dict[str, Array], tuple[str, ...]]:
    watched = [layer for layer in layers if layer.node.op_type != "Gather"]
    if seen is None or not watched:
        return {}, ()
    there = twins(watched, seen.view)
    threads, provider = runtime.threads or None, runtime.provider
    found, notes = second_moments(seen.model, list(there.values()), seen.data, threads=threads, provider=provider)
    return {name: found[layer.name] for name, layer in there.items() if layer.name in found}, notes


def _candidate(
    view: View, traced: Trace, layer: Linear, grams: dict[str, Array], options: FactorizeOptions
) -> Candidate:
    item = candidate(view, traced, layer, layer.matrix(view.model), grams.get(layer.name), options.multiple)
    item.is_table = layer.node.op_type == "Gather"
    return item


def _choose(view: View, traced: Trace, candidates: list[Candidate], options: FactorizeOptions) -> Choice:
    name, value = options.budget
    if name == "energy":
        return by_energy(candidates, value)
    count = params if name == "params" else macs
    usable = [c for c in candidates if name == "params" or not c.is_table]
    return by_cost(usable, name, sum(count(view, traced.shapes).values()), value)


def _report(
    layers: list[Linear], candidates: list[Candidate], choice: Choice, reasons: dict[str, str]
) -> tuple[FactorLayer, ...]:
    table = {c.layer.name: c for c in candidates}
    lines = []
    for layer in layers:
        name, operator, size = layer.name, layer.node.op_type, layer.parameter.elements
        option = choice.get(name)
        if option is not None:
            form = (option.form, option.ranks, option.params, option.error)
            lines.append(FactorLayer(name, operator, size, *form))
            continue
        why = reasons.get(name) or (NOT_CHOSEN if table[name].options else NO_GAIN)
        lines.append(FactorLayer(name, operator, size, params_left=size, reason=why))
    return tuple(lines)


def _why_nothing(reasons: dict[str, str], candidates: list[Candidate]) -> str:
    if not reasons and not candidates:
        return (
            "the model has no Conv, Gemm, MatMul, recurrent layer or table with a stored weight; nothing to factorize."
        )
    shown = dict.fromkeys([*reasons.values(), *([NO_GAIN] if candidates else [])])
    return f"nothing is worth factors as asked: {'; '.join(shown)}."
