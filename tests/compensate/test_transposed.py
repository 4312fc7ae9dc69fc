"""ConvTranspose: its weight is learned, and the derivative is what differences say."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.graph.model import load
from onnxprune.graph.session import open_session
from tests import networks

DRAW = np.random.default_rng(8)
X = DRAW.standard_normal((48, 3, 7, 6)).astype(np.float32)
STEP = 1e-3

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strides": {"strides": [2, 2], "pads": [1] * 4},
    "output padding": {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]},
    "two groups": {"group": 2, "strides": [2, 2]},
    "dilations": {"dilations": [2, 1]},
    "uneven pads": {"pads": [0, 1, 1, 0], "strides": [1, 2]},
    "many taps": {"kernel": 6},
}


def decoder(group: int = 1, kernel: int = 3, **fields: Any) -> onnx.ModelProto:
    """Return x (n, 3, 7, 6) -> Conv, Relu, ConvTranspose -> y."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "w2", "b2"], ["y"], group=group, **fields),
    ]
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 7, 6])]
    given = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 6 // group, kernel, kernel), "b2": (6,)}
    return networks.model(nodes, ports, given, networks.weights(**shapes))


@pytest.mark.parametrize("kind", KINDS)
def test_the_derivative_by_every_weight_is_what_differences_say(kind: str) -> None:
    model, x = load(decoder(**KINDS[kind])), X[:2]
    y = open_session(model, threads=1).run({"x": x})["y"]
    gradient = gradient_graph(model, {"y": 1.0}, {"y": y.shape}, {"x": x})
    assert set(gradient.weights) == {"w1", "b1", "w2", "b2"}
    session = open_session(gradient.proto, threads=1)
    feed = {gradient.targets["y"]: np.zeros_like(y), "x": x, **gradient.weights, **gradient.seed()}
    slopes = dict(zip(gradient.outputs(), session.values(gradient.outputs(), feed), strict=True))
    for name, weight in gradient.weights.items():
        away = DRAW.standard_normal(weight.shape).astype(np.float32)
        ends = [session.values([gradient.loss], feed | {name: weight + s * STEP * away})[0][0] for s in (1, -1)]
        wanted = (ends[0] - ends[1]) / (2 * STEP)
        # differences of float32 losses of about 1
        assert float((slopes[f"adj_{name}"].reshape(weight.shape) * away).sum()) == pytest.approx(wanted, abs=2e-3)


def test_steps_change_the_weight_of_a_transposed_convolution() -> None:
    original = decoder(**KINDS["strides"])
    small = onnxprune.sparsify(original, pattern="2:4").model.proto
    found = onnxprune.finetune(original, small, {"x": X}, steps=20, rate=0.03)
    old, new = (next(t for t in p.graph.initializer if t.name == "w2") for p in (small, found.model.proto))
    assert found.after < found.before and old != new
