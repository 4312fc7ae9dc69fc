"""What is run to measure groups is bounded by multiply-accumulates, and said."""

import numpy as np
import pytest

import onnxprune
from onnxprune.allocate import effort as room
from onnxprune.allocate.effort import FEWER_SHARES, FEWEST, SHARES, effort, macs_per_sample
from onnxprune.channels.analyse import analyse
from onnxprune.methods.calibration import calibration
from tests import plain
from tests.networks import convnet

MACS = 12 * 12 * 32 * 3 * 9 + 12 * 12 * 32 * 32 * 9 + 32 * 10


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")


@pytest.fixture
def both():
    model = onnxprune.load(convnet())
    images = np.random.default_rng(0).standard_normal((48, 3, 12, 12)).astype(np.float32)
    return analyse(model), calibration(model, {"x": images})


@pytest.mark.parametrize("batch", ["batch", 4])
def test_a_sample_costs_the_same_whether_the_batch_is_dynamic_or_fixed(batch):
    model = onnxprune.load(convnet(batch=batch))
    data = calibration(model, {"x": np.zeros((8, 3, 12, 12), np.float32)})
    assert macs_per_sample(analyse(model), data) == pytest.approx(MACS)


def test_a_small_network_is_measured_in_full(both):
    assert effort(*both, groups=2) == room.Effort(48, SHARES)


def test_samples_go_first_then_widths_then_samples_again(both, monkeypatch):
    found = []
    for samples_of_five_widths in (20, 6, 0.1):
        monkeypatch.setattr(room, "MOST_MACS", samples_of_five_widths * 2 * len(SHARES) * MACS * 1.001)
        found.append(effort(*both, groups=2))
    assert [(work.samples, work.shares) for work in found] == [(20, SHARES), (10, FEWER_SHARES), (FEWEST, FEWER_SHARES)]
    assert "20 of 48 samples: one run" in found[0].note and "3 instead of 5 widths" in found[1].note


def test_shares_that_were_asked_for_are_all_measured(both, monkeypatch):
    monkeypatch.setattr(room, "MOST_MACS", 1.0)
    assert effort(*both, groups=2, shares=(0.1, 0.2)).shares == (0.1, 0.2)


def test_a_prune_says_what_was_left_out_and_is_the_same_every_time(both, monkeypatch):
    channels, data = both
    monkeypatch.setattr(room, "MOST_MACS", 30 * 4 * MACS)
    results = [plain.prune(channels.model, data, macs=0.5, align=1, compensate="none") for _ in range(2)]
    assert any("were measured on" in warning for warning in results[0].warnings)
    assert results[0].model.proto.SerializeToString() == results[1].model.proto.SerializeToString()
