"""The oracle itself: it accepts a prune made by hand and catches a wrong one."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.micro import CASES
from tests.micro.build import Net
from tests.oracle import parity, relative_error, run, share_left, zeroed


def dense(sizes: tuple[int, int, int], seed: int = 0) -> onnx.ModelProto:
    net = Net(seed=seed)
    y = net.input("batch", sizes[0])
    y = net.Relu(net.Gemm(y, net.weight(sizes[1], sizes[0], name="first"), net.weight(sizes[1], name="bias"), transB=1))
    net.output(net.Gemm(y, net.weight(sizes[2], sizes[1], name="second"), transB=1))
    return net.model()


def cut(proto: onnx.ModelProto, axes: dict[str, tuple[int, list[int]]]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for tensor in result.graph.initializer:
        axis, positions = axes[tensor.name]
        array = np.delete(numpy_helper.to_array(tensor), positions, axis)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return result


def test_a_right_prune_agrees_and_a_shifted_one_does_not() -> None:
    proto = dense((4, 8, 3))
    removed = {"first": {0: [1, 5]}, "bias": {0: [1, 5]}, "second": {1: [1, 5]}}
    right = cut(proto, {"first": (0, [1, 5]), "bias": (0, [1, 5]), "second": (1, [1, 5])})
    shifted = cut(proto, {"first": (0, [1, 5]), "bias": (0, [1, 5]), "second": (1, [1, 6])})
    assert parity(proto, right, removed) < 1e-6
    assert parity(proto, shifted, removed) > 1e-2
    assert 0.7 < share_left(proto, right) < 0.8


def test_quantized_slices_become_their_zero_point_and_divisors_one() -> None:
    net = Net()
    codes = net.constant(np.arange(100, 106, dtype=np.uint8).reshape(3, 2), "codes")
    point = net.constant(np.array([7, 8, 9], np.uint8), "point")
    rows = net.DequantizeLinear(codes, net.constant(np.ones(3, np.float32), "scale"), point, axis=0)
    net.output(net.Div(net.Add(net.input(3, 2), rows), net.unsqueeze(net.constant(np.full(3, 4, np.float32), "by"), 1)))
    removed = {name: {0: [1]} for name in ("codes", "scale", "point", "by")}
    values = {t.name: numpy_helper.to_array(t) for t in zeroed(net.model(), removed).graph.initializer}
    np.testing.assert_array_equal(values["codes"], [[100, 101], [8, 8], [104, 105]])
    np.testing.assert_array_equal(values["point"], [7, 8, 9])
    np.testing.assert_array_equal(values["by"], [4, 1, 4])


def test_a_plan_that_names_no_parameter_is_refused() -> None:
    with pytest.raises(AssertionError, match="no parameters"):
        zeroed(dense((4, 8, 3)), {"typo": {0: [1]}})


def test_other_shapes_are_refused() -> None:
    with pytest.raises(AssertionError, match="output shape"):
        relative_error(np.zeros((2, 3)), np.zeros((2, 4)))


def test_weights_in_constant_nodes_are_zeroed() -> None:
    proto = CASES["flatten/conv_flatten_gemm_opset13_constants"].model()
    name = next(node.output[0] for node in proto.graph.node if node.op_type == "Constant")
    feeds = {"x": np.ones((1, 3, 8, 8), np.float32)}
    before, after = run(proto, feeds), run(zeroed(proto, {name: {0: [0, 1, 2]}}), feeds)
    assert relative_error(before[0], after[0]) > 1e-4
