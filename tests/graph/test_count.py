"""MACs and parameters are counted from shapes alone."""

from __future__ import annotations

import gzip
from math import prod

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models import zoo
from onnxprune.graph import count
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from tests import plain


def one_node(op_type: str, shapes: list[tuple[int, ...] | None], domain: str = "", **attributes: object) -> View:
    """A graph of one node whose inputs are graph inputs of the given shapes."""
    names = [f"x{i}" if shape is not None else "" for i, shape in enumerate(shapes)]
    node = helper.make_node(op_type, names, ["y"], name="node", domain=domain, **attributes)
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(names, shapes, strict=True)
        if s is not None
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return View(Model(helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=opsets)))


CASES = [
    ("Conv", "", [(1, 8, 9, 9), (16, 4, 3, 3)], (1, 16, 7, 7), {"group": 2}, 16 * 49 * 4 * 9),
    ("ConvTranspose", "", [(1, 8, 5, 5), (8, 4, 2, 2)], (1, 4, 10, 10), {"strides": [2, 2]}, 8 * 25 * 4 * 4),
    ("Gemm", "", [(6, 3), (6, 5)], (3, 5), {"transA": 1}, 3 * 5 * 6),
    ("MatMul", "", [(2, 3, 4), (4, 5)], (2, 3, 5), {}, 2 * 3 * 4 * 5),
    ("FusedMatMul", "com.microsoft", [(2, 4, 3), (2, 4, 5)], (2, 3, 5), {"transA": 1}, 2 * 3 * 4 * 5),
    ("Einsum", "", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), {"equation": "b i k, b k j -> b i j"}, 2 * 3 * 4 * 5),
    ("Einsum", "", [(7, 2, 3, 4), (2, 4, 5)], (7, 2, 3, 5), {"equation": "...ik,...kj->...ij"}, 7 * 2 * 3 * 4 * 5),
    ("LSTM", "", [(10, 2, 3), (1, 20, 3), (1, 20, 5)], (10, 1, 2, 5), {"hidden_size": 5}, 10 * 2 * 20 * 8),
    ("QLinearConv", "", [(1, 8, 9, 9), (), (), (16, 8, 3, 3), (), ()], (1, 16, 7, 7), {}, 16 * 49 * 72),
    ("QLinearMatMul", "", [(3, 4), (), (), (4, 5), (), ()], (3, 5), {}, 60),
    ("Attention", "", [(2, 4, 6, 8), (2, 2, 7, 8), (2, 2, 7, 5)], (2, 4, 6, 5), {}, 2 * 4 * 6 * 7 * (8 + 5)),
    ("Attention", "com.microsoft", [(2, 6, 12), (12, 24)], (2, 6, 8), {}, 2 * 6 * 12 * 24 + 2 * 6 * 6 * 16),
    ("MultiHeadAttention", "com.microsoft", [(2, 6, 12), (2, 7, 12), (2, 7, 8)], (2, 6, 8), {}, 2 * 6 * 7 * 20),
    ("GroupQueryAttention", "com.microsoft", [(2, 6, 12), (2, 6, 4), (2, 6, 4)], (2, 6, 12), {}, 2 * 2 * 6 * 6 * 12),
]


@pytest.mark.parametrize(("op_type", "domain", "shapes", "output", "attributes", "expected"), CASES)
def test_a_node_has_the_macs_of_its_index_equation(op_type, domain, shapes, output, attributes, expected):
    view = one_node(op_type, shapes, domain, **attributes)
    known = {f"x{i}": shape for i, shape in enumerate(shapes)} | {"y": output}
    assert count.macs(view, known) == {"node": expected}


def test_a_node_of_unknown_shape_is_left_out():
    view = one_node("MatMul", [(2, 3), (3, 4)])
    assert count.macs(view, {"x0": (2, 3)}) == {}


def test_weights_are_floats_and_quantised_integers_but_no_shapes():
    def stored(name: str, dtype: str, *dims: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.zeros(dims, dtype), name)

    tensors = [stored("w", "float32", 4, 6), stored("q", "int8", 5, 2), stored("shape", "int64", 3)]
    constant = helper.make_node("Constant", [], ["c"], value=stored("", "float16", 7))
    view = View(Model(helper.make_model(helper.make_graph([constant], "g", [], [], tensors))))
    assert count.params(view, {}) == {"w": 24, "q": 10, "c": 7}
    assert count.params(view, {"w": (4, 3)})["w"] == 12
    assert count.size_bytes(view, {"w": (4, 3)}) == {"w": 48, "q": 10, "c": 14}
    assert all(prod(view.parameters[k].dims) == n for k, n in count.params(view, {}).items())


@pytest.mark.parametrize(
    ("name", "published"),
    [("resnet18", 1.814e9), ("resnet50", 4.09e9), ("mobilenet_v2", 0.30e9), ("vit_b_16", 17.6e9)],
)
def test_known_networks_have_their_published_macs(name, published):
    view = View(Model(ModelProto.FromString(gzip.decompress(zoo.path(name).read_bytes()))))
    shapes = trace(view, dict.fromkeys(view.inputs, (1, 3, 224, 224))).shapes
    assert sum(count.macs(view, shapes).values()) == pytest.approx(published, rel=5e-3)  # they are rounded


def test_a_pruned_network_is_counted_before_it_is_built():
    result = plain.prune(zoo.trained()[0], ratio=0.4)
    built = View(result.model)
    expected = result.channels.shapes(result.keep)
    assert sum(count.params(built, {}).values()) == sum(count.params(result.channels.view, expected).values())
    sizes = {key: result.channels.trace.shapes[key] for key in built.inputs}
    found = trace(built, sizes).shapes
    assert sum(count.macs(built, found).values()) == sum(count.macs(result.channels.view, expected).values())
