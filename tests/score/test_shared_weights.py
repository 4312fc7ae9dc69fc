"""A weight that several nodes share is one problem; what a score takes stays within the memory."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.channels.analyse import analyse
from onnxprune.graph.model import Model
from onnxprune.score import removal
from onnxprune.score.activity import Activity
from onnxprune.score.scoring import score_groups
from onnxprune.statistics.data import read
from onnxprune.statistics.feeds import input_specs
from tests.compensate.small import network
from tests.crnn import crnn

RNG = np.random.default_rng(5)
W1, W2 = RNG.standard_normal((6, 12)).astype(np.float32), RNG.standard_normal((12, 4)).astype(np.float32)
X = RNG.standard_normal((48, 6, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")


def scores_of(model, x, **options):
    channels = analyse(model)
    activity = Activity(channels.view, read({"x": x}, input_specs(model.proto)), threads=1, **options)
    scores, notes = score_groups(channels.view, channels.groups, "lstsq", activity=activity)
    assert len(channels.groups) == 1 and not notes
    return scores[channels.groups[0].name], activity


def apart(count: int):
    """Return a network that runs columns of x through the same two weights one after the other."""
    nodes, ends = [], []
    for number in range(count):
        index = helper.make_node("Constant", [], [f"i{number}"], value_int=number)
        nodes += [index, helper.make_node("Gather", ["x", f"i{number}"], [f"x{number}"], axis=2)]
        nodes.append(helper.make_node("MatMul", [f"x{number}", "w1"], [f"h{number}"]))
        nodes.append(helper.make_node("Relu", [f"h{number}"], [f"r{number}"]))
        nodes.append(helper.make_node("MatMul", [f"r{number}", "w2"], [f"y{number}"]))
        ends.append(f"y{number}")
    nodes.append(helper.make_node("Sum", ends, ["y"]))
    return network(nodes, {"w1": W1, "w2": W2}, ["n", 6, 3], ["n", 4])


def test_a_weight_with_many_readers_is_scored_like_one_reader_of_all_rows():
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    whole = network(nodes, {"w1": W1, "w2": W2}, ["n", 6], ["n", 4])
    wanted, _ = scores_of(whole, np.concatenate([X[:, :, i] for i in range(3)]))
    given, activity = scores_of(apart(3), X)
    assert len(activity.all_readings) > len(set(activity.pools.values()))
    # sums of float32 products in another order
    np.testing.assert_allclose(given, wanted, rtol=1e-4)


def test_weights_that_read_the_same_share_one_inverse(monkeypatch):
    """Their metrics add up: two readers of one tensor are the reader that has the outputs of both."""
    second = RNG.standard_normal((12, 4)).astype(np.float32)
    begin = [helper.make_node("MatMul", ["x", "w1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes = [
        *begin,
        helper.make_node("MatMul", ["r", "w2"], ["a"]),
        helper.make_node("MatMul", ["r", "w3"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    solved = []
    invert = removal.inverse
    monkeypatch.setattr("onnxprune.score.residual.inverse", lambda *given: solved.append(1) or invert(*given))
    scores, _ = scores_of(network(nodes, {"w1": W1, "w2": W2, "w3": second}, ["n", 6], ["n", 8]), X[:, :, 0])
    assert len(solved) == 1 and scores.max() == pytest.approx(2.0, rel=0.3)


def test_without_room_for_a_gram_matrix_variances_decide():
    scores, activity = scores_of(apart(3), X, memory=8 * 12 * 12)
    assert all(s.gram is None or len(s.mean) < 12 for s in activity.statistics.tensors.values())
    hidden = np.maximum(np.concatenate([X[:, :, i] for i in range(3)]) @ W1, 0)
    alone = hidden.var(0) * np.square(W2).sum(1)
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(alone))
    np.testing.assert_allclose(np.sort(scores), np.cumsum(np.sort(alone)) / alone.sum(), rtol=1e-3)


def test_a_network_of_unrolled_steps_has_few_problems():
    proto = crnn((8, 8, 16), hidden=12, steps=6, layers=2, height=8)
    channels = analyse(Model(proto))
    x = RNG.standard_normal((4, 1, 8, 24)).astype(np.float32)
    activity = Activity(channels.view, read({"x": x}, input_specs(proto)), threads=1)
    assert len(activity.all_readings) > 4 * 6
    # three convolutions, two directions of two layers, the head
    assert len(activity.statistics.tensors) == 3 + 4 + 1
    assert {s.count for s in activity.statistics.tensors.values() if len(s.mean) > 16} == {4 * 6}


@pytest.mark.parametrize("size", [200, 500])
def test_removal_in_blocks_is_as_good_as_one_by_one(monkeypatch, size):
    """Judged by the error of the refit without what either removed, over shares from a tenth to four fifths."""
    rng = np.random.default_rng(size)
    rows = np.maximum(rng.standard_normal((3 * size, size // 4)) @ rng.standard_normal((size // 4, size)), 0)
    covariance = np.cov(rows.T, bias=True)
    weight = rng.standard_normal((size, 16)) * rng.lognormal(0, 0.5, (size, 1))
    known = removal.inverse(covariance, 1e-3)

    def errors(rounds):
        monkeypatch.setattr(removal, "ROUNDS", rounds)
        state = removal.Correlated(known.copy(), weight @ weight.T, np.arange(size)[:, None])
        order = np.argsort(removal.removal_errors([state], size))
        return [refit_error(order[: int(share * size)]) for share in (0.1, 0.3, 0.5, 0.8)]

    def refit_error(gone):
        kept = np.setdiff1d(np.arange(size), gone)
        damped = covariance + 1e-3 * np.trace(covariance) / size * np.eye(size)
        rest = damped[np.ix_(gone, gone)] - damped[np.ix_(gone, kept)] @ np.linalg.solve(
            damped[np.ix_(kept, kept)], damped[np.ix_(kept, gone)]
        )
        return float(np.vdot(rest @ weight[gone], weight[gone]))

    np.testing.assert_array_less(errors(96), np.multiply(errors(size), 1.02))
