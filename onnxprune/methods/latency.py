"""A latency target: predicted from a table of layers, measured on the whole model, corrected until it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.allocate.measures import MEASURES, Measure
from onnxprune.allocate.timetable import Timetable
from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import NothingToPruneError
from onnxprune.methods.calibration import Runtime
from onnxprune.statistics.data import Data

if TYPE_CHECKING:
    from onnxprune.graph.model import Model
    from onnxprune.validate.latency import Timing

TOLERANCE = 0.03
"""Distance from the asked share at which a measured one counts as met."""
CLOSE_ENOUGH = 0.012
ROUNDS = 7
RUNS, SECONDS = 300, 4.0
ALIGN = 8
"""Kept counts are multiples of it by default: other widths leave the fast convolution kernels."""


@dataclass(frozen=True)
class Latency:
    """What was asked and what was measured: the original and the pruned model in turns."""

    asked: float
    original: Timing
    pruned: Timing

    @property
    def share(self) -> float:
        """What is left of the latency."""
        return self.pruned.median_ms / self.original.median_ms


def time_both(
    original: Model, pruned: Model, asked: float, data: Data | None, runtime: Runtime, effort: int = 1
) -> Latency:
    """Return the latency of both models, measured in turns on one sample; `effort` times as long as usual."""
    from onnxprune.validate.bench import bench

    feeds = next(iter(data.batches(1))) if data is not None else None
    timings = bench(
        [original, pruned],
        runs=effort * RUNS,
        seconds=effort * SECONDS,
        threads=runtime.threads,
        provider=runtime.provider,
        feeds=feeds,
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
) -> Keep:
    """Return the masks whose measured latency is the asked share of the original's.

    Args:
        choose: measure, share to leave -> masks.

    Raises:
        NothingToPruneError: the share cannot be reached.
    """
    progress("measuring the original")
    first = time_both(channels.model, channels.model, goal, data, runtime)
    batch = _batch(channels)
    measure = Timetable(channels, runtime.threads, runtime.provider, batch).measure(first.original.p10_ms)
    aim, tried, best, predicted = goal, list[tuple[float, float]](), (1.0, Keep()), True
    for number in range(ROUNDS):
        progress(f"searching for {goal:g} of the latency, try {number + 1}")
        try:
            keep = choose(measure, aim)
        except NothingToPruneError:
            if not predicted:
                break
            # the prediction rules out what a measurement may allow: go on by multiply-adds
            measure, predicted = MEASURES["macs"](channels), False
            aim = measure(best[1]) * goal / best[0]
            tried = [(measure(best[1]), best[0])] if best[1] else []
            continue
        share = time_both(channels.model, rewrite(channels, keep), goal, data, runtime).share
        tried.append((aim, share))
        if not best[1] or abs(share - goal) < abs(best[0] - goal):
            best = (share, keep)
        if abs(share - goal) <= CLOSE_ENOUGH:
            break
        aim = _next(tried, goal)
    if best[0] > goal + TOLERANCE:
        raise NothingToPruneError(_too_slow(goal, best[0]))
    return best[1]


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
