"""How long models take, measured in turns so that a busy or warming machine is unfair to none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.types import FloatArray

BLOCKS, BLOCK_RUNS = 20, 10
"""A series is cut into at most so many blocks, of at least so many runs."""


@dataclass(frozen=True)
class Timing:
    """Times of one model in milliseconds: the median of all runs and the range that holds the middle 80 %.

    quiet_ms: the lowest median of a block of runs, which is the time when the machine did least besides; None where it
        was not found.
    times_ms: every run, in the order of the rounds.
    joules: energy of one run as the processor counted it; None where it was not.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    quiet_ms: float | None = None
    times_ms: tuple[float, ...] = field(default=(), repr=False, compare=False)
    joules: float | None = None

    @property
    def steady_ms(self) -> float:
        """The time that is compared with another model's."""
        return self.median_ms if self.quiet_ms is None else self.quiet_ms

    def to_json(self) -> dict[str, float | int]:
        """Return the figures rounded to a tenth of a microsecond, joules to four digits."""
        measured = {} if self.joules is None else {"joules": float(f"{self.joules:.4g}")}
        return {
            "median_ms": round(self.median_ms, 4),
            "p10_ms": round(self.p10_ms, 4),
            "p90_ms": round(self.p90_ms, 4),
            "quiet_ms": round(self.steady_ms, 4),
            "runs": self.runs,
            **measured,
        }


def interleaved(
    calls: Sequence[Callable[[], object]],
    *,
    runs: int = 50,
    warmup: int = 3,
    seconds: float = 20.0,
    tick: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Return the timing of every call. Each round runs each call once, starting one further on every round.

    Args:
        runs: rounds that are measured, at least 3.
        warmup: rounds before that are thrown away (at least one).
        seconds: no new round starts after that time, once there are three.
        tick: called after each round (for progress).
    """
    for _ in range(max(1, warmup)):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    for turn in range(max(3, runs)):
        for step in range(len(calls)):
            index = (turn + step) % len(calls)
            begin = time.perf_counter()
            calls[index]()
            times[index].append(1000 * (time.perf_counter() - begin))
        tick()
        if turn >= 2 and time.perf_counter() - start > seconds:
            break
    return [timing(series) for series in times]


def histogram(timings: Mapping[str, Timing], bins: int = 32) -> dict[str, object]:
    """Return how often which time was measured, over common bins, as JSON data; the last bin holds slower runs too."""
    known = {name: np.array(timing.times_ms) for name, timing in timings.items() if timing.times_ms}
    if not known:
        return {}
    fastest, slow = min(times.min() for times in known.values()), max(timings[name].p90_ms for name in known)
    edges = np.linspace(fastest, max(slow, fastest) + 0.3 * max(slow - fastest, 1e-3), bins + 1)
    runs = {name: np.histogram(np.minimum(times, edges[-1]), edges)[0].tolist() for name, times in known.items()}
    return {"edges_ms": [round(float(edge), 4) for edge in edges], "runs": runs}


def timing(series: Sequence[float]) -> Timing:
    """Return what a series of runs says, in milliseconds."""
    p10, median, p90 = quantiles(series, 0.1, 0.5, 0.9)
    blocks = np.array_split(np.array(series), min(BLOCKS, max(1, len(series) // BLOCK_RUNS)))
    return Timing(median, p10, p90, len(series), min(quantiles(block, 0.5)[0] for block in blocks), tuple(series))


def quantiles(series: Sequence[float] | FloatArray, *shares: float) -> list[float]:
    """Return what these shares of some values stay below, between neighbours in proportion.

    As `numpy.quantile`, which imports `numpy.ma` when it is called first: 30 ms.
    """
    places = np.array(shares) * (len(series) - 1)
    return [float(value) for value in np.interp(places, np.arange(len(series)), np.sort(series))]
