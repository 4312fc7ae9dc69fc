"""The predicted seconds of the closed form count every weight that it fits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.compensate.closed_cost import GROUP, HIDDEN, PROBLEM, REMOVALS, closed_form_seconds
from onnxprune.graph.cost import MAC64
from onnxprune.graph.cost_rules import NANO
from onnxprune.graph.model import Model

STEPS, SAMPLES = 20, 8


def recurrent(op_type: str, gates: int, width: int, hidden: int) -> Model:
    stored = {
        "w": np.ones((1, gates * hidden, width), np.float32),
        "r": np.ones((1, gates * hidden, hidden), np.float32),
    }
    node = helper.make_node(op_type, ["x", "w", "r"], ["y"], hidden_size=hidden)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [STEPS, SAMPLES, width])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_both_weights_of_recurrent_layers_are_counted(op_type: str, gates: int) -> None:
    def predicted(width: int, hidden: int) -> float:
        feed = {"x": np.zeros((STEPS, SAMPLES, width), np.float32)}
        return closed_form_seconds(recurrent(op_type, gates, width, hidden), feed, SAMPLES)

    small = predicted(64, 64)
    assert predicted(2048, 64) - small > 0.9 * REMOVALS * MAC64 * 2048**3
    assert predicted(64, 2048) - small > 0.9 * REMOVALS * MAC64 * 2048**3


def layer(groups: int, *behind: str, samples: int = 64) -> float:
    """Return the predicted seconds of a Conv of 64 channels with something behind it."""
    weight = numpy_helper.from_array(np.ones((64, 64 // groups, 3, 3), np.float32), "w")
    names = ["c", *(f"b{number}" for number in range(len(behind)))]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], group=groups, pads=[1] * 4)]
    for op_type, read, made in zip(behind, names, names[1:], strict=False):
        nodes.append(helper.make_node(op_type, [read, read] if op_type == "Add" else [read], [made]))
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 64, 16, 16])
    y = helper.make_tensor_value_info(names[-1], onnx.TensorProto.FLOAT, None)
    proto = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weight]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return closed_form_seconds(Model(proto), {"x": np.zeros((16, 64, 16, 16), np.float32)}, samples)


def test_a_clamp_behind_a_layer_takes_passes_over_its_rows() -> None:
    assert layer(1, "Relu") > layer(1) + NANO * HIDDEN * 64 * 16_000
    assert layer(1, "Sigmoid") < layer(1, "Relu") and layer(1, "Relu", "Relu") < 1.1 * layer(1, "Relu")


def test_each_group_of_a_grouped_convolution_is_a_fit_of_its_own() -> None:
    assert layer(64) - PROBLEM > 64 * GROUP
    assert layer(64, samples=256) < 4 * layer(64)


def test_fewer_rows_than_features_are_fitted_on_their_products() -> None:
    def predicted(samples: int) -> float:
        weight = numpy_helper.from_array(np.ones((3000, 8), np.float32), "w")
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3000])
        y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return closed_form_seconds(Model(proto), {"x": np.zeros((16, 3000), np.float32)}, samples)

    removals = REMOVALS * MAC64 * 3000**3
    assert predicted(64) - removals < 0.1 < 20 * (predicted(64) - removals) < predicted(16_000) - removals
