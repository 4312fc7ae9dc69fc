"""A latency target: what is promised is measured."""

import numpy as np
import pytest

import onnxprune
from onnxprune.allocate.timetable import Timetable
from onnxprune.channels.analyse import analyse
from onnxprune.errors import NothingToPruneError
from onnxprune.methods.calibration import Runtime
from onnxprune.methods.options import PruneOptions
from onnxprune.methods.prune import prune
from tests.networks import convnet


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))


def test_the_time_of_a_layer_is_measured_once_and_falls_with_its_width():
    channels = analyse(onnxprune.load(convnet(width=256)))
    measure = Timetable(channels, threads=1).measure(10.0)
    half = {group.name: np.arange(256) < 64 for group in channels.groups}
    assert measure({}) == pytest.approx(1.0)
    assert measure(half) < 0.9
    again = Timetable(channels, threads=1).measure(10.0)
    assert again(half) == pytest.approx(measure(half))


def test_a_latency_target_is_measured_on_the_whole_model():
    result = prune(onnxprune.load(convnet(width=256)), PruneOptions(latency=0.5), runtime=Runtime(1))
    assert result.latency is not None and result.latency.asked == 0.5
    # a busy machine may spoil the measurement, and then the result says so
    assert abs(result.latency.share - 0.5) <= 0.03 or any("was measured at last" in text for text in result.warnings)


def test_a_latency_that_cannot_be_reached_is_refused_with_what_was_measured():
    with pytest.raises(NothingToPruneError, match=r"--latency 0.01 cannot be reached"):
        prune(onnxprune.load(convnet()), PruneOptions(latency=0.01), runtime=Runtime(1))
