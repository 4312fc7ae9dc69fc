"""What is run to measure groups is bounded by predicted seconds, and said."""

import numpy as np
import pytest
from onnx import helper

import onnxprune
from onnxprune.allocate import measuring as room
from onnxprune.allocate.measuring import FEWER_SHARES, FEWEST, SHARES, effort, group_costs, macs_per_sample
from onnxprune.channels.analyse import analyse
from onnxprune.methods.calibration import calibration
from tests import plain
from tests.networks import convnet, weights

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
    work = effort(*both, both[0].groups)
    assert work == room.MeasuringEffort(48, SHARES) and 0 < work.seconds < 1


def test_samples_go_first_then_widths_then_small_groups_then_samples_again(both, monkeypatch):
    costs = group_costs(*both, both[0].groups)
    run, solve = (sum(getattr(cost, name) for cost in costs.values()) for name in ("run", "solve"))
    found = []
    for samples_of_five_widths in (24, 8 * 3 / 5, 0.1):
        bound = len(SHARES) * samples_of_five_widths * run + len(SHARES) * solve + room.OPENING * len(costs)
        monkeypatch.setattr(room, "MOST_SECONDS", bound * 1.001)
        found.append(effort(*both, both[0].groups))
        assert found[-1].seconds <= room.MOST_SECONDS or found[-1].samples == FEWEST
    assert [(work.samples, work.shares) for work in found] == [(24, SHARES), (8, FEWER_SHARES), (FEWEST, FEWER_SHARES)]
    assert "24 of 48 samples: all runs" in found[0].note and "3 instead of 5 widths" in found[1].note
    assert [work.unmeasured for work in found] == [frozenset()] * 3


def test_a_group_of_hardly_any_cost_is_not_measured_where_time_is_short(monkeypatch):
    """It takes the curve of the others; the one that costs is measured."""
    proto = convnet(width=64)
    first = next(node for node in proto.graph.node if node.name == "conv1")
    weight, bias = weights(3, small=(4, 3, 1, 1), back=(3, 4, 1, 1))
    proto.graph.initializer.extend([weight, bias])
    proto.graph.node.insert(0, helper.make_node("Conv", ["x", "small"], ["s"], "small_conv"))
    proto.graph.node.insert(1, helper.make_node("Conv", ["s", "back"], ["b"], "back_conv"))
    first.input[0] = "b"
    model = onnxprune.load(proto)
    data = calibration(model, {"x": np.random.default_rng(0).standard_normal((48, 3, 12, 12)).astype(np.float32)})
    channels = analyse(model)
    costs = group_costs(channels, data, channels.groups)
    small = {"small_conv", "back_conv"}
    assert max(costs[name].size for name in small) < 0.05 < min(costs[name].size for name in costs.keys() - small)
    most = sum(8 * cost.run + cost.solve for name, cost in costs.items() if name not in small)
    monkeypatch.setattr(room, "MOST_SECONDS", len(FEWER_SHARES) * most * 1.001 + room.OPENING * len(costs))
    work = effort(channels, data, channels.groups)
    assert work.unmeasured == small and work.samples == 8 and "2 small ones" in work.note
    result = plain.prune(model, data, macs=0.5, align=1, compensate="none")
    assert set(result.keep) - small


def test_the_part_behind_the_last_group_costs_least(both):
    """Behind the first group stand the second convolution and the head, behind the second the head alone."""
    costs = [cost.run for cost in group_costs(*both, both[0].groups).values()]
    assert costs[1] < 0.2 * costs[0]


def test_shares_that_were_asked_for_are_all_measured(both, monkeypatch):
    monkeypatch.setattr(room, "MOST_SECONDS", 1e-9)
    work = effort(*both, both[0].groups, shares=(0.1, 0.2))
    assert work.shares == (0.1, 0.2) and work.samples == FEWEST and not work.unmeasured


def test_a_prune_says_what_was_left_out_and_is_the_same_every_time(both, monkeypatch):
    channels, data = both
    run = sum(5 * 24 * cost.run + 5 * cost.solve for cost in group_costs(*both, channels.groups).values())
    monkeypatch.setattr(room, "MOST_SECONDS", run)
    results = [plain.prune(channels.model, data, macs=0.5, align=1, compensate="none") for _ in range(2)]
    assert any("were measured on" in warning for warning in results[0].warnings)
    assert results[0].model.proto.SerializeToString() == results[1].model.proto.SerializeToString()
