"""Equal ranges of channels between layers: exact in float, less noise where a tensor has one scale."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import UsageError
from onnxprune.methods.quantization.equalize import equalize
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array
from tests import networks
from tests.methods.test_quantize import FEEDS, run, sqnr


def chain(between: str, uneven: bool = True) -> onnx.ModelProto:
    """Conv - operator - depthwise Conv - Relu - Conv, the outputs of the first one a hundred times apart."""
    tensors = networks.weights(w1=(8, 3, 3, 3), b1=(8,), w2=(8, 1, 3, 3), w3=(4, 8, 1, 1), slope=(8, 1, 1))
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    if uneven:
        wide = np.logspace(-1, 1, 8).astype(np.float32)
        arrays["w1"] = arrays["w1"] * wide.reshape(-1, 1, 1, 1)
        arrays["b1"] = arrays["b1"] * wide
        arrays["w2"] = arrays["w2"] / wide.reshape(-1, 1, 1, 1)
    arrays["six"], arrays["zero"] = np.array(6, np.float32), np.array(0, np.float32)
    inputs = {"PRelu": ["c1", "slope"], "Clip": ["c1", "zero", "six"]}.get(between, ["c1"])
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1]),
        helper.make_node(between, inputs, ["r1"], "between"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu"),
        helper.make_node("Conv", ["r2", "w3"], ["y"], "last"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c, 12, 12]) for n, c in (("x", 3), ("y", 4))]
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return networks.model(nodes, ports[:1], ports[1:], stored)


def stored(proto: onnx.ModelProto, name: str) -> Array:
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))


@pytest.mark.parametrize("between", ["Relu", "LeakyRelu", "PRelu", "Identity"])
def test_the_network_gives_what_it_gave_and_the_ranges_are_equal(between: str) -> None:
    proto = chain(between)
    before = run(proto, FEEDS[0])
    assert equalize(proto, ()) == 2
    first = np.abs(stored(proto, "w1")).reshape(8, -1).max(axis=1)
    second = np.abs(stored(proto, "w2")).reshape(8, -1).max(axis=1)
    assert np.allclose(first, second, rtol=0.05)  # the sweeps stop where no channel moves by more than 1 %
    after = run(proto, FEEDS[0])
    assert np.abs(after - before).max() < 1e-5 * np.abs(before).max()


def test_a_bound_that_would_have_to_move_stops_it() -> None:
    proto = chain("Clip")
    weight = stored(proto, "w1").copy()
    assert equalize(proto, ()) == 1 and np.array_equal(stored(proto, "w1"), weight)


def test_a_tensor_with_another_reader_or_an_output_is_left_alone() -> None:
    proto = chain("Relu")
    proto.graph.output.append(helper.make_tensor_value_info("c1", TensorProto.FLOAT, ["n", 8, 12, 12]))
    assert equalize(proto, ()) == 1
    proto = chain("Relu")
    proto.graph.node.append(helper.make_node("Add", ["r1", "r1"], ["twice"], "twice"))
    assert equalize(proto, ()) == 1


def test_layers_that_stay_float_are_left_alone() -> None:
    assert equalize(chain("Relu"), {"depthwise"}) == 0


def test_with_one_scale_for_a_tensor_there_is_much_less_noise() -> None:
    source = chain("Relu")
    noise = {}
    for asked in (False, True):
        options = QuantizeOptions(mode="static", per_channel=False, equalize=asked, rounding="nearest", guard=False)
        result = quantize(source, options, feeds=FEEDS, threads=1)
        assert result.settings.get("equalized", 0) == 2 * asked
        noise[asked] = sqnr(source, result, FEEDS[0])
    assert noise[True] > noise[False] + 6  # dB


def test_it_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(UsageError, match="equalize is for --mode static"):
        QuantizeOptions(mode="fp16", equalize=True)
