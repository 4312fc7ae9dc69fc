"""What a step did, into the report: a function for each kind of result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.graph.drop import sum_of
from onnxprune.job.group_lines import pruned
from onnxprune.job.sides import describe, describe_pruned, describe_view
from onnxprune.report import Report

if TYPE_CHECKING:
    from onnxprune.channels.analyse import Channels
    from onnxprune.evidence.compare import Comparison
    from onnxprune.evidence.decisions import Decision
    from onnxprune.evidence.parity import Meters
    from onnxprune.graph.model import Model
    from onnxprune.methods.factorize import FactorizeResult
    from onnxprune.methods.finetune import FinetuneResult
    from onnxprune.methods.quantize import QuantizeResult
    from onnxprune.methods.result import PruneResult
    from onnxprune.methods.sparsify import SparsifyResult
    from onnxprune.methods.trim import TrimResult
    from onnxprune.methods.tune import TuneResult
    from onnxprune.statistics.data import Data


def describe_result(report: Report, source: Model, result: object, data: Data | None) -> None:
    """Put what a method says of its result into the report.

    Args:
        data: of the user, that the method was given.
    """
    _KINDS[type(result).__name__](report, source, result, data)


def note_mended(report: Report, model: Model) -> None:
    """Tell what was mended in a model while it was read."""
    for note in model.notes:
        report.warn(f"mended while reading: {note}")


def note_limits(report: Report, channels: Channels) -> None:
    """Warn of operators that the analysis has no rule for, and of rules that failed."""
    for operator, number in sorted(channels.state.unknown.items()):
        nodes = f"{number} node{'s' * (number > 1)}"
        report.warn(f"no rule for the operator {operator} ({nodes}): what it touches stays as it is")
    for defect in channels.state.defects:
        report.warn(f"{defect}; what it touches stays as it is. Please report it")


def note_comparison(report: Report, comparison: Comparison) -> None:
    """Put the figures of a comparison into the report."""
    report.parity = {name: figures.to_json() if figures else None for name, figures in comparison.parity.items()}
    report.details |= {"inputs": comparison.inputs, "samples": comparison.samples}
    if comparison.changed and not comparison.made_up:
        shown = [_decision(told) for told in comparison.changed]
        report.details["decisions"] = {"changed": dict(comparison.changed_counts), "shown": shown}
    for warning in comparison.warnings:
        report.warn(warning)


def _decision(told: Decision) -> dict[str, object]:
    from onnxprune.report.decision_section import to_png

    line: dict[str, object] = {"output": told.output, "sample": told.sample, "before": told.before}
    line |= {"after": told.after, "confidence": [round(sure, 4) for sure in told.confidence]}
    if told.picture is not None:
        rows = [row.tobytes() for row in told.picture]
        line["picture"] = to_png(rows, told.picture.shape[1], colours=told.picture.ndim == 3)
    return line


def note_noise(report: Report, noise: Meters) -> None:
    """Put the difference of the original from itself into the report."""
    report.details["self_noise"] = {
        name: figures.to_json() if figures else None for name, figures in noise.results().items()
    }


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the values with None for what is not finite, as JSON needs it."""
    return {name: finite_or_none(value) for name, value in values.items()}


def finite_or_none(value: float | None) -> float | None:
    """Return a number that JSON can hold."""
    return value if value is not None and math.isfinite(value) else None


def _prune(report: Report, source: Model, result: PruneResult, data: Data | None) -> None:
    channels, keep = result.channels, result.keep
    report.groups = pruned(channels, keep, result.reasons)
    report.input, report.output = describe_pruned(channels, keep)
    if result.rounding is not None:
        report.details["widths"] = result.rounding.told
    if result.short is not None:
        report.input = describe_view(result.view, result.trace)
        short = result.short
        instead = {one.total: one.kind for one in result.substitutes}
        totals = [sum_of(branch) for branch in short.branches]
        report.details["dropped"] = {
            "branches": short.names,
            "inputs": list(short.inputs),
            "outputs": list(short.outputs),
            "substitutes": {
                name: instead[total] for name, total in zip(short.names, totals, strict=True) if total in instead
            },
        }
        if instead:
            report.output = describe(result.model, {})
    _warn(report, result.warnings)
    note_limits(report, channels)
    if result.latency is not None:
        found = result.latency
        report.latency = {"original": found.original.to_json(), "pruned": found.pruned.to_json()}
        report.details["latency_share"] = {"asked": found.asked, "measured": round(found.share, 4)}
        if found.where:
            report.details["latency_inputs"] = f"by {found.where}"
            report.details["latency_share"]["where"] = found.where
    done, samples = result.compensation, data or result.samples
    if done is None or samples is None:
        return
    layers = [
        {**asdict(layer), "before": finite_or_none(layer.before), "after": finite_or_none(layer.after)}
        for layer in done.layers
    ]
    report.details["compensation"] = {"samples": samples.samples, "made_up": samples.synthetic, "layers": layers}
    if done.distilled is not None:
        report.details["compensation"]["distance"] = asdict(done.distilled)


def _trim(report: Report, source: Model, result: TrimResult, data: Data | None) -> None:
    report.details["trim"] = {
        "shapes": {name: {"before": list(old), "after": list(new)} for name, (old, new) in result.shapes.items()},
        "inputs_gone": list(result.inputs),
        "cuts": [
            {"tensor": cut.tensor, "axis": cut.axis, "size": len(cut.kept), "kept": int(cut.kept.sum())}
            for cut in result.cuts
        ],
        "tokens": {name: {"rows": len(kept), "kept": int(kept.sum())} for name, kept in result.tokens.items()},
        "weighed_anew": list(result.weighed),
    }
    lines = [f"'{c.tensor}', axis {c.axis}: {int(c.kept.sum())} of {len(c.kept)} positions stay." for c in result.cuts]
    lines += [f"'{name}': {int(k.sum())} of {len(k)} tokens have their row." for name, k in result.tokens.items()]
    if result.weighed:
        lines.append(f"Taken over what is left: {', '.join(result.weighed)}.")
    report.details["verdicts"] = lines
    _warn(report, result.warnings)
    note_limits(report, result.channels)


def _tune(report: Report, source: Model, result: TuneResult, data: Data | None) -> None:
    best = result.pareto()
    report.details["curve"] = [asdict(point) | {"pareto": point in best} for point in result.curve]
    _prune(report, source, result.result, data)


def _sparsify(report: Report, source: Model, result: SparsifyResult, data: Data | None) -> None:
    from onnxprune.methods.sparsity.storage import compressed_bytes

    layers = [
        {
            **asdict(layer),
            "error": finite_or_none(layer.error),
            "magnitude_error": finite_or_none(layer.magnitude_error),
        }
        for layer in result.layers
    ]
    taking = [layer for layer in result.layers if layer.reason is None]
    report.details["sparsity"] = {
        **result.settings,
        "weights": sum(layer.weights for layer in taking),
        "zeros": sum(layer.zeros for layer in taking),
        "compressed_bytes": {"input": compressed_bytes(source), "output": compressed_bytes(result.model)},
        "layers": layers,
    }
    _improved(report, result.improved)
    _warn(report, result.warnings)


def _factorize(report: Report, source: Model, result: FactorizeResult, data: Data | None) -> None:
    layers = [
        {**asdict(layer), "ranks": list(layer.ranks), "error": finite_or_none(layer.error)} for layer in result.layers
    ]
    report.details["factors"] = {**result.settings, "layers": layers}
    _improved(report, result.improved)
    _warn(report, result.warnings)


def _finetune(report: Report, source: Model, result: FinetuneResult, data: Data | None) -> None:
    _improved(report, result)
    _warn(report, result.warnings)


def _improved(report: Report, result: FinetuneResult | None) -> None:
    if result is None:
        return
    told = ("best_step", "steps", "outlook", "zeros", "criterion")
    curve = [[step, loss if loss >= 0 else None] for step, loss in result.curve]
    report.details["finetune"] = {
        "before": finite_or_none(result.before),
        "after": finite_or_none(result.after),
        **{name: getattr(result, name) for name in told},
        "curve": curve,
        "compared": list(result.compared),
        "not_corresponding": list(result.lost),
        "augment": list(result.kinds),
    }
    better = f"the best, at step {result.best_step}, was taken" if result.best_step else "none was better, all stays"
    lines = [
        f"Gradient steps: {result.steps}; held-out distance {result.before:.3g} before, {result.after:.3g} after; "
        f"{better}.",
        f"Compared: {len(result.compared)} tensors; samples varied by {', '.join(result.kinds) or 'nothing'}.",
    ]
    lines += [f"{result.zeros} weights were zero and stay so."] if result.zeros else []
    lines += [result.outlook] if result.outlook else []
    report.details["verdicts"] = lines


def _quantize(report: Report, source: Model, result: QuantizeResult, data: Data | None) -> None:
    if result.mode:
        report.details["quantization"] = result.settings
        report.details["layers"] = [layer.to_json() for layer in result.layers]
    _warn(report, result.warnings)


def _warn(report: Report, texts: tuple[str, ...]) -> None:
    for text in texts:
        report.warn(text)


_KINDS: dict[str, Callable[[Report, Model, Any, Any], None]] = {
    "PruneResult": _prune,
    "FinetuneResult": _finetune,
    "TrimResult": _trim,
    "TuneResult": _tune,
    "SparsifyResult": _sparsify,
    "FactorizeResult": _factorize,
    "QuantizeResult": _quantize,
}
