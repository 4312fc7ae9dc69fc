"""A latency target: what is promised is measured. The clock is replaced by one that counts multiply-adds."""

import numpy as np
import pytest

import onnxprune
from onnxprune.allocate.timetable import Timetable
from onnxprune.channels.analyse import analyse
from onnxprune.errors import NothingToPruneError
from onnxprune.evidence.latency import Timing, timing
from onnxprune.graph import count
from onnxprune.methods import latency_target
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime
from tests.networks import convnet


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))


@pytest.fixture
def steady_clock(monkeypatch):
    """Let a layer and a model take one millisecond for a million multiply-adds."""

    def layer(self, node, shapes):
        return count.macs(self.channels.view, shapes).get(node.name, 0) / 1e6

    def model(found):
        channels = analyse(found)
        ms = sum(count.macs(channels.view, channels.trace.shapes).values()) / 1e6
        return Timing(ms, ms, ms, 1)

    monkeypatch.setattr(Timetable, "_time", layer)
    for name in ("latency_target", "pruning"):
        monkeypatch.setattr(
            f"onnxprune.methods.{name}.time_both",
            lambda one, two, asked, *rest, **more: latency_target.Latency(asked, model(one), model(two)),
        )


def test_the_time_of_a_layer_is_measured_once():
    channels = analyse(onnxprune.load(convnet(width=256)))
    measure = Timetable(channels, threads=1).measure(10.0)
    half = {group.name: np.arange(256) < 64 for group in channels.groups}
    assert measure({}) == pytest.approx(1.0)
    assert measure(half) > 0
    again = Timetable(channels, threads=1).measure(10.0)
    assert again(half) == pytest.approx(measure(half))


def test_a_latency_target_is_met_by_what_the_clock_says_of_the_whole_model(steady_clock):
    result = prune(onnxprune.load(convnet(width=256)), PruneOptions(latency=0.5), runtime=Runtime(1))
    assert result.latency is not None and result.latency.asked == 0.5
    assert abs(result.latency.share - 0.5) <= 0.03


def test_a_latency_that_cannot_be_reached_is_refused_with_what_was_measured(steady_clock):
    with pytest.raises(NothingToPruneError, match=r"--latency 0.01 cannot be reached: measured, 0.0[5-9] of"):
        prune(onnxprune.load(convnet()), PruneOptions(latency=0.01), runtime=Runtime(1))


def test_what_a_busy_machine_says_at_first_is_measured_again_and_the_nearest_is_kept(steady_clock, monkeypatch):
    """Quick looks are off by up to a fifth, longer ones are right: of all candidates the nearest must come out."""
    exact, noise, looked = latency_target.time_both, np.random.default_rng(0), []

    def busy(one, two, asked, *rest, effort=1):
        found = exact(one, two, asked)
        if effort > 1:
            looked.append(found.share)
            return found
        off = noise.uniform(0.8, 1.2)
        return latency_target.Latency(asked, found.original, Timing(*[off * found.pruned.median_ms] * 3, 1))

    monkeypatch.setattr("onnxprune.methods.latency_target.time_both", busy)
    result = prune(onnxprune.load(convnet(width=256)), PruneOptions(latency=0.5), runtime=Runtime(1))
    assert 1 < len(looked) <= latency_target.FINALISTS
    assert result.latency.share == pytest.approx(min(looked, key=lambda share: abs(share - 0.5)))


def test_a_candidate_is_not_measured_twice_while_searching(steady_clock, monkeypatch):
    """With steps of 64 channels few candidates exist: none of them is at the goal."""
    exact, seen = latency_target.time_both, []

    def counted(one, two, asked, *rest, effort=1):
        found = exact(one, two, asked)
        if effort == 1:
            seen.append(found.share)
        return found

    monkeypatch.setattr("onnxprune.methods.latency_target.time_both", counted)
    prune(onnxprune.load(convnet(width=256)), PruneOptions(latency=0.5, align=64), runtime=Runtime(1))
    assert len(seen) == len(set(seen))


def test_the_share_is_that_of_the_quietest_blocks():
    def busy(ms):
        series = np.full(400, float(ms))
        series[40:] *= np.random.default_rng(ms).uniform(1.2, 3, 360)  # a machine that is busy nine tenths of the time
        return timing(list(series))

    found = latency_target.Latency(0.5, busy(4), busy(2))
    assert found.original.quiet_ms == 4 and found.share == 0.5
    assert found.original.median_ms > 5 and found.original.to_json()["quiet_ms"] == 4
