"""What the trace knows where onnx's own inference leaves a shape open."""

import pytest
from onnx import parser

import onnxprune
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View


def test_a_squeeze_without_axes_drops_the_axes_of_size_1():
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        agraph (float[batch, 4, 1] x) => (float[batch, n] y) {
            s = Squeeze(x)
            y = Relu(s)
        }"""
    )
    found = trace(View(onnxprune.load(proto)))
    batch = found.shapes["x"][0]
    assert found.shapes["s"] == (batch, 4)
    assert found.shapes["y"] == (batch, 4)
    assert found.dynamic("y").tolist() == [True, False]


@pytest.mark.parametrize("op_type", ["NonZero", "Unique", "Compress"])
def test_sizes_that_an_operator_leaves_open_are_dynamic_though_all_inputs_are_fixed(op_type):
    reads = "x, b" if op_type == "Compress" else "x"
    proto = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        agraph (float[4, 5] x, bool[20] b) => (int64 y) {{
            s = {op_type}({reads})
            y = Shape(s)
        }}"""
    )
    found = trace(View(onnxprune.load(proto)))
    assert not found.dynamic("x").any()
    assert found.dynamic("s").tolist() == [False] * (len(found.shapes["s"]) - 1) + [True]
    assert "y" not in found.values
