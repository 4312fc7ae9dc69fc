"""Whether one model takes less time than another: both are run in turns until that is clear, or time is up.

What decides is the median of the share that one takes of the other in the same round, with the bounds that order
statistics give it: rounds stand side by side, so a machine that changes its speed makes nothing look faster. On one
thread the time of that thread alone is counted, which other programs hardly touch.
Source: the confidence interval of a median by the sign test (David and Nagaraja, Order Statistics, 2003, section 7.1).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.evidence.latency import Timing, quantiles, timing
from onnxprune.graph.session import open_session, reason
from onnxprune.types import Array, FloatArray

Feeds = Mapping[str, Array]

ROUNDS = 7
"""Least number of rounds."""
SHORT, LONG = 0.04, 0.25
"""Seconds that rounds go on at least, to see more than one mood of the machine, and seconds of work at most."""
LOOK = 1.3
"""It is looked again whether the answer is clear when there are so many times the rounds of the last look."""
TURN_MS = 0.3
"""A model that runs in less is run several times a turn, up to TURN_RUNS."""
TURN_RUNS = 12
SIGMAS = 2.0
"""Bounds of the median, in standard deviations: it is looked at several times."""
GAIN = 0.97
"""Share of the first model's time that the second must stay below to be called faster."""


@dataclass(frozen=True)
class RacePace:
    """How long two models take.

    share: of the first one's time that the second takes (median of the rounds), between `low` and `high`.
    is_faster: the second is, clearly.
    """

    before: Timing
    after: Timing
    share: float
    low: float
    high: float
    limit: float

    @property
    def is_faster(self) -> bool:
        """Whether the second model takes clearly less than the limit."""
        return self.high < self.limit

    @property
    def is_slower(self) -> bool:
        """Whether the second model does clearly not stay below the limit."""
        return self.low > self.limit


def run(
    first: onnx.ModelProto,
    second: onnx.ModelProto,
    feed: Feeds,
    threads: int,
    limit: float = GAIN,
    longer: int = 1,
) -> RacePace:
    """Return how long two models take for a feed.

    Args:
        limit: share of the first one's time that the second has to stay below.
        longer: how many times SHORT and LONG it takes; then it is not given up before its time, however slow it looks.
    """
    clock = time.thread_time if threads <= 1 else time.perf_counter
    with (
        open_session(first, threads=threads or 1) as one,
        open_session(second, threads=threads or 1) as other,
    ):
        natives = [one.native, other.native]
        given = [one.fit(dict(feed)), other.fit(dict(feed))]

        def turn(number: int, runs: int) -> float:
            begin = clock()
            try:
                for _ in range(runs):
                    natives[number].run(None, given[number])
            except Exception as error:  # onnxruntime raises whatever it meets
                raise ModelError(f"onnxruntime cannot run the quantized model: {reason(error)}.") from error
            return 1e3 * (clock() - begin) / runs

        warm = max(turn(0, 1), turn(1, 1))
        warm = min(warm, turn(0, 1), turn(1, 1))
        runs = max(1, min(TURN_RUNS, math.ceil(TURN_MS / max(warm, 1e-6))))
        rounds: list[tuple[float, float]] = []
        start, begin, look = time.perf_counter(), clock(), ROUNDS
        while True:
            times = {number: turn(number, runs) for number in ((0, 1), (1, 0))[len(rounds) % 2]}
            rounds.append((times[0], times[1]))
            passed, spent = (time.perf_counter() - start) / longer, (clock() - begin) / longer
            if len(rounds) < ROUNDS or passed < SHORT or (len(rounds) < look and spent < LONG):
                continue
            look = math.ceil(LOOK * len(rounds))
            pace = _pace(np.maximum(np.array(rounds), 1e-6), limit)
            if pace.is_faster or (pace.is_slower and longer == 1) or spent >= LONG:
                return pace


def _pace(table: FloatArray, limit: float) -> RacePace:
    """Return what rounds (rounds, 2) of milliseconds say."""
    shares = np.sort(table[:, 1] / table[:, 0])
    count = len(shares)
    reach = SIGMAS * math.sqrt(count) / 2
    low = shares[max(0, math.floor(count / 2 - reach))]
    high = shares[min(count - 1, math.ceil(count / 2 + reach) - 1)]
    before, after = (timing(list(column)) for column in table.T)
    return RacePace(before, after, quantiles(shares, 0.5)[0], float(low), float(high), limit)
