"""Gradient steps: the gradient is that of finite differences, the loss falls, and what got worse is not used."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.compensate import distil as walks
from onnxprune.compensate.descent import Descent, orthogonal, spreads
from onnxprune.compensate.distil import DistilOptions, before_last, distil
from onnxprune.compensate.draws import draws_of
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics.feeds import InputSpec
from tests.compensate.small import network, run

RNG = np.random.default_rng(13)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def small(width: int) -> Model:
    node = helper.make_node
    weights = {"w0": normal(width, 2, 3, 3), "b0": normal(width), "w1": 0.3 * normal(3, width), "b1": normal(3)}
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["h"]),
        node("GlobalAveragePool", ["h"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w1", "b1"], ["y"], transB=1),
    ]
    return network(nodes, weights, ["n", 2, 5, 5], ["n", 3])


def grouped(groups: int, stride: int) -> Model:
    node = helper.make_node
    weights = {"w0": normal(4, 2, 3, 3), "w1": normal(4, 4 // groups, 3, 2), "b1": normal(4), "w2": normal(3, 4)}
    bounds = {"low": np.float32(-1), "high": np.float32(2)}
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        node("Clip", ["a", "low", "high"], ["h"]),
        node("Conv", ["h", "w1", "b1"], ["c"], pads=[1, 0, 0, 1], strides=[stride, 1], dilations=[1, 2], group=groups),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w2"], ["y"], transB=1),
    ]
    return network(nodes, weights | bounds, ["n", 2, 5, 5], ["n", 3])


def plain(kernel: tuple[int, int], **attributes: object) -> Model:
    node = helper.make_node
    draw = np.random.default_rng(7)
    shapes = {"w0": (4, 2, 1, 1), "w1": (3, 4, *kernel), "b1": (3,)}
    weights = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        node("Conv", ["x", "w0"], ["a"]),
        node("Tanh", ["a"], ["h"]),
        node("Conv", ["h", "w1", "b1"], ["c"], **attributes),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["y"]),
    ]
    return network(nodes, weights, ["n", 2, 5, 5], ["n", 3])


def products(shared: bool) -> Model:
    """Products over the last axis of images, one matrix read once or twice."""
    node = helper.make_node
    draw = np.random.default_rng(8)
    shapes = {"w0": (5, 5), "w1": (5, 5), "b1": (5,), "w2": (5, 3)}
    weights = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if shared:
        del weights["w1"]
    nodes = [
        node("MatMul", ["x", "w0"], ["a"]),
        node("Tanh", ["a"], ["h"]),
        node("MatMul", ["h", "w0" if shared else "w1"], ["c"]),
        node("Add", ["c", "b1"], ["d"]),
        node("ReduceMean", ["d"], ["p"], axes=[1, 2], keepdims=0),
        node("MatMul", ["p", "w2"], ["y"]),
    ]
    return network(nodes, weights, ["n", 2, 5, 5], ["n", 3])


CASES = {
    "plain": small(4),
    "grouped": grouped(2, 1),
    "depthwise": grouped(4, 2),
    "strided": plain((3, 2), strides=[2, 1], dilations=[1, 2], pads=[1, 0, 0, 2]),
    "uneven": plain((2, 3), strides=[3, 2], pads=[0, 1, 1, 0]),
    "many taps": plain((6, 5), pads=[2, 2, 2, 2]),
    "products": products(False),
    "shared products": products(True),
}


@pytest.mark.parametrize("model", CASES.values(), ids=CASES)
def test_the_gradient_is_that_of_finite_differences(model: Model) -> None:
    x, target = normal(6, 2, 5, 5), normal(6, 3)
    gradient = gradient_graph(model, {"y": 2.0}, {"y": (6, 3)}, {"x": x})
    session = open_session(gradient.proto, threads=1)
    feed = {"x": x, gradient.targets["y"]: target, **gradient.seed()}

    def loss(weights: dict[str, np.ndarray]) -> float:
        return float(session.values([gradient.loss], {**feed, **weights})[0][0])

    (given,) = run(model, [{"x": x}])
    assert loss(gradient.weights) == pytest.approx(2 * np.square(given - target).mean(), rel=1e-5)
    slopes = dict(
        zip(gradient.weights, session.values(gradient.outputs(), {**feed, **gradient.weights})[1:], strict=True)
    )
    assert set(slopes) == {t.name for t in model.proto.graph.initializer} - {"low", "high"}
    for name, value in gradient.weights.items():
        direction = normal(*value.shape)
        ends = [loss({**gradient.weights, name: value + np.float32(s) * direction}) for s in (5e-4, -5e-4)]
        slope = float((slopes[name].reshape(value.shape) * direction).sum())
        assert slope == pytest.approx((ends[0] - ends[1]) / 1e-3, rel=0.05, abs=3e-2)  # float32, kinks of Clip


def test_a_transposed_convolution_moves_and_one_whose_shape_is_spelled_out_keeps_its_weight() -> None:
    node = helper.make_node
    weights = {"w0": normal(4, 2, 3, 3), "w1": normal(4, 3, 2, 2), "b1": normal(3)}
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["h"]),
        node("ConvTranspose", ["h", "w1", "b1"], ["c"], strides=[2, 2]),
        node("GlobalAveragePool", ["c"], ["y"]),
    ]
    model, x = network(nodes, weights, ["n", 2, 5, 5], ["n", 3, 1, 1]), normal(6, 2, 5, 5)
    assert set(gradient_graph(model, {"y": 1.0}, {"y": (6, 3, 1, 1)}, {"x": x}).weights) == {"w0", "w1", "b1"}
    model.proto.graph.node[2].attribute.append(helper.make_attribute("output_shape", [10, 10]))
    assert set(gradient_graph(model, {"y": 1.0}, {"y": (6, 3, 1, 1)}, {"x": x}).weights) == {"w0", "b1"}


def test_steps_bring_a_small_network_nearer_to_a_large_one() -> None:
    teacher, student = small(8), small(4)
    feeds = [{"x": normal(32, 2, 5, 5)} for _ in range(3)]
    options = DistilOptions(150, 16, rate=0.05, threads=1)
    result, loss = distil(teacher, student, {"y": lambda y: y}, {}, feeds, options)
    assert loss.after < 0.5 * loss.before
    fresh = [{"x": normal(64, 2, 5, 5)}]
    (wanted,), (before,), (after,) = (run(model, fresh) for model in (teacher, student, result))
    assert np.square(after - wanted).mean() < 0.7 * np.square(before - wanted).mean()


def test_short_walks_take_smaller_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the steps has half the rate, slower walks start from there, long ones have the whole."""
    rates: list[float] = []

    class Spy(Descent):
        def __init__(self, weights: object, matrices: object, rate: float, steps: int, workers: int) -> None:
            rates.append(rate)
            super().__init__(weights, matrices, rate, steps, workers)  # type: ignore[arg-type]

    monkeypatch.setattr(walks, "Descent", Spy)
    monkeypatch.setattr("onnxprune.compensate.descent.FULL_RATE", 8)
    feeds = [{"x": normal(8, 2, 5, 5)} for _ in range(4)]
    same = small(6)
    for steps in (2, 8, 32):
        distil(same, same, {"y": lambda y: y}, {}, feeds, DistilOptions(steps=steps, rate=0.08, threads=1))
    assert rates == pytest.approx([0.04, 0.005, 0.000625, 0.08, 0.01, 0.00125, 0.08, 0.01, 0.00125])


def test_steps_that_make_it_worse_are_not_used() -> None:
    model, feeds = small(4), [{"x": normal(32, 2, 5, 5)}]
    other = small(4)
    result, loss = distil(other, model, {"y": lambda y: y}, {}, feeds, DistilOptions(2, 8, rate=1e4, threads=1))
    assert result is model
    assert loss.after == loss.before


def specs(*shape: int | None) -> list[InputSpec]:
    return [InputSpec("x", np.dtype(np.float32), shape)]


def test_a_fixed_batch_stays_and_more_runs_make_a_step() -> None:
    draws = draws_of([{"x": normal(2, 3)}] * 12, specs(2, 3), 8, 64)
    feeds = draws.step(np.random.default_rng(0))
    assert [feed["x"].shape for feed in feeds] == [(2, 3)] * 4
    assert [feed["x"].shape for feed in draws.held_out()] == [(2, 3)]


def test_inputs_without_a_batch_axis_are_taken_feed_by_feed() -> None:
    inputs = [*specs(None, 4), InputSpec("state", np.dtype(np.float32), (1, 2))]
    given = [{"x": normal(size, 4), "state": normal(1, 2)} for size in (5,) * 9 + (7,)]
    draws = draws_of(given, inputs, 64, 64)
    for feed in draws.step(np.random.default_rng(0)):
        (same,) = [one for one in given if one["x"].shape == (5, 4) and (one["x"] == feed["x"]).all()]
        np.testing.assert_array_equal(same["state"], feed["state"])


def test_two_samples_are_too_few_for_steps() -> None:
    with pytest.raises(ModelError, match="three samples"):
        draws_of([{"x": normal(2, 3)}], specs(None, 3), 8, 8)


def test_a_matrix_is_brought_to_singular_values_near_one() -> None:
    found = np.linalg.svd(orthogonal(normal(3, 6, 4) * np.float32(50)), compute_uv=False)
    assert found.shape == (3, 4)
    # the iteration of Jordan et al. ends between 0.7 and 1.2; small values need more rounds
    assert found.min() > 0.3
    assert found.max() < 1.3


def test_a_step_moves_every_weight_by_the_rate() -> None:
    weights = {"matrix": normal(4, 6), "vector": normal(5)}
    descent = Descent(weights, {"matrix": (1, 4, 6)}, 0.2, 1000)
    descent.step([normal(4, 6), normal(5)])
    for name, before in weights.items():
        moved = np.sqrt(np.square(descent.weights[name] - before).mean() / np.square(before).mean())
        assert moved == pytest.approx(0.2 / 20, rel=0.01)  # the first of 20 steps in which the rate rises


def test_an_infinite_slope_moves_nothing() -> None:
    descent = Descent({"w": normal(3, 4), "v": normal(2)}, {"w": (1, 3, 4)}, 0.2, 100)
    before = dict(descent.weights)
    descent.step([np.full((3, 4), np.nan, np.float32), np.full(2, np.inf, np.float32)])
    for name, weight in before.items():
        np.testing.assert_array_equal(descent.weights[name], weight)


def test_outputs_are_compared_before_a_last_softmax() -> None:
    nodes = [helper.make_node("Softmax", ["z"], ["p"]), helper.make_node("Identity", ["p"], ["y"])]
    model = network(nodes, {}, ["n", 3], ["n", 3])
    assert before_last(model.proto.graph, "y") == "z"
    assert before_last(model.proto.graph, "z") == "z"


def test_rows_and_columns_of_other_sizes_move_in_their_own_units() -> None:
    rows, columns = np.array([1, 1, 4], np.float32)[:, None], np.array([1, 1, 2, 5], np.float32)
    found = spreads(np.sign(normal(1, 3, 4)) * rows * columns)
    np.testing.assert_allclose(found[0] / found[0, 0, 0], rows * columns, rtol=1e-5)  # float32
