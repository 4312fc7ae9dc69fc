"""A latency target: predicted from a table of layers, measured on the whole model, corrected until it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from onnxprune.allocate.device_table import DeviceTable
from onnxprune.allocate.masks import equal_masks
from onnxprune.allocate.measures import MEASURES, Measure
from onnxprune.allocate.timetable import Timetable
from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import NothingToPruneError
from onnxprune.evidence.elsewhere_bench import timed_there
from onnxprune.methods.elsewhere import layer_times, stopwatch_of
from onnxprune.methods.prune_options import milliseconds_of
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.data import Data

if TYPE_CHECKING:
    from onnxprune.evidence.latency import Timing
    from onnxprune.graph.model import Model

TOLERANCE = 0.03
"""Distance from the asked share at which a measured one counts as met."""
CLOSE_ENOUGH = 0.012
"""Distance at which nothing nearer is looked for."""
ROUNDS = 7
RUNS, SECONDS = 20_000, 2.5
"""Of one measurement. Short networks run often, so that a busy second does not decide."""
FINALISTS = 3
"""So many candidates are measured again, longer, before one is chosen."""


@dataclass(frozen=True)
class Latency:
    """What was asked and what was measured: the original and the pruned model in turns.

    where: what measured them, "" for this machine.
    """

    asked: float
    original: Timing
    pruned: Timing
    where: str = ""

    @property
    def share(self) -> float:
        """What is left of the latency."""
        return self.pruned.steady_ms / self.original.steady_ms


def time_both(
    original: Model,
    pruned: Model,
    asked: float,
    data: Data | None,
    runtime: Runtime,
    effort: int = 1,
    energy: bool = False,
) -> Latency:
    """Return the latency of both models, measured in turns on one sample; `effort` times as long as usual.

    energy: and the energy, where it can be measured.
    """
    from onnxprune.evidence.bench import bench

    feeds = next(iter(data.batches(1))) if data is not None else None
    watch = stopwatch_of(runtime)
    if watch is not None:
        first, second = timed_there(watch, [original, pruned], feeds)
        return Latency(asked, first, second, watch.name)
    timings = bench(
        [original, pruned],
        runs=effort * RUNS,
        seconds=effort * SECONDS,
        threads=runtime.threads,
        provider=runtime.provider,
        feeds=feeds,
        energy=energy,
    )
    before, after = timings.values()
    return Latency(asked, before, after)


def meet_latency(
    channels: Channels,
    goal: float,
    choose: Callable[[Measure, float], Keep],
    data: Data | None,
    runtime: Runtime,
    progress: Callable[[str], None],
    whole: Model | None = None,
    *,
    quick: bool = False,
) -> Keep:
    """Return the masks whose measured latency is the asked share of the original's.

    Args:
        choose: measure, share to leave -> masks.
        quick: what is predicted is enough.
        whole: the original, where branches were dropped before; None: the model of the analysis.

    Raises:
        NothingToPruneError: the share cannot be reached.
    """
    progress("measuring the original")
    first = time_both(whole or channels.model, channels.model, goal, data, runtime)
    if whole is not None and first.share <= goal + CLOSE_ENOUGH:
        return {}
    measure, predicted = _measure(channels, runtime, first.pruned.steady_ms, progress)
    search = _LatencySearch(channels, whole or channels.model, goal, data, runtime)
    aim = goal / (first.share if whole is not None else 1.0)
    if quick:
        return choose(measure, aim)
    for number in range(ROUNDS):
        progress(f"searching for {goal:g} of the latency, try {number + 1}")
        try:
            keep = choose(measure, aim)
        except NothingToPruneError:
            if not predicted:
                search.strongest(choose, measure, aim)
                break
            # the prediction rules out what a measurement may allow: go on by multiply-adds
            measure, predicted = MEASURES["macs"](channels), False
            aim = search.restart(measure)
            continue
        if search.knows(keep):
            break
        if abs(search.take(aim, keep) - goal) <= CLOSE_ENOUGH:
            break
        aim = _next(search.pairs, goal)
    progress("measuring the nearest again")
    share, keep = search.nearest()
    if share > goal + TOLERANCE:
        raise NothingToPruneError(_too_slow(goal, share))
    return keep


def _measure(
    channels: Channels, runtime: Runtime, whole_ms: float, progress: Callable[[str], None]
) -> tuple[Measure, bool]:
    """Return what predicts shares of the latency, and whether that is out of times of layers."""
    watch = stopwatch_of(runtime)
    if watch is None:
        return Timetable(channels, runtime.threads, runtime.provider, _batch(channels)).measure(whole_ms), True
    progress("measuring layers there")
    table = DeviceTable(
        channels,
        batch=_batch(channels),
        timer=partial(layer_times, watch),
        device=watch.name,
        few=watch.calls_each,
    )
    return (table.measure(whole_ms), True) if table.is_known else (MEASURES["macs"](channels), False)


def share_asked(
    latency: str, model: Model, data: Data | None, runtime: Runtime, progress: Callable[[str], None]
) -> float:
    """Return the share of the original's latency that a time is.

    Raises:
        NothingToPruneError: the original takes no longer.
    """
    wanted = milliseconds_of(latency)
    progress("measuring the original")
    timed = time_both(model, model, 1.0, data, runtime)
    now = min(timed.original.steady_ms, timed.pruned.steady_ms)
    if now <= wanted:
        raise NothingToPruneError(f"the model takes {now:.3g} ms, which is no more than the {wanted:g} ms asked for.")
    return wanted / now


@dataclass
class _LatencySearch:
    """Candidates that were measured: what was aimed at, the share of the latency that is left, the masks."""

    channels: Channels
    whole: Model
    goal: float
    data: Data | None
    runtime: Runtime
    tries: list[tuple[float, float, Keep]] = field(default_factory=list)
    _first: int = 0

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """What was aimed at and what came of it, under the present measure."""
        return [(aim, share) for aim, share, _ in self.tries[self._first :]]

    def time(self, keep: Keep, effort: int = 1) -> float:
        """Return the share of the latency that masks leave."""
        return time_both(
            self.whole, rewrite(self.channels, keep), self.goal, self.data, self.runtime, effort=effort
        ).share

    def take(self, aim: float, keep: Keep) -> float:
        """Measure a candidate."""
        self.tries.append((aim, self.time(keep), keep))
        return self.tries[-1][1]

    def knows(self, keep: Keep) -> bool:
        """Tell whether masks were measured: widths are steps, so another aim may choose them again."""
        return any(equal_masks(keep, other) for _, _, other in self.tries)

    def restart(self, measure: Measure) -> float:
        """Go on under another measure, from the best candidate; return what to aim at."""
        share, keep = min(((s, k) for _, s, k in self.tries), key=lambda t: abs(t[0] - self.goal), default=(1.0, {}))
        self._first = len(self.tries)
        if keep:
            self.tries.append((measure(keep), share, keep))
        return measure(keep) * self.goal / share

    def strongest(self, choose: Callable[[Measure, float], Keep], measure: Measure, aim: float) -> None:
        """Measure about the most that can be removed, so that it can be said how far it goes."""
        while not self.tries and aim < 1:
            aim *= 1.25
            with contextlib.suppress(NothingToPruneError):
                self.take(aim, choose(measure, aim))

    def nearest(self) -> tuple[float, Keep]:
        """Return the candidate nearest to the goal, after a second, longer look at those around it."""
        ranked: list[tuple[float, Keep]] = []
        for _, share, keep in sorted(self.tries, key=lambda t: abs(t[1] - self.goal)):
            if not any(equal_masks(keep, other) for _, other in ranked):
                ranked.append((share, keep))
        looked = [(self.time(keep, effort=2), keep) for _, keep in ranked[:FINALISTS]]
        return min(looked, key=lambda t: abs(t[0] - self.goal), default=(1.0, {}))


def _next(tried: list[tuple[float, float]], goal: float) -> float:
    """Return what to aim at: on the line between the tries around the goal, else in proportion."""
    above = [pair for pair in tried if pair[1] > goal]
    below = [pair for pair in tried if pair[1] <= goal]
    if above and below:
        (a, x), (b, y) = min(above, key=lambda pair: pair[1]), max(below, key=lambda pair: pair[1])
        if x > y and a != b:
            return float(a + (goal - x) * (b - a) / (y - x))
    aim, share = tried[-1]
    return min(0.99, max(0.01, aim * goal / share))


def _too_slow(goal: float, share: float) -> str:
    return (
        f"--latency {goal:g} cannot be reached: measured, {share:.2f} of the original's time is left at best. "
        "Ask for more than that, or allow more (--align 1, fewer --skip)."
    )


def _batch(channels: Channels) -> int:
    for key in channels.view.inputs:
        shape = channels.trace.shapes.get(key)
        if shape and channels.trace.dynamic(key)[0]:
            return shape[0]
    return 1
