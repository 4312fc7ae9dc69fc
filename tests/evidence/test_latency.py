"""Models are timed in turns, so that a drift of the machine meets all of them."""

import time

from onnxprune.evidence.latency import interleaved


def test_every_call_runs_once_in_each_round_and_the_first_one_changes() -> None:
    order: list[str] = []
    interleaved([lambda: order.append("a"), lambda: order.append("b")], runs=4, warmup=1)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b", "b", "a"]


def test_a_longer_call_has_a_longer_median_inside_its_range() -> None:
    short, long = interleaved([lambda: None, lambda: time.sleep(0.002)], runs=5, warmup=1)
    assert long.median_ms >= 2.0 > short.median_ms
    assert long.p10_ms <= long.median_ms <= long.p90_ms


def test_no_round_starts_after_the_time_limit_once_there_are_three() -> None:
    (timing,) = interleaved([lambda: time.sleep(0.001)], runs=1000, warmup=1, seconds=0.0)
    assert timing.runs == 3
