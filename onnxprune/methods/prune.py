"""Remove channels: analyse, score, allocate, rewrite.

With data, what stays is refitted to give what the original gave (`compensate`).
Exact, before that, for groups marked exact: the pruned network computes what the original computes with the parameters
of the removed channels set to zero. Where an operator normalises over the pruned axis the mean and the norm are taken
over what stays.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.allocate import MEASURES, Names, Request, matching_groups, meet
from onnxprune.allocate.counts import counts_at
from onnxprune.allocate.masks import best_channels
from onnxprune.allocate.measures import Measure
from onnxprune.allocate.probe import Probe
from onnxprune.allocate.ratios import ratios_of_groups
from onnxprune.allocate.sensitivity import curves, knapsack
from onnxprune.allocate.targets import TOLERANCE
from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.groups import ChannelGroup, Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import ModelError, NothingToPruneError, UsageError
from onnxprune.graph.count import WEIGHT_BITS
from onnxprune.graph.model import Source, load
from onnxprune.methods.calibration import DataSource, Runtime, calibration
from onnxprune.methods.latency import ALIGN, meet_latency, time_both
from onnxprune.methods.latency import TOLERANCE as LATENCY_TOLERANCE
from onnxprune.methods.options import PruneOptions
from onnxprune.methods.refit import refit
from onnxprune.methods.result import PruneResult
from onnxprune.score import score_groups
from onnxprune.score.activity import Activity
from onnxprune.score.registry import DEFAULT, DEFAULT_WITH_DATA


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
    clock, runtime = Clock(), runtime or Runtime()
    with clock.stage("load"):
        model = load(source)
        samples = calibration(model, data) if data is not None else None
    with clock.stage("analyse"):
        channels = analyse(model, dict(options.input_shapes), options.heads, options.head_dim)
        _require_weights(channels)
    activity = Activity(channels.view, samples, runtime.threads, runtime.provider, options.memory) if samples else None
    progress("choosing channels")
    keep, reasons, warnings = choose(channels, options, clock, activity, runtime, progress)
    with clock.stage("rewrite"):
        plan = channels.plan(keep)
        cut = rewrite(channels, keep)
    result = PruneResult(cut, plan, channels, keep, reasons, tuple(warnings), clock.seconds, cut)
    with clock.stage("compensate"):
        progress("refitting what stays")
        result = refit(result, samples, options.compensate, runtime)
    if options.latency is None or not keep:
        return result
    with clock.stage("measure"):
        progress("measuring the result")
        timed = time_both(channels.model, result.model, options.latency, samples, runtime)
        if abs(timed.share - options.latency) > LATENCY_TOLERANCE:
            timed = time_both(channels.model, result.model, options.latency, samples, runtime, effort=3)
    if abs(timed.share - options.latency) > LATENCY_TOLERANCE:
        note = f"--latency {options.latency:g}: {timed.share:.2f} was measured at last; the machine may be busy"
        result = replace(result, warnings=(*result.warnings, note))
    return replace(result, latency=timed)


@dataclass
class Clock:
    """Times of stages."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def choose(
    channels: Channels,
    options: PruneOptions,
    clock: Clock | None = None,
    activity: Activity | None = None,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[Keep, dict[str, str], list[str]]:
    """Choose the channels that stay.

    Returns:
        masks of the groups that lose channels, the reasons of groups left alone, and warnings.

    Raises:
        NothingToPruneError: nothing can be removed as asked, or the target cannot be reached.
        UsageError: a pattern matches nothing.
    """
    clock = clock or Clock()
    names = Names(channels.view, channels.groups)
    reasons = _left_alone(channels, names, options)
    groups = tuple(group for group in channels.groups if group.name not in reasons)
    ratios = ratios_of_groups(names, groups, options.ratios)
    asked = options.target is not None or options.level > 0 or any(options.ratios.values())
    if not asked:
        return {}, reasons, []
    if not groups:
        raise NothingToPruneError(_why_nothing(channels, reasons))
    with clock.stage("score"):
        name = options.score or (DEFAULT_WITH_DATA if activity else DEFAULT)
        scores, warnings = score_groups(channels.view, groups, name, options.seed, activity)
    scope = options.scope or ("sensitivity" if activity and options.target else "uniform")
    if scope == "sensitivity" and activity is None:
        raise UsageError("--scope sensitivity measures errors on inputs of the model: give --data.")
    align = ALIGN if options.latency is not None and options.align is None else options.align
    request = Request(groups, scores, scope, align, options.min_channels, ratios, _axis_sizes(channels, groups))
    with clock.stage("allocate"):
        keep, remarks = _allocate(channels, request, options, activity, runtime or Runtime(), progress)
    if not keep and options.target is None:
        raise NothingToPruneError(
            f"ratio {options.level:g} rounds to no channel in any of {len(groups)} groups; ask for more, or give "
            "--align 1."
        )
    return keep, reasons, warnings + remarks


def _allocate(
    channels: Channels,
    request: Request,
    options: PruneOptions,
    activity: Activity | None,
    runtime: Runtime,
    progress: Callable[[str], None],
) -> tuple[Keep, list[str]]:
    if options.target is None:
        return best_channels(request.groups, request.scores, counts_at(request, options.level)), []
    name, goal = options.target
    if request.scope == "sensitivity" and activity is not None:
        table = curves(request, Probe(activity, request.groups), progress)

        def spend(measure: Measure, share: float) -> Keep:
            return knapsack(request, measure, share, name, table, options.tie_blocks)

    else:

        def spend(measure: Measure, share: float) -> Keep:
            return meet(request, measure, share, name)

    if name == "latency":
        return meet_latency(channels, goal, spend, activity.data if activity else None, runtime, progress), []
    measure = MEASURES[name](channels)
    keep = spend(measure, goal)
    reached = measure(keep)
    if abs(reached / goal - 1) <= TOLERANCE:
        return keep, []
    return keep, [
        f"{name} {goal:g} was asked for, {reached:.3f} is left: the aligned widths allow no nearer; see --align"
    ]


def _left_alone(channels: Channels, names: Names, options: PruneOptions) -> dict[str, str]:
    """Say of every group that may not be pruned why."""
    reasons: dict[str, str] = {}
    skipped = matching_groups(names, channels.groups, options.skip, "skip")
    chosen = matching_groups(names, channels.groups, options.only, "only", roles=("writes",))
    for group in channels.groups:
        if not group.active:
            reasons[group.name] = "overlaps with another group, which is pruned instead (see heads and head_dim)"
        elif group.name in skipped:
            reasons[group.name] = "named by skip"
        elif options.only and group.name not in chosen:
            reasons[group.name] = "not named by only"
        elif options.exact_only and not group.exact:
            reasons[group.name] = "not exact: an operator normalises over its channels"
    return reasons


def _axis_sizes(channels: Channels, groups: tuple[ChannelGroup, ...]) -> dict[tuple[str, int], int]:
    parameters = channels.view.parameters
    return {(s.tensor, s.axis): parameters[s.tensor].dims[s.axis] for group in groups for s in group.sites}


def _require_weights(channels: Channels) -> None:
    parameters = channels.view.parameters.values()
    if not any(parameter.data_type in WEIGHT_BITS and len(parameter.dims) for parameter in parameters):
        raise ModelError("the model has no weights, so there is nothing to prune; give a model with its parameters.")


def _why_nothing(channels: Channels, reasons: dict[str, str]) -> str:
    """The most frequent reasons, by positions held."""
    held: Counter[str] = Counter(reasons.values())
    if not held:
        for lock in channels.locks:
            held[lock.reason] += lock.size
    shown = "; ".join(reason for reason, _ in held.most_common(3)) or "no weight has an axis that could be cut"
    return f"nothing can be pruned: {shown}. 'onnxprune inspect' lists every reason."


def kept_channels(group: ChannelGroup, keep: Keep) -> int:
    """Return how many channels of a group stay."""
    return int(np.count_nonzero(keep[group.name])) if group.name in keep else group.size
