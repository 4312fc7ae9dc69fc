"""What an error inside costs at the outputs, on networks where it can be written down."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.channels.analyse import analyse
from onnxprune.errors import UsageError
from onnxprune.score import usual
from onnxprune.score.activity import Activity
from onnxprune.score.curvature import Curvature
from onnxprune.score.scoring import score_groups
from onnxprune.score.usual import usual_score
from onnxprune.statistics.data import read
from onnxprune.statistics.feeds import input_specs
from tests.compensate.small import network

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")


def active(model, x):
    channels = analyse(model)
    return channels, Activity(channels.view, read({"x": x}, input_specs(model.proto)), threads=1)


def chain(*weights, between="Relu"):
    """Return x -> MatMul -> `between` -> MatMul .. with the weights in order."""
    nodes, here = [], "x"
    for number in range(len(weights)):
        last = number == len(weights) - 1
        nodes.append(helper.make_node("MatMul", [here, f"w{number}"], ["y" if last else f"m{number}"], f"mat{number}"))
        if not last:
            nodes.append(helper.make_node(between, [f"m{number}"], [f"r{number}"], f"act{number}"))
        here = f"r{number}"
    table = {f"w{number}": weight.astype(np.float32) for number, weight in enumerate(weights)}
    return network(nodes, table, ["n", weights[0].shape[0]], ["n", weights[-1].shape[1]])


def test_of_one_output_it_is_the_square_of_the_derivative():
    """y = sum of a[o] relu(m[o]): (dL / db[o])^2 = a[o]^2 / var y wherever m[o] > 0, r being 1 or -1."""
    first, last = RNG.standard_normal((5, 6)), RNG.standard_normal((6, 1))
    x = RNG.standard_normal((64, 5)).astype(np.float32)
    _, activity = active(chain(first, last), x)
    given = x @ first
    y = np.maximum(given, 0) @ last
    batch = y[:16]  # the outputs are scaled by their spread on one run
    wanted = np.square(last[:, 0]) * (given > 0).mean(axis=0) / batch.var()
    # single precision
    np.testing.assert_allclose(Curvature.of(activity).slopes["w0", 0], wanted, rtol=1e-4)


def test_of_a_convolution_positions_of_a_sample_add_up():
    """y = mean over p of c[p]: moving all of c by b moves y by b."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "v"], ["y"], "last"),
    ]
    v = np.array([[2.0], [0.0], [-1.0]], np.float32)
    model = network(
        nodes, {"w": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32), "v": v}, ["n", 2, 7, 7], ["n", 1]
    )
    _, activity = active(model, RNG.standard_normal((32, 2, 7, 7)).astype(np.float32))
    found = Curvature.of(activity).slopes["w", 1]
    np.testing.assert_allclose(found / found[0], [1, 0, 0.25], rtol=1e-4, atol=1e-9)


def test_what_the_network_hides_costs_nothing():
    """Channels that only tell about an output which is then multiplied by nothing go first, however large they are."""
    first, second = RNG.standard_normal((8, 6)), np.zeros((6, 4))
    second[:3, :2], second[3:, 2:] = 100 * RNG.standard_normal((3, 2)), RNG.standard_normal((3, 2))
    hidden = np.vstack([np.zeros((2, 3)), RNG.standard_normal((2, 3))])
    channels, activity = active(chain(first, second, hidden), RNG.standard_normal((200, 8)).astype(np.float32))
    group = next(g for g in channels.groups if any(s.tensor == "w1" and s.role == "reads" for s in g.sites))
    plain, seen = (
        score_groups(channels.view, [group], name, activity=activity)[0][group.name] for name in ("lstsq", "curvature")
    )
    assert set(np.argsort(seen)[:3]) == {0, 1, 2} and seen[3:].min() > 1e3 * seen[:3].max()
    assert set(np.argsort(plain)[:3]) != {0, 1, 2}


def test_the_unit_of_what_is_between_layers_does_not_count():
    first, second, third = (RNG.standard_normal(shape) for shape in ((8, 6), (6, 5), (5, 3)))
    x = RNG.standard_normal((200, 8)).astype(np.float32)

    def scores(factor):
        channels, activity = active(chain(first, second * factor, third / factor), x)
        return score_groups(channels.view, channels.groups, "curvature", activity=activity)[0]

    for name, values in scores(1.0).items():
        np.testing.assert_allclose(scores(64.0)[name], values, rtol=1e-3)


def test_a_recurrence_counts_as_others_do_on_the_mean():
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], "lstm", hidden_size=6),
        helper.make_node("Squeeze", ["h", "one"], ["s"], "squeeze"),
        helper.make_node("MatMul", ["s", "v"], ["y"], "last"),
    ]
    shapes = {"w": (1, 24, 5), "r": (1, 24, 6), "v": (6, 3)}
    weights = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model = network(nodes, {**weights, "one": np.array([1])}, [4, "n", 5], [4, "n", 3])
    channels, activity = active(model, RNG.standard_normal((4, 32, 5)).astype(np.float32))
    found = Curvature.of(activity)
    assert set(found.slopes) == {("v", 0)} and found.usual(activity) > 0
    (name, values), *_ = score_groups(channels.view, channels.groups, "curvature", activity=activity)[0].items()
    assert np.isfinite(values).all() and values.max() > values.min() > 0, name


def test_it_is_taken_where_derivatives_are_at_hand_and_cheap(monkeypatch):
    _, activity = active(chain(RNG.standard_normal((5, 6)), RNG.standard_normal((6, 3))), np.ones((40, 5), np.float32))
    name, seconds = usual_score(activity)
    assert name == "curvature" and 0 < seconds < 1
    assert usual_score(None) == ("l2", 0.0)
    monkeypatch.setattr(usual, "MOST_SECONDS", seconds / 10)
    assert usual_score(activity) == ("lstsq", 0.0)


def test_it_is_not_taken_where_copies_of_the_model_do_not_fit_into_the_memory():
    _, activity = active(chain(RNG.standard_normal((5, 600)), RNG.standard_normal((600, 3))), np.ones((40, 5), "f4"))
    activity.memory = 4 * activity.view.model.size_bytes
    assert usual_score(activity)[0] == "curvature"
    activity.memory -= 1
    assert usual_score(activity) == ("lstsq", 0.0)


def test_what_a_branch_reads_is_left_out_and_the_rest_is_weighed():
    """Both branches of an If read a tensor of the main graph: no bias can be added inside, they count as usual."""
    value = helper.make_tensor_value_info
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["r", w], [f"{w}_y"], f"{w}_mat")], w, [], [value(f"{w}_y", 1, None)]
        )
        for w in ("wa", "wb")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["m"], "first"),
        helper.make_node("Relu", ["m"], ["r"], "relu"),
        helper.make_node("If", ["yes"], ["z"], "if", then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("MatMul", ["r", "w1"], ["v"], "beside"),
        helper.make_node("Add", ["z", "v"], ["y"], "sum"),
    ]
    shapes = {"w0": (5, 6), "wa": (6, 3), "wb": (6, 3), "w1": (6, 3)}
    weights = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model = network(nodes, {**weights, "yes": np.array(True)}, ["n", 5], ["n", 3])
    channels, activity = active(model, RNG.standard_normal((40, 5)).astype(np.float32))
    name, _ = usual_score(activity)
    assert name == "curvature" and set(activity.curvature.slopes) == {("w0", 0), ("w1", 0)}
    scores, _ = score_groups(channels.view, channels.groups, name, activity=activity)
    assert all(np.isfinite(values).all() for values in scores.values()) and scores


def test_without_the_package_of_derivatives_errors_count_as_they_are(monkeypatch):
    _, activity = active(chain(RNG.standard_normal((5, 6)), RNG.standard_normal((6, 3))), np.ones((40, 5), np.float32))
    monkeypatch.setattr(usual, "find_spec", lambda name: None)
    assert usual_score(activity) == ("lstsq", 0.0)


def test_an_operator_without_derivative_is_said_where_the_score_is_asked_for_only():
    model = chain(RNG.standard_normal((5, 6)), RNG.standard_normal((6, 3)), between="QuickGelu")
    model.proto.graph.node[1].domain = "com.microsoft"
    model.proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    channels, activity = active(model, RNG.standard_normal((40, 5)).astype(np.float32))
    assert usual_score(activity) == ("lstsq", 0.0)
    with pytest.raises(UsageError, match=r"needs derivatives.*Choose another"):
        score_groups(channels.view, channels.groups, "curvature", activity=activity)
