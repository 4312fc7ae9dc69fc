"""Gradient steps: the gradient is that of finite differences, the loss falls, and what got worse is not used."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.compensate.distil import DistilOptions, distil, vary
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.graph.model import Model
from onnxprune.statistics.session import Session
from tests.compensate.small import network, run

pytest.importorskip("onnx_ad", reason="onnx-ad is an extra")
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


def test_the_gradient_is_that_of_finite_differences() -> None:
    model, x, target = small(4), normal(6, 2, 5, 5), normal(6, 3)
    gradient = gradient_graph(model, {"y": 2.0}, {"y": (6, 3)}, {"x": x})
    session = Session(gradient.proto, threads=1)
    feed = {"x": x, gradient.targets["y"]: target, **gradient.seed()}

    def loss(weights: dict[str, np.ndarray]) -> float:
        return float(session.run([gradient.loss], {**feed, **weights})[0][0])

    (given,) = run(model, [{"x": x}])
    assert loss(gradient.weights) == pytest.approx(2 * np.square(given - target).mean(), rel=1e-5)
    slopes = dict(zip(gradient.weights, session.run(gradient.outputs(), {**feed, **gradient.weights})[1:], strict=True))
    assert set(slopes) == {"w0", "b0", "w1", "b1"}
    for name, value in gradient.weights.items():
        direction = normal(*value.shape)
        ends = [loss({**gradient.weights, name: value + np.float32(s) * direction}) for s in (2e-3, -2e-3)]
        slope = float((slopes[name].reshape(value.shape) * direction).sum())
        assert slope == pytest.approx((ends[0] - ends[1]) / 4e-3, rel=0.05, abs=5e-3)  # float32, kinks of Relu


def test_steps_bring_a_small_network_nearer_to_a_large_one() -> None:
    teacher, student = small(8), small(4)
    feed = {"x": normal(96, 2, 5, 5)}
    result, loss = distil(teacher, student, {"y": lambda y: y}, {}, feed, DistilOptions(150, 16, 0.05, threads=1))
    assert loss.after < 0.5 * loss.before
    fresh = [{"x": normal(64, 2, 5, 5)}]
    (wanted,), (before,), (after,) = (run(model, fresh) for model in (teacher, student, result))
    assert np.square(after - wanted).mean() < 0.7 * np.square(before - wanted).mean()


def test_steps_that_make_it_worse_are_not_used() -> None:
    model, feed = small(4), {"x": normal(32, 2, 5, 5)}
    other = small(4)
    result, loss = distil(other, model, {"y": lambda y: y}, {}, feed, DistilOptions(2, 8, 1e4, threads=1))
    assert result is model
    assert loss.after == loss.before


def test_variations_keep_shape_type_and_pairing_of_inputs() -> None:
    feed = {"x": normal(10, 3, 24, 24), "z": normal(10, 7)}
    varied = vary(feed, 6, np.random.default_rng(0), mix=True, shift=True)
    assert {name: (a.shape, a.dtype) for name, a in varied.items()} == {
        "x": ((6, 3, 24, 24), np.float32),
        "z": ((6, 7), np.float32),
    }
    words = {"ids": np.arange(20).reshape(10, 2), "x": feed["x"]}
    varied = vary(words, 4, np.random.default_rng(0), mix=True, shift=True)
    for ids, image in zip(varied["ids"], varied["x"], strict=True):
        np.testing.assert_array_equal(image, feed["x"][ids[0] // 2])
