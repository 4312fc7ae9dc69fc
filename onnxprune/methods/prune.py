"""Remove channels: analyse, score, allocate, rewrite.

With data, what stays is refitted to give what the original gave (`compensate`).
Exact, before that, for groups marked exact: the pruned network computes what the original computes with the parameters
of the removed channels set to zero. Where an operator normalises over the pruned axis the mean and the norm are taken
over what stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import ModelError
from onnxprune.graph.count import WEIGHT_BITS
from onnxprune.graph.model import Source, load
from onnxprune.methods.calibration import DataSource, Runtime, calibration
from onnxprune.methods.choice import Clock, choose
from onnxprune.methods.latency import TOLERANCE, time_both
from onnxprune.methods.options import PruneOptions
from onnxprune.methods.refit import refit
from onnxprune.methods.result import PruneResult
from onnxprune.score.activity import Activity


def prune(
    source: Source,
    options: PruneOptions | None = None,
    data: DataSource | None = None,
    *,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> PruneResult:
    """Remove the channels that matter least.

    Args:
        source: path, bytes, ModelProto, onnx-graphsurgeon Graph or Model; it is not changed.
        options: how much, where, by which score; 40 % of every group by l2 if None.
        data: inputs of the kind that the model is used on, without labels.
        runtime: how models are run on the data.
        progress: told what is being done.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read, or has no weights.
        NothingToPruneError: nothing can be removed as asked, or a target cannot be reached.
        UsageError: an option does not fit the model.
    """
    options = options or PruneOptions()
    clock, runtime = Clock(), replace(runtime or Runtime(), memory=options.memory)
    with clock.stage("load"):
        model = load(source)
        samples = calibration(model, data) if data is not None else None
    with clock.stage("analyse"):
        channels = analyse(model, dict(options.input_shapes), options.heads, options.head_dim)
        require_weights(channels)
    activity = Activity(channels.view, samples, runtime.threads, runtime.provider, options.memory) if samples else None
    progress("choosing channels")
    keep, reasons, warnings = choose(channels, options, clock, activity, runtime, progress)
    with clock.stage("rewrite"):
        plan = channels.plan(keep)
        cut = rewrite(channels, keep)
    result = PruneResult(cut, plan, channels, keep, reasons, tuple(warnings), clock.seconds, cut)
    activity = None  # its Gram matrices have been used
    with clock.stage("compensate"):
        progress("refitting what stays")
        result = refit(result, samples, options.compensate, runtime)
        result = replace(result, warnings=(*result.warnings, *bounded_layers(result)))
    if options.latency is None or not keep:
        return result
    with clock.stage("measure"):
        progress("measuring the result")
        timed = time_both(channels.model, result.model, options.latency, samples, runtime)
        if abs(timed.share - options.latency) > TOLERANCE:
            timed = time_both(channels.model, result.model, options.latency, samples, runtime, effort=3)
    if abs(timed.share - options.latency) > TOLERANCE:
        note = f"--latency {options.latency:g}: {timed.share:.2f} was measured at last; the machine may be busy"
        result = replace(result, warnings=(*result.warnings, note))
    return replace(result, latency=timed)


def bounded_layers(result: PruneResult) -> list[str]:
    """Say what the refit did less well to stay within the memory bound."""
    notes = Counter(layer.bounded for layer in result.compensation.layers) if result.compensation else Counter()
    return [
        f"{count} layer{'s' * (count > 1)} {note}: --memory allows no more; raise it for a better fit"
        for note, count in notes.items()
        if note
    ]


def require_weights(channels: Channels) -> None:
    parameters = channels.view.parameters.values()
    if not any(parameter.data_type in WEIGHT_BITS and len(parameter.dims) for parameter in parameters):
        raise ModelError("the model has no weights, so there is nothing to prune; give a model with its parameters.")
