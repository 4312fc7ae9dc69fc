"""Which channels stay: groups that may be pruned, scores, and how much where."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from onnxprune.allocate.counts import counts_at
from onnxprune.allocate.curve import Curve
from onnxprune.allocate.masks import best_channels
from onnxprune.allocate.measured_errors import curves, knapsack
from onnxprune.allocate.measures import MEASURES, Measure
from onnxprune.allocate.measuring import effort
from onnxprune.allocate.name_patterns import Names, matching_groups, ratios_of_groups
from onnxprune.allocate.request import Request
from onnxprune.allocate.targets import TOLERANCE, meet
from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import ChannelGroup, Keep
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.methods.depth import Whole
from onnxprune.methods.expert_count import expert_ratios
from onnxprune.methods.latency_target import meet_latency
from onnxprune.methods.peak_target import meet_peak
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.width_rule import rounding
from onnxprune.score.activity import Activity
from onnxprune.score.probe import Probe
from onnxprune.score.scoring import score_groups
from onnxprune.score.usual import usual_score


@dataclass
class Clock:
    """Times of stages.

    curves: predicted CPU seconds of curves and scores that were measured: no clock decides what is left for steps.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    curves: float = 0.0
    timer: Callable[[], float] = time.perf_counter

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage."""
        start = self.timer()
        yield
        self.seconds[name] = self.timer() - start


def choose(
    channels: Channels,
    options: PruneOptions,
    clock: Clock | None = None,
    activity: Activity | None = None,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
    unfitted: Mapping[str, str] | None = None,
    whole: Whole | None = None,
    *,
    quick: bool = False,
) -> tuple[Keep, dict[str, str], list[str]]:
    """Choose the channels that stay.

    Args:
        quick: a latency is predicted from layers, and not looked for.
        whole: the model before branches were dropped, of which a target is a share; None: none were.
        unfitted: groups that no refit makes up for -> why; they stay.

    Returns:
        masks of the groups that lose channels, the reasons of groups left alone, and warnings.

    Raises:
        NothingToPruneError: nothing can be removed as asked, or the target cannot be reached.
        UsageError: a pattern matches nothing.
    """
    clock = clock or Clock()
    if not (options.budget is not None or options.level > 0 or any(options.ratios.values()) or options.experts):
        return {}, left_alone(channels, Names(channels.view, channels.groups), options, unfitted), []
    request, reasons, warnings = prepare(channels, options, clock, activity, unfitted)
    with clock.stage("allocate"):
        runtime = runtime or Runtime()
        keep, remarks = _allocate(channels, request, options, activity, runtime, progress, whole, clock, quick)
    if not keep and options.experts is not None and options.level == 0:
        raise NothingToPruneError(f"experts {options.experts}: every mixture has so many; nothing goes.")
    if not keep and options.budget is None:
        raise NothingToPruneError(
            f"ratio {options.level:g} rounds to no channel in any of {len(request.groups)} groups; ask for more, or "
            "give --align 1."
        )
    return keep, reasons, warnings + remarks


def prepare(
    channels: Channels,
    options: PruneOptions,
    clock: Clock,
    activity: Activity | None,
    unfitted: Mapping[str, str] | None = None,
) -> tuple[Request, dict[str, str], list[str]]:
    """Return the groups that may be pruned with their scores and limits, why others may not, and warnings.

    Raises:
        NothingToPruneError: there are none.
        UsageError: a pattern matches nothing, or data are needed.
    """
    names = Names(channels.view, channels.groups)
    reasons = left_alone(channels, names, options, unfitted)
    groups = tuple(group for group in channels.groups if group.name not in reasons)
    ratios = ratios_of_groups(names, groups, options.ratios)
    if options.experts is not None:
        ratios |= expert_ratios(channels, groups, options.experts)
    rounded = rounding(options, channels.view, latency=options.latency is not None)
    sizes = _axis_sizes(channels, groups)
    if held := rounded.held(groups, sizes, ratios):
        reasons, groups = reasons | held, tuple(group for group in groups if group.name not in held)
    if not groups:
        raise NothingToPruneError(_why_nothing(channels, reasons))
    scope = options.scope or ("sensitivity" if activity and options.budget else "uniform")
    if scope == "sensitivity" and activity is None:
        raise UsageError("--scope sensitivity measures errors on inputs of the model: give --data.")
    with clock.stage("score"):
        name = options.score
        if name is None:
            name, foreseen = usual_score(activity)
            clock.curves += foreseen
        scores, warnings = score_groups(channels.view, groups, name, options.seed, activity, options.randomize)
        warnings += activity.notes if activity else []
    return Request(groups, scores, scope, rounded.widths, options.min_channels, ratios, sizes), reasons, warnings


def _allocate(
    channels: Channels,
    request: Request,
    options: PruneOptions,
    activity: Activity | None,
    runtime: Runtime,
    progress: Callable[[str], None],
    whole: Whole | None,
    clock: Clock,
    quick: bool,
) -> tuple[Keep, list[str]]:
    if options.budget is None:
        return best_channels(request.groups, request.scores, counts_at(request, options.level)), []
    name, goal = options.budget
    flag = name.replace("_", "-")
    notes: list[str] = []
    if request.scope == "sensitivity" and activity is not None:
        table, notes = measured_curves(channels, request, activity, progress, clock)

        def spend(measure: Measure, share: float) -> Keep:
            return knapsack(request, measure, share, flag, table, options.tie_blocks)

    else:

        def spend(measure: Measure, share: float) -> Keep:
            return meet(request, measure, share, flag)

    if name == "latency":
        data = activity.data if activity and activity.data.is_here else None
        before = whole.view.model if whole else None
        return meet_latency(channels, goal, spend, data, runtime, progress, before, quick=quick), notes
    if name == "peak_memory":
        return meet_peak(channels, goal, spend, progress, options.input_shapes), notes
    measure = MEASURES[name](channels, whole)
    keep = spend(measure, goal) if measure({}) > goal else {}
    reached = measure(keep)
    if abs(reached / goal - 1) <= TOLERANCE:
        return keep, notes
    return keep, [
        *notes,
        f"{name} {goal:g} was asked for, {reached:.3f} is left: the aligned widths allow no nearer; see --align",
    ]


def measured_curves(
    channels: Channels,
    request: Request,
    activity: Activity,
    progress: Callable[[str], None],
    clock: Clock | None = None,
) -> tuple[dict[str, Curve], list[str]]:
    """Return what every group costs at each width, and what was left out on a large network."""
    work = effort(channels, activity.data, request.groups)
    probe = Probe(activity, [g for g in request.groups if g.name not in work.unmeasured], work.samples)
    table = curves(request, probe, progress, work.shares, work.unmeasured)
    if clock is not None:
        clock.curves += work.seconds
    return table, [work.note] if work.note else []


def left_alone(
    channels: Channels, names: Names, options: PruneOptions, unfitted: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Say of every group that may not be pruned why."""
    reasons: dict[str, str] = {}
    skipped = matching_groups(names, channels.groups, options.skip, "skip")
    chosen = matching_groups(names, channels.groups, options.only, "only", roles=("writes",))
    for group in channels.groups:
        if not group.active:
            reasons[group.name] = "overlaps with another group, which is pruned instead (see heads and head_dim)"
        elif group.name in skipped:
            reasons[group.name] = "named by skip"
        elif options.experts is not None and group.kind == "expert":
            continue  # asked for by name of its kind, whatever holds others
        elif options.only and group.name not in chosen:
            reasons[group.name] = "not named by only"
        elif options.exact_only and not group.exact:
            reasons[group.name] = "not exact: an operator normalises over its channels"
        elif unfitted and group.name in unfitted:
            reasons[group.name] = unfitted[group.name]
    return reasons


def _axis_sizes(channels: Channels, groups: tuple[ChannelGroup, ...]) -> dict[tuple[str, int], int]:
    parameters = channels.view.parameters
    return {(s.tensor, s.axis): parameters[s.tensor].dims[s.axis] for group in groups for s in group.sites}


def _why_nothing(channels: Channels, reasons: dict[str, str]) -> str:
    """The most frequent reasons, by positions held."""
    held: Counter[str] = Counter(reasons.values())
    if not held:
        for lock in channels.locks:
            held[lock.reason] += lock.size
    shown = "; ".join(reason for reason, _ in held.most_common(3)) or "no weight has an axis that could be cut"
    return f"nothing can be pruned: {shown}. 'onnxprune inspect' lists every reason."
