"""A stored number without axes keeps having none, wherever it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.graph.embedded import embedded
from onnxprune.graph.initializers import add, retype
from onnxprune.graph.model import Model, load
from tests.micro.build import Net
from tests.oracle import run


def chosen_by_a_number(fixed: bool) -> onnx.ModelProto:
    """One matrix of two, (8, 6), chosen by a number without axes; a bias of three axes would not fit behind it."""
    net = Net()
    x = net.input("n", 32, name="x")
    which = net.constant(np.array(1)) if fixed else net.input(name="which", dtype=np.int64)
    matrices = net.constant(net.rng.normal(size=(2, 8, 6)).astype(np.float32))
    net.output(net.MatMul(net.Relu(net.linear(x, 32, 8)), net.Gather(matrices, which, axis=0)))
    return net.model()


@pytest.mark.parametrize("value", [np.array(2.5, np.float32), np.array(3), np.array(1.5, np.float16), np.array(True)])
def test_an_added_number_has_no_axes(value: np.ndarray) -> None:
    proto = chosen_by_a_number(True)
    tensor = add(proto, "number", value)
    assert tuple(tensor.dims) == () and Model(proto).array(tensor).shape == ()
    retype(proto.graph, tensor, value.astype(np.float64))
    assert tuple(tensor.dims) == ()


def test_an_input_without_axes_is_fixed_to_a_number() -> None:
    model, x = chosen_by_a_number(False), np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    small = onnxprune.trim(model, fix={"which": 1}).model.proto
    assert np.allclose(run(small, {"x": x})[0], run(model, {"x": x, "which": np.array(1)})[0], rtol=1e-6)


@pytest.mark.parametrize("method", ["prune", "sparsify", "quantize"])
def test_a_number_in_a_file_beside_the_model_has_no_axes(method: str, tmp_path: Path) -> None:
    model, path = chosen_by_a_number(True), tmp_path / "beside.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    inside = embedded(load(path))
    assert [tuple(t.dims) for t in inside.graph.initializer] == [tuple(t.dims) for t in model.graph.initializer]
    feeds = {"x": np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)}
    result = getattr(onnxprune, method)(path, feeds)
    onnxprune.save(result.model, tmp_path / "small.onnx")
    assert run(onnx.load(tmp_path / "small.onnx"), feeds)[0].shape == (64, 6)
