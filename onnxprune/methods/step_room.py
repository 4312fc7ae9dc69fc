"""How many samples a gradient step runs at once, and how many of these runs side by side, within a bound of memory.

How many samples a run has never depends on the cores: gradients of runs are added up in order, so a result would.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from onnxprune.graph.trace import Trace
from onnxprune.graph.view import View
from onnxprune.processes.memory import DEFAULT_BYTES
from onnxprune.statistics.batch import activation_elements

ACTIVATION_BYTES = 1 << 29
"""Activations of one run of the network that learns, at most; more of them at once are no faster."""
BACKWARD = 3
"""Forward, backward and what the original gives, over the activations of the network alone."""
SHARE = 0.5
"""Of the bound: the rest is for samples in the buffer, those held out, sessions and libraries."""
COPIES = 10
"""Of the weights: read, master, best, start, what the optimiser remembers, slopes on their way and summed up."""
WEIGHTS_SHARE = 0.5
"""Of the room, at most, is kept free for weights: with less than the rest of it nothing runs at all."""


@dataclass(frozen=True)
class StepRoom:
    """size: samples of a run. workers: runs side by side. note: what does not fit, if anything."""

    size: int
    workers: int
    note: str = ""


def step_room(
    view: View, traced: Trace, memory: int | None, threads: int | None, largest: int, scale: float = 1.0
) -> StepRoom:
    """Return what fits into a bound.

    Args:
        view, traced: the network that learns, or the original. scale: how large a sample is against that of the trace.
        memory: bytes; None: 4 GB. threads: None or 0: as many as there are cores. largest: samples of a run.
    """
    bound = memory or DEFAULT_BYTES
    batch = max(1, next((traced.shapes[key][0] for key in view.inputs if traced.shapes.get(key)), 1))
    forward = 4 * scale * activation_elements(view, traced.shapes) / batch
    one = max(1.0, BACKWARD * forward)
    weights = 4 * COPIES * sum(math.prod(p.dims) for p in view.parameters.values())
    room = SHARE * bound - min(weights, WEIGHTS_SHARE * SHARE * bound)
    size = int(min(largest, max(1, min(BACKWARD * ACTIVATION_BYTES, room) // one)))
    workers = int(min(threads or os.cpu_count() or 1, max(1, room // (size * one))))
    note = ""
    if one > room:
        note = (
            f"gradient steps need about {one / (1 << 30):.1f} GB for one sample, more than the memory that is given "
            f"({bound / (1 << 30):.1f} GB) leaves"
        )
    return StepRoom(size, workers, note)
