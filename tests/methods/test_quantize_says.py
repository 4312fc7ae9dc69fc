"""What quantize says of a model that it can do nothing with, and when it says so."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError, NothingToPruneError
from onnxprune.methods.quantization import guard
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array
from tests import networks

NUMBERS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float64": TensorProto.DOUBLE}


def product(kind: int, form: str = "initializer") -> onnx.ModelProto:
    """Return x (rows, 32) times a stored matrix -> y (rows, 16), all of one type."""
    values = np.random.default_rng(0).standard_normal((32, 16))
    if kind == TensorProto.BFLOAT16:
        tensor = helper.make_tensor("w", kind, values.shape, values.ravel())
    else:
        tensor = numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    if form == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    ports = [helper.make_tensor_value_info(n, kind, ["rows", size]) for n, size in (("x", 32), ("y", 16))]
    return networks.model(nodes, ports[:1], ports[1:], [] if form == "constant" else [tensor])


@pytest.mark.parametrize("form", ["initializer", "constant"])
@pytest.mark.parametrize("mode", ["dynamic", "weight-only", "fp16", "bf16"])
@pytest.mark.parametrize("kind", list(NUMBERS))
def test_models_of_other_precision_say_what_they_are(kind: str, mode: str, form: str) -> None:
    with pytest.raises((ModelError, NothingToPruneError), match=f"{kind} weights|weights of the model are {kind}"):
        quantize(product(NUMBERS[kind], form), QuantizeOptions(mode=mode))


def nothing(kind: str) -> onnx.ModelProto:
    """Return a model without a layer for dynamic mode: a product of activations, a convolution, a sum."""
    w = networks.weights(w=(4, 4, 1, 1))
    nodes = {
        "products": helper.make_node("MatMul", ["x", "x"], ["y"], "n"),
        "convolution": helper.make_node("Conv", ["x", "w"], ["y"], "n"),
        "sum": helper.make_node("Add", ["x", "x"], ["y"], "n"),
    }
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4, 8, 8]) for n in "xy"]
    return networks.model([nodes[kind]], ports[:1], ports[1:], w if kind == "convolution" else [])


@pytest.mark.parametrize("kind", ["products", "convolution", "sum"])
def test_inputs_are_drawn_only_where_there_is_something_to_quantize(kind: str) -> None:
    def draw() -> list[dict[str, Array]]:
        raise AssertionError("drawn")

    with pytest.raises(NothingToPruneError, match="nothing"):
        quantize(nothing(kind), QuantizeOptions(mode="dynamic"), feeds=draw, synthetic=True)
    with pytest.raises(AssertionError, match="drawn"):
        quantize(product(TensorProto.FLOAT), QuantizeOptions(mode="dynamic"), feeds=draw, synthetic=True)


def test_made_up_inputs_do_not_choose_static_mode() -> None:
    feeds = [{"x": np.random.default_rng(1).standard_normal((4, 32)).astype(np.float32)}]
    assert quantize(product(TensorProto.FLOAT), feeds=feeds, synthetic=True).mode == "dynamic"


@pytest.mark.parametrize(("samples", "said"), [(4, True), (31, True), (32, False)])
def test_too_few_samples_for_the_guard_are_said(samples: int, said: bool) -> None:
    feeds = [{"x": np.random.default_rng(1).standard_normal((samples, 32)).astype(np.float32)}]
    result = quantize(product(TensorProto.FLOAT), QuantizeOptions(mode="static", measure=False), feeds=feeds)
    assert any(f"{guard.LEAST_SAMPLES} on" in text and f" {samples} " in text for text in result.warnings) == said
    unguarded = QuantizeOptions(mode="static", measure=False, guard=False)
    assert not quantize(product(TensorProto.FLOAT), unguarded, feeds=feeds).warnings


@pytest.mark.parametrize("mode", ["dynamic", "weight-only", "fp16", "bf16"])
def test_a_file_that_is_smaller_by_less_than_it_says_of_its_origin_is_no_gain(mode: str) -> None:
    rng = np.random.default_rng(0)
    kernel = numpy_helper.from_array(rng.standard_normal((4, 4, 1, 1)).astype(np.float32), "k")
    tail = numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], "conv"),
        helper.make_node("MatMul", ["c", "w"], ["y"], "product"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4, 8, 8]) for n in "xy"]
    with pytest.raises(NothingToPruneError, match="no smaller"):
        quantize(networks.model(nodes, ports[:1], ports[1:], [kernel, tail]), QuantizeOptions(mode=mode))
