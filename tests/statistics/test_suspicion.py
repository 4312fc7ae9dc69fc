"""Data that mislead are told in one line that says what to do."""

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.methods.calibration import calibration
from onnxprune.statistics.suspicion import suspicions
from tests import plain
from tests.networks import convnet

RNG = np.random.default_rng(0)


def said(images, proto=None):
    model = onnxprune.load(proto or convnet())
    return suspicions(model, calibration(model, {"x": images.astype(np.float32)}), threads=1)


def images(count=40):
    return RNG.standard_normal((count, 3, 12, 12))


def leaning(share):
    """Return a network whose class 7 wins on a share of the samples: where a corner of the first colour is positive."""
    nodes = [
        onnx.helper.make_node("Slice", ["x", "from", "to"], ["corner"]),
        onnx.helper.make_node("Flatten", ["corner"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    weight = np.zeros((1, 10), np.float32)
    weight[0, 7], weight[0, 2] = 1, -1
    arrays = {"from": np.array([0, 0, 0, 0]), "to": np.array([10**6, 1, 1, 1]), "w": weight}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    ends = [onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", ["n", 3, 12, 12]), ("y", ["n", 10]))]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    inputs = images()
    inputs[:, 0, 0, 0] = np.where(np.arange(40) < share * 40, 1, -1)
    return inputs, onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("share", "warned"), [(1.0, True), (0.975, True), (0.75, False)])
def test_one_class_on_nearly_all_samples_is_told(share, warned):
    lines = said(*leaning(share))
    assert bool(lines) == warned
    if warned:
        assert f"largest at number 7 for {round(40 * share)} of 40" in lines[0] and "add samples" in lines[0]


def test_samples_of_one_class_at_the_front_are_no_reason():
    inputs, proto = leaning(0.5)
    assert said(np.concatenate([inputs[:20]] * 8 + [inputs[20:]] * 8), proto) == []


def test_samples_that_are_nearly_equal_are_told():
    first = images(1)
    assert "nearly equal" in said(first + 1e-3 * images(20))[0]
    assert not any("nearly equal" in line for line in said(first + 0.1 * images(20)))
    assert not any("nearly equal" in line for line in said(images()))


def test_one_sample_and_constant_data_are_told_elsewhere():
    assert said(images(1)) == said(np.ones((20, 3, 12, 12))) == []


def test_a_prune_and_a_search_pass_the_warning_on():
    inputs = np.repeat(images(1), 16, axis=0).astype(np.float32)
    result = plain.prune(convnet(), {"x": inputs}, ratio=0.5, compensate="none")
    assert any("nearly equal" in warning for warning in result.warnings)
    found = onnxprune.tune(convnet(), {"x": inputs}, gates=onnxprune.Gates(min_cosine=0.5), step=0.4, finest=0.4)
    assert any("nearly equal" in warning for warning in found.result.warnings)
