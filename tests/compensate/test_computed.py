"""Weights that constants are computed into are refitted like stored ones, and what made them goes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.compensate.weights import Weights
from onnxprune.graph.model import Model
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.types import Array
from tests.methods.test_bodies import run, same

OPTIONS = PruneOptions(ratio=0.5, compensate="lstsq", align=1)
RUNTIME = Runtime(threads=1)


def network(*, computed: bool) -> onnx.ModelProto:
    """Return three convolutions; the second kernel is put together, the third one is a direction times a length."""
    generator = np.random.default_rng(0)

    def drawn(*shape: int) -> Array:
        return np.asarray(generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:])), np.float32)

    w1, w2, v3, g3 = drawn(12, 3, 3), drawn(16, 12, 3), drawn(5, 16, 3), drawn(5, 1, 1)
    w3 = (v3 * g3).astype(np.float32)
    table = {"w1": w1, "w2": w2, "w3": w3}
    before: list[onnx.NodeProto] = []
    if computed:
        table = {"w1": w1, "top": w2[8:], "low": w2[:8], "v3": v3, "g3": g3}
        before = [
            helper.make_node("Concat", ["low", "top"], ["w2"], axis=0),
            helper.make_node("Mul", ["v3", "g3"], ["w3"]),
        ]
    nodes = [
        *before,
        helper.make_node("Conv", ["x", "w1"], ["a1"], "c1", pads=[1, 1]),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["a2"], "c2", pads=[1, 1]),
        helper.make_node("Relu", ["a2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3"], ["y"], "c3", pads=[1, 1]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 8])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in table.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(seed: int) -> list[dict[str, Array]]:
    generator = np.random.default_rng(seed)
    base = np.random.default_rng(9).standard_normal((3, 3, 8))
    mixed = np.tensordot(generator.standard_normal((40, 3)), base, 1) + 0.3 * generator.standard_normal((40, 3, 8))
    return [{"x": mixed[start : start + 4].astype(np.float32)} for start in range(0, 40, 4)]


def test_computed_weights_are_refitted_like_stored_ones_and_their_makers_go() -> None:
    proto, plain = network(computed=True), network(computed=False)
    options = PruneOptions(ratio=0.5, compensate="lstsq", align=1, score="l2")
    result = prune(proto, options, samples(1), runtime=RUNTIME)
    wanted = prune(plain, options, samples(1), runtime=RUNTIME)
    onnx.checker.check_model(result.model.proto)
    assert result.compensation and sum(layer.used for layer in result.compensation.layers) == 2
    assert {node.op_type for node in result.model.proto.graph.node} == {"Conv", "Relu"}
    assert result.model.size_bytes < 1.1 * wanted.model.size_bytes
    before, after = (run(m, samples(5)) - run(proto, samples(5)) for m in (result.uncompensated or proto, result.model))
    assert np.square(after).mean() < 0.5 * np.square(before).mean()
    if {k: v.tolist() for k, v in result.keep.items()} == {k: v.tolist() for k, v in wanted.keep.items()}:
        assert same(run(result.model, samples(5)), run(wanted.model, samples(5)))


def test_a_maker_that_another_node_needs_stays() -> None:
    proto = network(computed=True)
    proto.graph.output.append(helper.make_tensor_value_info("w3", TensorProto.FLOAT, [5, 16, 3]))
    result = prune(proto, OPTIONS, samples(1), runtime=RUNTIME)
    assert any("w3" in node.output for node in result.model.proto.graph.node)


def test_unpacked_weights_stay_packed() -> None:
    """A DequantizeLinear is no arithmetic: a float in its place would make the file four times as large."""
    stored = [
        numpy_helper.from_array(np.ones((4, 4), np.int8), "q"),
        numpy_helper.from_array(np.array(0.1, np.float32), "s"),
    ]
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    weights = Weights(Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)))
    assert weights.value("w") is None and not weights.can_change("w")
