"""From options to evidence: the original with its samples, figures into the report, gates into an exit code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cli.options import Limits, Runs
from onnxprune.cli.screen import Screen
from onnxprune.errors import DataError, GateError, UsageError
from onnxprune.report import Report, Side
from onnxprune.validate.gates import Gates, evaluate

if TYPE_CHECKING:
    from onnxprune.channels.analyse import Channels
    from onnxprune.channels.groups import Keep
    from onnxprune.graph.model import Model
    from onnxprune.graph.trace import Trace
    from onnxprune.graph.view import View
    from onnxprune.methods.result import PruneResult
    from onnxprune.statistics.data import Data
    from onnxprune.statistics.images import ImageOptions
    from onnxprune.validate.compare import Comparison, Reference
    from onnxprune.validate.parity import Meters


DATA_SAMPLES = 128
"""Samples of the user's data that outputs are compared on when --samples is not given."""


def images_of(runs: Runs) -> ImageOptions:
    """Return how images become inputs."""
    from onnxprune.statistics.images import ImageOptions

    return ImageOptions(runs.image_size, runs.mean or (0.0,), runs.std or (1.0,), runs.layout)


def samples_of(model: Model, runs: Runs) -> Data | None:
    """Return the checked data of --data, None without it.

    Raises:
        DataError: they do not fit the model.
    """
    if runs.data is None:
        return None
    from onnxprune.methods.calibration import calibration

    return calibration(model, runs.data, runs.samples, images_of(runs))


def reference(model: Model, runs: Runs, traced: tuple[View, Trace] | None = None) -> Reference:
    """Return the original, ready to be compared with, on the data of the user or on random inputs."""
    from onnxprune.validate.compare import open_reference

    data, name, count = None, "", None
    if runs.data is not None:
        from onnxprune.statistics.batch import batch_size
        from onnxprune.statistics.data import read
        from onnxprune.statistics.feeds import input_specs

        size = batch_size(*traced) if traced is not None else None
        count = runs.samples or DATA_SAMPLES
        data = read(runs.data, input_specs(model.proto), samples=count, batch=size, images=images_of(runs))
        count = data.samples
        name = f"{count} samples of {runs.data}"
    return open_reference(
        model,
        file=model.path,
        traced=traced,
        data=data,
        data_name=name,
        data_count=count,
        samples=runs.samples,
        seed=runs.seed,
        input_shapes=runs.input_shapes,
        threads=runs.threads,
        provider=runs.provider,
    )


def describe(model: Model, input_shapes: dict[str, tuple[int, ...]] | None = None) -> Side:
    """Return the size of a model: parameters, bytes, and MACs of one sample."""
    from onnxprune.graph.trace import trace
    from onnxprune.graph.view import View

    view = View(model)
    return describe_view(view, trace(view, input_shapes or {}))


def read(record: Report, screen: Screen, path: Path, runs: Runs) -> tuple[Model, tuple[View, Trace]]:
    """Return the model of a file, and the same traced; what it is made of goes into the report."""
    from onnxprune.graph.model import load
    from onnxprune.graph.trace import trace
    from onnxprune.graph.view import View

    with screen.stage(record, "load", "reading the model"):
        model = load(path)
        view = View(model)
        traced = view, trace(view, runs.input_shapes)
        record.input = describe_view(*traced)
    return model, traced


def same_work(before: Side | None) -> Side | None:
    """Return the size of the result as far as it is known: it does the same work on as many parameters."""
    return Side(path=None, params=before.params, macs=before.macs) if before else None


def describe_view(view: View, traced: Trace) -> Side:
    """Return the size of a model that has been traced already."""
    from onnxprune.graph.count import macs, params
    from onnxprune.statistics.batch import batch_of

    model = view.model
    return Side(
        path=str(model.path) if model.path else None,
        sha256=model.sha256,
        bytes=model.size_bytes,
        params=sum(params(view, traced.shapes).values()),
        macs=round(sum(macs(view, traced.shapes).values()) / batch_of(view, traced)),
    )


def describe_pruned(channels: Channels, keep: Keep) -> tuple[Side, Side]:
    """Return the size of a model before and, as far as it is known without the file, after pruning."""
    from onnxprune.graph.count import macs, params
    from onnxprune.statistics.batch import batch_of

    before = describe_view(channels.view, channels.trace)
    shapes = channels.shapes(keep)
    amount = sum(macs(channels.view, shapes).values()) / batch_of(channels.view, channels.trace)
    return before, Side(path=None, params=sum(params(channels.view, shapes).values()), macs=round(amount))


def note_limits(report: Report, channels: Channels) -> None:
    """Warn of operators that the analysis has no rule for, and of rules that failed."""
    for operator, number in sorted(channels.state.unknown.items()):
        nodes = f"{number} node{'s' * (number > 1)}"
        report.warn(f"no rule for the operator {operator} ({nodes}): what it touches stays as it is")
    for defect in channels.state.defects:
        report.warn(f"{defect}; what it touches stays as it is. Please report it")


def gates_of(limits: Limits) -> Gates:
    """Return the gates.

    Raises:
        UsageError: --max-drop without --eval.
    """
    if limits.max_drop is not None and limits.eval is None:
        raise UsageError("--max-drop needs --eval file.py:function, which measures what may drop.")
    return Gates(limits.min_cosine, limits.min_sqnr, limits.min_agreement, limits.max_drop)


def note_comparison(report: Report, comparison: Comparison) -> None:
    """Put the figures of a comparison into the report."""
    report.parity = {name: figures.to_json() if figures else None for name, figures in comparison.parity.items()}
    report.details |= {"inputs": comparison.inputs, "samples": comparison.samples}
    for warning in comparison.warnings:
        report.warn(warning)


def note_compensation(report: Report, result: PruneResult, data: Data | None = None) -> None:
    """Put what the refit did to every layer into the report."""
    done, data = result.compensation, data or result.samples
    if done is None or data is None:
        return
    layers = [
        {**asdict(layer), "before": finite_or_none(layer.before), "after": finite_or_none(layer.after)}
        for layer in done.layers
    ]
    report.details["compensation"] = {"samples": data.samples, "made_up": data.synthetic, "layers": layers}
    if done.distilled is not None:
        report.details["compensation"]["distance"] = asdict(done.distilled)


def note_latency(report: Report, result: PruneResult) -> None:
    """Put what was measured for a latency target into the report."""
    if result.latency is not None:
        found = result.latency
        report.latency = {"original": found.original.to_json(), "pruned": found.pruned.to_json()}
        report.details["latency_share"] = {"asked": found.asked, "measured": round(found.share, 4)}


def note_noise(report: Report, noise: Meters) -> None:
    """Put the difference of the original from itself into the report."""
    report.details["self_noise"] = {
        name: figures.to_json() if figures else None for name, figures in noise.results().items()
    }


def finite_or_none(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return value if math.isfinite(value) else None


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the values with None for what is not finite, as JSON needs it."""
    return {name: finite_or_none(value) for name, value in values.items()}


def check_sources(runs: Runs, limits: Limits | None) -> None:
    """Look, before any work, whether the files of --data and --eval are there.

    Raises:
        DataError: one is not, or the function of --eval does not load.
    """
    if runs.data is not None:
        file, colon, _ = runs.data.rpartition(":")
        if not Path(runs.data).exists() and not (colon and Path(file).is_file()):
            raise DataError(f"--data '{runs.data}' does not exist; give .npz, .npy, a folder, or file.py:function.")
    if limits is not None and limits.eval is not None:
        evaluator(limits.eval)


def measure_drop(report: Report, limits: Limits, original: Path, compressed: Path) -> float | None:
    """Return how much the user's value falls from the original to the compressed model; None without --eval."""
    if limits.eval is None:
        return None
    before, after = evaluated(limits.eval, original), evaluated(limits.eval, compressed)
    report.details["evaluation"] = {"before": before, "after": after, "drop": before - after}
    return before - after


def evaluated(spec: str, path: Path) -> float:
    """Return the user's value of a model, by the function of --eval."""
    return evaluate(evaluator(spec), path, spec)


def evaluator(spec: str) -> Callable[..., Any]:
    """Return the function of --eval.

    Raises:
        DataError: the file does not load or has no such function.
        UsageError: it is not like file.py:function.
    """
    from onnxprune.statistics.sources import FileFunction

    file, colon, name = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise UsageError(f"--eval '{spec}': give file.py:function.")
    if not Path(file).is_file():
        raise DataError(f"--eval '{spec}': there is no file '{file}'; give file.py:function.")
    found = FileFunction(Path(file), name)
    _ = found.function  # what is wrong with it is told now, not in the middle of a search
    return found


def check_gates(gates: Gates, comparison: Comparison | None, drop: float | None, outcome: str) -> None:
    """End with what failed.

    Raises:
        GateError: a limit is not kept.
    """
    failures = gates.failures(comparison.parity if comparison else {}, drop)
    if failures:
        raise GateError(f"{'; '.join(failures)}. {outcome}")
