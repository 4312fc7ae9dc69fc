"""Rows of patches times weights are what onnxruntime computes for the convolution."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.graph.session import open_session
from onnxprune.operators.operator import operator_of

CASES = [
    ("Conv", (2, 4, 9), (6, 4, 3), {}),
    ("Conv", (2, 4, 9), (6, 2, 3), {"group": 2, "pads": [1, 2], "strides": [2]}),
    ("Conv", (2, 4, 7, 8), (4, 1, 3, 2), {"group": 4, "pads": [1, 0, 2, 1]}),
    ("Conv", (2, 4, 9, 11), (6, 4, 3, 3), {"dilations": [2, 1], "pads": [2, 1, 2, 1], "strides": [2, 3]}),
    ("Conv", (1, 3, 7, 8), (5, 3, 2, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (1, 3, 7, 8), (5, 3, 2, 3), {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    ("Conv", (1, 3, 7, 8), (5, 3, 2, 3), {"auto_pad": "VALID"}),
    ("Conv", (1, 2, 4, 5, 6), (3, 2, 2, 3, 1), {"pads": [1, 1, 0, 0, 1, 0]}),
    ("ConvTranspose", (2, 4, 5), (4, 3, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
    ("ConvTranspose", (2, 4, 5, 3), (4, 3, 2, 3), {"group": 2, "strides": [2, 3], "dilations": [1, 2]}),
]


@pytest.mark.parametrize(("op_type", "x_shape", "w_shape", "attributes"), CASES)
def test_patches_times_weights_are_the_convolution(op_type, x_shape, w_shape, attributes) -> None:
    rng = np.random.default_rng(1)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in (x_shape, w_shape))
    node = helper.make_node(op_type, ["x", "w"], ["y"], **attributes)
    info = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", info[:1], info[1:], [onnx.numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (y,) = open_session(model, threads=1).values(["y"], {"x": x})
    layout = operator_of(node).layout(attributes, w.shape, 1)
    rows = layout.inputs(x, y.shape)
    np.testing.assert_array_equal(layout.weight(layout.matrix(w), w.shape), w)
    expected = layout.outputs(y)
    assert rows.count == expected.shape[1]
    chosen = rng.permutation(rows.count)[: rows.count // 2 + 1]
    given = rows.rows(chosen) @ layout.matrix(w).transpose(0, 2, 1)
    np.testing.assert_allclose(given, expected[:, chosen], atol=1e-4)
