"""Derivatives are written on shapes that are computed quickly, with the same values."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from onnxprune.compensate.mixtures import Mixture
from onnxprune.compensate.plain_shapes import merged_axes, with_plain_shapes

FLOAT = onnx.TensorProto.FLOAT


def model(nodes: list[onnx.NodeProto], sizes: dict[str, list[int]], **stored: np.ndarray) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, FLOAT, size) for name, size in sizes.items()]
    outputs = [helper.make_tensor_value_info("y", FLOAT, None)]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def results(proto: onnx.ModelProto, sizes: dict[str, list[int]]) -> np.ndarray:
    draw = np.random.default_rng(0)
    feed = {name: draw.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("axes", [[3], [0], [0, 2], [0, 2, 3], [1], [-1], [1, 3], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceMean"])
def test_sums_over_any_axes_stay_what_they_were(axes: list[int], keep: int, op_type: str) -> None:
    sizes = {"x": [3, 4, 5, 1, 1]}
    proto = model([helper.make_node(op_type, ["x", "axes"], ["y"], keepdims=keep)], sizes, axes=np.array(axes))
    before = results(proto, sizes)
    with_plain_shapes(proto)
    after = results(proto, sizes)
    assert before.shape == after.shape
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)  # sums in another order
    summed = [node for node in proto.graph.node if node.op_type == op_type]
    assert len(summed) == (0 if all(axis in (3, 4, -1) for axis in axes) else 1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([3, 4, 5, 1], [1]),
        ([3, 4, 5, 1], [3, 4, 1, 1]),
        ([1, 4, 1, 1], [3, 4, 5, 1]),
        ([4, 1, 1], [3, 4, 5, 1]),
        ([3, 5], [5]),
        ([3, 1], [1, 1]),
    ],
)
@pytest.mark.parametrize("op_type", ["Mul", "Sub"])
def test_spread_tensors_stay_what_they_were(op_type: str, a: list[int], b: list[int]) -> None:
    sizes = {"a": a, "b": b}
    proto = model([helper.make_node(op_type, ["a", "b"], ["y"])], sizes)
    before = results(proto, sizes)
    with_plain_shapes(proto)
    np.testing.assert_array_equal(results(proto, sizes), before)
    node = next(node for node in proto.graph.node if node.op_type == op_type)
    assert (node.input[0] == "a") == (max(len(a), len(b)) == 2 and a[-1] == 5)


def test_what_is_summed_is_not_merged_with_what_is_kept() -> None:
    assert merged_axes((2, 3, 1, 4, 5), {0, 2, 4}) == ((2, 12, 5), (0, 2))
    assert merged_axes((2, 3, 4), {0, 1}) == ((6, 4), (0,))
    assert merged_axes((2, 1), {1}) == ((2,), ())


@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 5), (3, 6, 4, 2)])
def test_a_mixture_goes_along_axis_one(shape: tuple[int, ...]) -> None:
    draw = np.random.default_rng(1)
    project, array = draw.standard_normal((4, 6)), draw.standard_normal(shape).astype(np.float32)
    mixed = Mixture(project, project.T).apply(array)
    np.testing.assert_allclose(mixed, np.einsum("kc,nc...->nk...", project, array), rtol=1e-5, atol=1e-5)
    assert mixed.flags.c_contiguous


def test_sizes_that_inference_leaves_open_are_not_spelled_out() -> None:
    """The size of y is known to nobody before it runs: a size made up for the analysis would be refused."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["float"], to=FLOAT),
        helper.make_node("Unsqueeze", ["float", "last"], ["wide"]),
        helper.make_node("Mul", ["wide", "one"], ["twice"]),
        helper.make_node("ReduceSum", ["twice", "last"], ["y"], keepdims=0),
    ]
    sizes = {"x": [4, 5]}
    proto = model(nodes, sizes, last=np.array([2]), one=np.full((1, 1, 1), 2, np.float32))
    before = results(proto, sizes)
    with_plain_shapes(proto)
    np.testing.assert_array_equal(results(proto, sizes), before)
