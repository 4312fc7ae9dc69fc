"""What the trace knows where onnx's own inference leaves a shape open."""

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
