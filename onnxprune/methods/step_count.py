"""How many gradient steps a refit takes, and of how many samples: by predicted seconds, never by a clock."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from math import prod

import numpy as np

from onnxprune.channels.analyse import Channels
from onnxprune.compensate.closed_cost import closed_form_seconds
from onnxprune.compensate.distil import FEWEST_STEPS, DistilOptions, too_dear
from onnxprune.compensate.effort import Effort
from onnxprune.graph.cost import GRADIENT, cost
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import Seen
from onnxprune.methods.step_room import step_room
from onnxprune.statistics.batch import batch_of
from onnxprune.statistics.data import Data

LEAST_SECONDS = 30.0
"""Curves, closed form and steps together may take so many CPU seconds, as predicted, whatever the network."""
TIMES, MOST_SECONDS = 3.0, 120.0
"""Where more is at stake, so many times what curves and closed form take, and so many seconds at most."""
BATCH = 16
TOO_MUCH = 2.0
"""A rough price this far above the seconds needs no exact one."""
ASKED_SECONDS = 120.0
"""The same where steps are asked for, but not how many."""
SIDE_BY_SIDE = 2
"""A step is so many runs at least, which go side by side on as many cores."""
SAMPLES, MOST_STEPS = 32, 1200
"""More steps of fewer samples bring more than as many seconds of fewer and larger ones."""
WANTED_STEPS, FEWEST_SAMPLES = 300, 16
"""A step takes fewer samples where the seconds would not be enough for so many steps."""
QUICK = "no gradient steps were taken after the refit: quick is the closed form alone"


def steps_of(
    seen: Seen,
    result: PruneResult,
    data: Data,
    mode: str | None,
    asked: int | None,
    runtime: Runtime,
    effort: Effort | None = None,
) -> tuple[DistilOptions, str]:
    """Return how many steps of how many samples to take, and why none are taken unless asked for."""
    channels = result.channels
    plain, scale = DistilOptions(threads=runtime.threads or None, effort=effort), _scale(channels, data)

    def within(options: DistilOptions, samples: int) -> DistilOptions:
        """Return the options with runs that fit into the memory."""
        largest = samples // SIDE_BY_SIDE
        room = step_room(channels.view, channels.trace, runtime.memory, runtime.threads, largest, scale)
        return replace(options, samples=samples, batch=room.size, threads=room.workers, provider=runtime.provider)

    if effort is not None and effort.word == "quick":
        return plain, QUICK
    if find_spec("onnx_ad") is None:
        return plain, "no gradient steps were taken after the refit: they need onnx-ad; pip install onnx-ad."
    if effort is not None and effort.is_long:
        return replace(within(plain, plain.samples), forced=True), ""
    forced = mode == "distil"
    closed = closed_form_seconds(seen.model, next(iter(data.batches(BATCH))), data.samples)
    left = ASKED_SECONDS if forced else seconds_left(result.curves_seconds + closed)
    price = _sample_seconds(result, scale)
    most = plain.samples if asked else SAMPLES
    samples = most if asked else int(np.clip(left / (WANTED_STEPS * price), FEWEST_SAMPLES, most))
    rate = plain.rate * samples / most  # gradients of fewer samples are noisier
    options = replace(within(plain, samples), steps=MOST_STEPS, rate=rate, forced=forced)
    if asked:
        return replace(options, steps=asked), ""
    least = FEWEST_STEPS * FEWEST_SAMPLES * price
    dear = too_dear(least, left) if least > TOO_MUCH * left and not forced else ""
    return replace(options, seconds=left, dear=dear), ""


def seconds_left(before: float) -> float:
    """Return the predicted seconds of steps after so many of curves and closed form: the whole never falls with these.

    Below 0 where they take more than all together may.
    """
    return max(LEAST_SECONDS, min(TIMES * before, MOST_SECONDS)) - before


def _sample_seconds(result: PruneResult, scale: float) -> float:
    """Return roughly what a step costs for each of its samples."""
    channels = result.channels
    batch = batch_of(channels.view, channels.trace)
    old, new = (cost(channels.view, channels.shapes(keep)).at(scale) / batch for keep in ({}, result.keep))
    return old + GRADIENT * new


def _scale(channels: Channels, data: Data) -> float:
    """Return how large a sample is against that of the trace, which makes up dynamic sizes."""
    feed = next(iter(data))
    traced = {name: channels.trace.shapes.get(name, ()) for name in feed}
    sizes = [(prod(array.shape[1:]), prod(traced[name][1:])) for name, array in feed.items()]
    return float(max(given for given, _ in sizes) / max(1, *(made for _, made in sizes)))
