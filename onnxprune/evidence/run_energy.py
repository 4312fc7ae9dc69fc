"""Energy of a run, measured: what the processor's counters rose by while models ran in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from onnxprune.hardware.rapl import EnergyMeter

WINDOW, ROUNDS = 0.2, 3
"""Seconds of one model's turn (counters move once in a millisecond), and turns of each."""


def joules_per_run(
    calls: Sequence[Callable[[], object]],
    meter: EnergyMeter,
    *,
    window: float = WINDOW,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float] | None:
    """Return the joules of one run of every call, the median of its turns; None where a counter fails or stands still.

    All that the processor does meanwhile is counted with it, also what it takes when it does nothing.
    """
    found: list[list[float]] = [[] for _ in calls]
    try:
        for turn in range(rounds):
            for step in range(len(calls)):
                index = (turn + step) % len(calls)
                found[index].append(_one_turn(calls[index], meter, window, clock))
    except (OSError, ValueError):
        return None
    middle = [median(series) for series in found]
    return middle if all(value > 0 for value in middle) else None


def _one_turn(call: Callable[[], object], meter: EnergyMeter, window: float, clock: Callable[[], float]) -> float:
    """Return the joules of one run, of as many as fill the window."""
    before, start, runs = meter.read(), clock(), 0
    while True:
        call()
        runs += 1
        if clock() - start >= window:
            return (meter.read() - before) / runs
