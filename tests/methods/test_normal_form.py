"""What onnxruntime's quantizers misread is brought into a form that they read: three siblings of each kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array

FLOAT = TensorProto.FLOAT
LEAST_DB = 25.0
"""Of weights in 8 bits and activations in 8 bits, over one or two layers; a misread factor or bias gives below 10."""
node = helper.make_node
RNG = np.random.default_rng(0)


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto], stored: dict[str, Array], x: tuple[int | str, ...] = ("rows", 32), outputs: str = "y"
) -> onnx.ModelProto:
    """Return a model of x with these outputs, whose nodes have names."""
    for number, item in enumerate(nodes):
        item.name = item.name or f"n{number}"
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in stored.items()]
    ports = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs.split()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", FLOAT, x)], ports, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(proto: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    found: list[Array] = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed)
    return found


def check(
    proto: onnx.ModelProto, mode: str, shape: tuple[int, ...] = (16, 32), least: float = LEAST_DB, **asked: object
) -> onnx.ModelProto:
    """Quantize and compare every output; return the result."""
    feeds = [{"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)} for seed in range(4)]
    still = {"guard": False, "measure": False} if mode == "static" else {}
    options = QuantizeOptions(mode=mode, **still, **asked)
    made = quantize(proto, options, feeds=feeds).model.proto
    assert [value.name for value in made.graph.output] == [value.name for value in proto.graph.output]
    for before, after in zip(run(proto, feeds[0]), run(made, feeds[0]), strict=True):
        assert before.shape == after.shape
        noise = np.square(before.astype(np.float64) - after).sum()
        assert 10 * np.log10(np.square(before, dtype=np.float64).sum() / max(noise, 1e-30)) > least
    return made


def gemm(bias: str = "b", **attributes: float) -> onnx.NodeProto:
    return node("Gemm", ["x", "w", bias] if bias else ["x", "w"], ["y"], **attributes)


BOTH = pytest.mark.parametrize("mode", ["static", "dynamic"])


@BOTH
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 4.0), (0.5, 2.0), (-2.0, 0.0), (3.0, 1.0)])
def test_factors_of_gemm_are_kept(mode: str, alpha: float, beta: float) -> None:
    check(model([gemm(alpha=alpha, beta=beta)], {"w": drawn(32, 24), "b": 10 * drawn(24)}), mode)


@BOTH
@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
def test_a_bias_that_is_computed_is_scaled_and_added(mode: str, beta: float) -> None:
    nodes = [node("ReduceSum", ["x", "axis"], ["s"], keepdims=1), gemm("s", beta=beta)]
    proto = model(nodes, {"w": drawn(32, 24)})
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    check(proto, mode)


@BOTH
@pytest.mark.parametrize("shape", [(1, 24), (1, 1), (1,), (), (16, 24), (16, 1)])
def test_a_bias_of_any_shape_is_added(mode: str, shape: tuple[int, ...]) -> None:
    proto = model([gemm()], {"w": drawn(32, 24), "b": 10 * drawn(*shape) + 5}, (16, 32))
    check(proto, mode)


def layer(name: str, body: list[onnx.NodeProto], domain: str = "own") -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function(domain, name, ["a", "m"], ["c"], body, opsets)


def called() -> tuple[list[onnx.NodeProto], list[onnx.FunctionProto]]:
    return [node("Layer", ["x", "w"], ["y"], domain="own")], [layer("Layer", [node("MatMul", ["a", "m"], ["c"])])]


def called_twice() -> tuple[list[onnx.NodeProto], list[onnx.FunctionProto]]:
    nodes = [node("Layer", ["x", "w"], ["h"], domain="own"), node("Layer", ["h", "w"], ["y"], domain="own")]
    body = [node("MatMul", ["a", "m"], ["p"]), node("Tanh", ["p"], ["c"])]
    return nodes, [layer("Layer", body)]


def nested() -> tuple[list[onnx.NodeProto], list[onnx.FunctionProto]]:
    inner = layer("Inner", [node("MatMul", ["a", "m"], ["c"])])
    outer = layer("Layer", [node("Inner", ["a", "m"], ["p"], domain="own"), node("Relu", ["p"], ["c"])])
    return [node("Layer", ["x", "w"], ["y"], domain="own")], [inner, outer]


def misleading() -> tuple[list[onnx.NodeProto], list[onnx.FunctionProto]]:
    """A function that is called like an operator which quantizers know, and is another thing."""
    body = [node("Transpose", ["m"], ["t"], perm=[1, 0]), node("MatMul", ["a", "t"], ["p"]), node("Neg", ["p"], ["c"])]
    return [node("MatMul", ["x", "w"], ["y"], domain="own")], [layer("MatMul", body)]


@BOTH
@pytest.mark.parametrize("make", [called, called_twice, nested, misleading])
def test_functions_are_written_out(
    mode: str, make: Callable[[], tuple[list[onnx.NodeProto], list[onnx.FunctionProto]]]
) -> None:
    nodes, functions = make()
    proto = model(nodes, {"w": drawn(32, 32)})
    proto.functions.extend(functions)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    made = check(proto, mode)
    assert any(tensor.data_type in (TensorProto.INT8, TensorProto.UINT8) for tensor in made.graph.initializer)


@BOTH
@pytest.mark.parametrize("axes", [(1,), (4,), (2, 4)])
def test_weights_of_three_and_more_axes_are_read_as_such(mode: str, axes: tuple[int, ...]) -> None:
    x = (*axes, 16, 32)
    nodes = [node("MatMul", ["x", "deep"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    scales = np.arange(1, 1 + int(np.prod(axes))).reshape(*axes, 1, 1)
    check(model(nodes, {"deep": drawn(*axes, 32, 24) * scales, "w": drawn(24, 32)}, x), mode, x)


@BOTH
@pytest.mark.parametrize("names", ["y w", "w y", "y b w"])
def test_outputs_may_be_stored_tensors(mode: str, names: str) -> None:
    nodes = [node("MatMul", ["x", "v"], ["h"]), node("Gemm", ["h", "w", "b"], ["y"])]
    check(model(nodes, {"v": drawn(32, 64), "w": drawn(64, 8), "b": drawn(8)}, outputs=names), mode)


@BOTH
@pytest.mark.parametrize("suffix", ["_quantized", "_scale", "_zero_point", "_QuantizeLinear", "_output_quantized"])
@pytest.mark.parametrize("base", ["x", "h", "w"])
def test_names_that_a_quantizer_would_make_are_free_for_it(mode: str, suffix: str, base: str) -> None:
    taken = f"{base}{suffix}"
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], [taken]), node("MatMul", [taken, "v"], ["y"])]
    check(model(nodes, {"w": drawn(32, 32), "v": drawn(32, 24)}), mode)


@BOTH
@pytest.mark.parametrize("port", ["h_quantized", "w_scale", "x_zero_point"])
def test_so_are_names_of_outputs(mode: str, port: str) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], [port]), node("MatMul", [port, "v"], ["y"])]
    check(model(nodes, {"w": drawn(32, 32), "v": drawn(32, 24)}, outputs=f"y {port}"), mode)


@BOTH
@pytest.mark.parametrize("form", ["flat", "places", "with a twin"])
def test_sparse_tensors_are_stored_as_plain_ones(mode: str, form: str) -> None:
    dense = drawn(32, 24) * (RNG.random((32, 24)) < 0.3)
    flat = np.flatnonzero(dense).astype(np.int64)
    places = flat if form == "flat" else np.stack(np.unravel_index(flat, dense.shape), axis=1).astype(np.int64)
    values = numpy_helper.from_array(dense.reshape(-1)[flat], "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "w_indices"), dense.shape)
    nodes = [gemm()]
    if form == "with a twin":
        nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["x", "w"], ["g"]), node("Add", ["h", "g"], ["y"])]
    proto = model(nodes, {"b": drawn(24)} if form != "with a twin" else {})
    proto.graph.sparse_initializer.append(sparse)
    check(proto, mode)
