"""The table of folds gives what the reference implementation of onnx gives, value and type."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxprune
from models import zoo
from onnxprune.graph import fold
from onnxprune.graph.trace import trace
from onnxprune.graph.view import Node, View

INT, F = np.int64, np.float32
A = np.arange(12, dtype=INT).reshape(3, 4)
V = np.array([7, 3, 9], dtype=INT)

CASES = [
    ("Identity", [A], {}),
    ("Gather", [A, np.array([0, -1], INT)], {"axis": 1}),
    ("Gather", [V, np.array(1, INT)], {}),
    ("Concat", [V, V[:1]], {"axis": 0}),
    ("Concat", [A, A], {"axis": -1}),
    ("Unsqueeze", [V, np.array([0, -1], INT)], {}),
    ("Squeeze", [A[:1], np.array([0], INT)], {}),
    ("Squeeze", [A[:1, :1]], {}),
    *(("Cast", [V], {"to": to}) for to in (1, 6, 7, 9, 10, 11, 16)),
    *(("Cast", [np.array([1.5, -2.7], F)], {"to": to}) for to in (6, 7, 11)),
    ("Cast", [np.array([0, 3], INT)], {"to": 9}),
    ("Slice", [A, np.array([1], INT), np.array([2**63 - 1], INT), np.array([1], INT)], {}),
    ("Slice", [A, np.array([-2, 0], INT), np.array([3, -1], INT), np.array([0, 1], INT), np.array([1, 2], INT)], {}),
    ("Slice", [V, np.array([-1], INT), np.array([-(2**63)], INT), np.array([0], INT), np.array([-1], INT)], {}),
    ("Slice", [V, np.array([5], INT), np.array([9], INT)], {}),
    ("Slice", [A, np.array([-1], INT), np.array([-(2**63)], INT), np.array([1], INT), np.array([-2], INT)], {}),
    ("Slice", [A, np.array([9], INT), np.array([0], INT), np.array([0], INT), np.array([-1], INT)], {}),
    ("Reshape", [A, np.array([0, 2, -1], INT)], {}),
    ("Reshape", [V[:0], np.array([0, 3], INT)], {"allowzero": 1}),
    ("Transpose", [A], {}),
    ("Transpose", [A[None]], {"perm": [1, 0, 2]}),
    ("Expand", [V[:, None], np.array([2, 1, 4], INT)], {}),
    ("Expand", [A, np.array([1, 1], INT)], {}),
    ("ConstantOfShape", [np.array([2, 3], INT)], {}),
    ("ConstantOfShape", [np.array([2], INT)], {"value": numpy_helper.from_array(np.array([5], INT))}),
    ("Range", [np.array(1, INT), np.array(9, INT), np.array(3, INT)], {}),
    ("Range", [np.array(9, INT), np.array(1, INT), np.array(-3, INT)], {}),
    ("Range", [np.array(0, F), np.array(1, F), np.array(0.25, F)], {}),
    ("Where", [V > 5, V, -V], {}),
    ("Not", [V > 5], {}),
    ("Equal", [V, V[::-1].copy()], {}),
    *((op_type, [V, np.array(7, INT)], {}) for op_type in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    ("Pow", [V.astype(F), np.array(2, INT)], {}),
    ("Pow", [V.astype(F), np.array(-0.5, F)], {}),
    ("Pow", [V, np.array(2, INT)], {}),
    ("Add", [A, V[:1]], {}),
    ("Sub", [V, np.array(4, INT)], {}),
    ("Mul", [V.astype(F), np.array(0.5, F)], {}),
    ("Div", [V, np.array(2, INT)], {}),
    ("Div", [-V, np.array(2, INT)], {}),
    ("Div", [V * [1, -1, 1], np.array(2, INT)], {}),
    ("Div", [V, np.array([2, -2, 4], INT)], {}),
    ("Div", [V.astype(F), np.array(2, F)], {}),
    ("Mod", [V, np.array(4, INT)], {}),
    ("Mod", [-V, np.array(4, INT)], {}),
    ("Mod", [-V, np.array(4, INT)], {"fmod": 1}),
]


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), CASES, ids=lambda v: v if isinstance(v, str) else None)
def test_a_fold_is_what_the_reference_gives(op_type, inputs, attributes):
    names = [f"i{n}" for n in range(len(inputs))]
    proto = helper.make_node(op_type, names, ["y"], **attributes)
    node = Node(proto, op_type, "", 18, "", tuple(names), ("y",), onnx.GraphProto())
    expected = ReferenceEvaluator(proto, opsets={"": 18}).run(None, dict(zip(names, inputs, strict=True)))[0]
    (found,) = fold.evaluate(node, list(inputs))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["swin_t", "BERT", "resnet18"])
def test_what_does_not_depend_on_sizes_is_the_same_object_in_both_runs(name):
    traced = trace(View(onnxprune.load(zoo.build(name))))
    one, two = traced.first, traced.second
    shared = [key for key in one.types if one.types[key] is two.types[key]]
    assert len(shared) > len(one.types) / 4
    assert all(one.values.get(key) is two.values.get(key) for key in shared)
    assert all(two.values[key] is value for key, value in traced.values.items())


def test_a_slice_backwards_is_what_onnxruntime_gives():
    """Bounds outside of the axis are cut, where the reference leaves nothing."""
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None]) for name in "xsety"]
    proto = helper.make_node("Slice", ["x", "s", "e", "", "t"], ["y"])
    graph = helper.make_graph([proto], "g", ports[:4], ports[4:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    node = Node(proto, "Slice", "", 13, "", ("x", "s", "e", "", "t"), ("y",), onnx.GraphProto())
    for size, start, end, step in itertools.product((0, 1, 5), range(-7, 8), (*range(-7, 8), -(2**63)), (-1, -2)):
        feeds = {"x": np.arange(size), "s": np.array([start]), "e": np.array([end]), "t": np.array([step])}
        (expected,) = session.run(None, feeds)
        (found,) = fold.evaluate(node, [feeds["x"], feeds["s"], feeds["e"], None, feeds["t"]])
        np.testing.assert_array_equal(found, expected)
