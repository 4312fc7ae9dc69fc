"""Remove channels: analyse, score, allocate, rewrite.

With data, what stays is refitted to give what the original gave (`compensate`); without, to made-up inputs if asked.
Exact, before that, for groups marked exact: the pruned network computes what the original computes with the parameters
of the removed channels set to zero. Where an operator normalises over the pruned axis the mean and the norm are taken
over what stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

import numpy as np

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.graph.count import WEIGHT_BITS
from onnxprune.graph.drop import shorten
from onnxprune.graph.model import Model, Source, load
from onnxprune.methods.branch_choice import BranchChoice
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.choice import Clock
from onnxprune.methods.compensate_options import require_data
from onnxprune.methods.depth import sizes_left
from onnxprune.methods.finalists import carried_out
from onnxprune.methods.latency_target import share_asked
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.pruning import Pruning
from onnxprune.methods.resize import loose_border
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.selection import rest_of, selected
from onnxprune.methods.synthetic import synthetic as make_up
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.data import Data
from onnxprune.statistics.suspicion import suspicions
from onnxprune.statistics.turning import turned_if_few

LARGEST_BYTES = 512 << 20
"""Larger models are not refitted to made-up inputs unless that is asked for: it may take hours."""
MOST_SECONDS = 30.0
"""CPU seconds, as predicted, of a refit to made-up inputs that nobody asked for."""
TOO_LARGE = (
    "not refitted: there are no data, and the model is large; give --data, or --compensate lstsq for made-up inputs"
)


@on_one_thread
def prune(
    source: Source,
    options: PruneOptions | None = None,
    data: DataSource | None = None,
    *,
    synthetic: bool = False,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> PruneResult:
    """Remove the channels that matter least.

    Args:
        source: path, bytes, ModelProto, onnx-graphsurgeon Graph or Model; it is not changed.
        options: how much, where, by which score; 40 % of every group by l2 if None.
        data: inputs of the kind that the model is used on, without labels.
        synthetic: without data, choose and refit on made-up inputs where that can be done. False: only if
            `options.compensate` asks for a refit.
        runtime: how models are run on the data.
        progress: told what is being done.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read, or has no weights.
        NothingToPruneError: nothing can be removed as asked, or a target cannot be reached.
        UsageError: an option does not fit the model.
    """
    options = options or PruneOptions()
    require_data(options.effort, data, options.select)
    clock, runtime = Clock(), replace(runtime or Runtime(), memory=options.memory)
    with clock.stage("load"):
        model = load(source)
        read = calibration(model, data) if data is not None else None
        given = selected(model, read, options.select, runtime) if read is not None else None
        aside = rest_of(read, given) if read is not None and given is not None and given is not read else None
        samples = turned_if_few(given) if given is not None else None
    if isinstance(options.latency, str):
        share = share_asked(options.latency, model, samples, runtime, progress)
        options = replace(options, latency=share)

    def ready(names: tuple[str, ...]) -> Pruning:
        with clock.stage("analyse"):
            dropped = replace(options, drop=(*options.drop, *names), depth=None)
            own = Clock(clock.seconds)  # what its curves take decides how many steps it may take
            work = ready_to_prune(model, dropped, given, own, runtime, progress)
            return replace(work, aside=aside)

    def doubts() -> tuple[str, ...]:
        return tuple(suspicions(model, given, runtime.threads, runtime.provider)) if given is not None else ()

    if not options.depth:
        return _without_branches(ready(()), samples, synthetic, doubts)
    if samples is None:
        raise UsageError("depth measures what branches are worth on inputs of the model: give --data.")
    with clock.stage("branches"), np.errstate(over="ignore", invalid="ignore"):
        choices = BranchChoice(model, options, samples, runtime, progress).run()
    return carried_out(model, choices, ready, samples, runtime, progress, doubts())


def ready_to_prune(
    model: Model,
    options: PruneOptions,
    given: Data | None,
    clock: Clock,
    runtime: Runtime,
    progress: Callable[[str], None],
) -> Pruning:
    """Return the analysed model without the branches that are named."""
    short = shorten(model, options.drop, options.input_shapes)
    model = short.model if short is not None else model
    if short is not None and short.inputs and options.latency is not None:
        raise UsageError("latency is measured on the original's inputs, which change here; give macs instead.")
    border = loose_border(model, options.resize_io, options.states)
    shapes = sizes_left(short, options.input_shapes)
    sizes = given.sizes if given is not None else None
    channels = analyse(model, shapes, options.heads, options.head_dim, border, sizes)
    require_weights(channels)
    return Pruning(channels, options, clock, runtime, progress, short)


def _without_branches(
    work: Pruning, samples: Data | None, synthetic: bool, doubts: Callable[[], tuple[str, ...]]
) -> PruneResult:
    """Return the model without the channels that go, refitted to samples or, without any, to made-up inputs."""
    options = work.options
    asked = options.compensate not in (None, "none")
    wished = synthetic and options.compensate is None
    if samples is not None or not work.removes or not (asked or wished) or options.stats is not None:
        return work.run(samples, doubts())
    if not asked and work.whole.view.model.size_bytes > LARGEST_BYTES:
        return work.run(None, (TOO_LARGE,))
    try:
        with work.clock.stage("inputs"):
            most = inf if asked else MOST_SECONDS
            made_up = make_up(work.whole, options.input_shapes, options.seed, work.runtime, seconds=most)
        return work.run(made_up)
    except (DataError, ModelError) as error:
        if asked:
            raise
        return work.run(None, (f"not refitted: {error}",))


def require_weights(channels: Channels) -> None:
    parameters = channels.view.parameters.values()
    if not any(parameter.data_type in WEIGHT_BITS and len(parameter.dims) for parameter in parameters):
        raise ModelError("the model has no weights, so there is nothing to prune; give a model with its parameters.")
