"""The predicted seconds of the closed form count every weight that it fits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.compensate.closed_cost import closed_form_seconds
from onnxprune.compensate.problem import LstsqOptions
from onnxprune.graph.cost import gram_seconds
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

    rows = min(STEPS * SAMPLES, LstsqOptions().rows)
    small = predicted(64, 64)
    assert predicted(512, 64) - small > 0.9 * gram_seconds(rows, 512) - gram_seconds(rows, 64)
    assert predicted(64, 512) - small > 0.9 * gram_seconds(rows, 512) - gram_seconds(rows, 64)
