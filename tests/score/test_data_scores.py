"""Criteria that look at data, on a network whose channels are made to be dead, constant, or copies of others."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.channels.analyse import analyse
from onnxprune.errors import UsageError
from onnxprune.score import removal
from onnxprune.score.activity import Activity
from onnxprune.score.criteria import SCORES
from onnxprune.score.readings import find_readings
from onnxprune.score.scoring import score_groups
from onnxprune.statistics.data import read
from onnxprune.statistics.feeds import input_specs
from tests.compensate.small import network

DEAD, CONSTANT, COPY = 0, 1, 2


@pytest.fixture
def scored(monkeypatch):
    """Return a function that scores six channels: one dead, one constant, one a copy of the last."""
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")
    rng = np.random.default_rng(0)
    w1 = rng.standard_normal((6, 2, 3, 3)).astype(np.float32)
    b1 = rng.standard_normal(6).astype(np.float32) * 0.1
    w1[DEAD], b1[DEAD] = 0, -1
    w1[CONSTANT], b1[CONSTANT] = 0, 3
    w1[COPY], b1[COPY] = w1[5], b1[5]
    w2 = rng.standard_normal((4, 6, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["y"], "conv2"),
    ]
    model = network(nodes, {"w1": w1, "b1": b1, "w2": w2}, ["n", 2, 8, 8], ["n", 4, 6, 6])
    x = rng.standard_normal((40, 2, 8, 8)).astype(np.float32)
    channels = analyse(model)
    activity = Activity(channels.view, read({"x": x}, input_specs(model.proto)), threads=1)

    def score(name):
        scores, notes = score_groups(channels.view, channels.groups, name, activity=activity)
        assert not notes
        return scores[channels.groups[0].name]

    return score


DATA_SCORES = sorted(name for name, criterion in SCORES.items() if criterion.needs_data)


@pytest.mark.parametrize("name", DATA_SCORES)
def test_a_dead_channel_matters_least(scored, name):
    scores = scored(name)
    assert scores.shape == (6,) and np.isfinite(scores).all()
    assert scores[DEAD] == scores.min()


def test_the_variance_of_a_constant_channel_is_nothing_though_its_size_is(scored):
    assert scored("variance")[CONSTANT] == pytest.approx(0, abs=1e-5)
    assert scored("activation")[CONSTANT] > np.median(scored("activation"))


def test_the_residual_of_dead_constant_and_copied_channels_is_nothing(scored):
    """With one of the twins gone the other one is needed: it goes late."""
    scores = scored("lstsq")
    order = np.argsort(scores)
    assert {DEAD, CONSTANT} <= set(order[:3]) and len({COPY, 5} & set(order[:3])) == 1
    assert scores[order[2]] < 0.02 and scores[order[3]] > 0.05


def test_the_residual_is_the_error_of_the_refit(scored):
    assert scored("lstsq").max() == pytest.approx(1.0, rel=0.3)


def test_an_ablation_is_the_change_of_the_output_alone(scored):
    """A constant channel is not made up for: switching it off changes the outputs."""
    scores = scored("ablation")
    assert scores[DEAD] == 0 and scores[CONSTANT] > 0.01


def test_without_data_the_criterion_says_what_it_needs():
    model = network([helper.make_node("Relu", ["x"], ["y"])], {}, ["n", 2], ["n", 2])
    with pytest.raises(UsageError, match="give --data"):
        score_groups(analyse(model).view, [], "wanda")


def test_a_transposed_weight_is_read_along_the_right_axis():
    nodes = [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    model = network(nodes, {"w": np.ones((3, 5), np.float32)}, ["n", 5], ["n", 3])
    (reading,) = find_readings(analyse(model).view)
    assert (reading.tensor, reading.weight, reading.weight_axis) == ("x", "w", 1)


@pytest.mark.parametrize("width", [1, 3])
def test_dropping_what_is_gone_does_not_change_the_residuals(monkeypatch, width):
    rng = np.random.default_rng(0)
    size = 40 * width + 2
    rows, weight = rng.standard_normal((3 * size, size)), rng.standard_normal((size, 8))
    positions = np.arange(40 * width).reshape(40, width)

    def errors(shrink):
        monkeypatch.setattr(removal, "SHRINK", shrink)
        known = removal.inverse(rows.T @ rows / len(rows), 1e-3)
        return removal.removal_errors([removal.Correlated(known, weight @ weight.T, positions)], 40)

    # sums in another order: rounding of doubles
    np.testing.assert_allclose(errors(0.8), errors(0.0), rtol=1e-9)


def test_the_fluctuation_is_what_a_bias_cannot_make_up_for(scored):
    scores = scored("flap")
    assert scores[CONSTANT] == pytest.approx(0, abs=1e-5) and scores[5] > 0.01
    assert scored("wanda")[CONSTANT] > scores[CONSTANT]


def test_shares_of_random_subsets_add_up_where_channels_do(monkeypatch):
    """Every channel gives an output of its own: its share is what it costs alone, and a copy costs as much."""
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")
    rng = np.random.default_rng(1)
    sizes = np.array([0.0, 1.0, 2.0, 3.0, 0.5])
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"], "first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "c"], ["y"], "second", transB=1),
    ]
    first = rng.standard_normal((5, 4)).astype(np.float32)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    weights = {"a": first, "b": np.ones(5, np.float32), "c": np.diag(sizes).astype(np.float32)}
    model = network(nodes, weights, ["n", 4], ["n", 5])
    channels = analyse(model)
    data = read({"x": rng.standard_normal((64, 4)).astype(np.float32)}, input_specs(model.proto))
    activity = Activity(channels.view, data, threads=1)
    found = {
        name: score_groups(channels.view, channels.groups, name, activity=activity)[0][channels.groups[0].name]
        for name in ("dropout", "ablation")
    }
    # by chance: 64 samples each under 16 masks, against 32 of them
    np.testing.assert_allclose(found["dropout"], found["ablation"], atol=0.35 * found["ablation"].max())
    np.testing.assert_array_equal(np.argsort(found["dropout"])[-2:], np.argsort(sizes)[-2:])
    assert found["dropout"][0] == found["dropout"].min() < 0.02
