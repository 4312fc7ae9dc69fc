"""Int8 inside the bodies of If, Loop and Scan."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.methods.quantization.lift import sort_nodes
from onnxprune.methods.quantization.recognise import bodies, nodes
from onnxprune.methods.quantize import QuantizeResult, quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from tests.methods.test_quantize import run, sqnr
from tests.micro.build import Net

ROWS = [np.random.default_rng(seed).standard_normal((4, 32)).astype(np.float32) for seed in range(8)]
FEEDS = [{"x": sign * np.abs(rows)} for rows in ROWS for sign in (1, -1)]
SQNR_DB = 30
"""8 bits give about 40 dB for one layer; a wrong scale or a transposed matrix gives below 10."""


def branch(net: Net, draw: Callable[[Net], str]) -> onnx.GraphProto:
    child = net.child()
    child.output(draw(child))
    return child.graph()


def condition(net: Net, x: str) -> str:
    return net.Greater(net.reduce("Mean", x, [0, 1], keepdims=0), net.number(0.0))


def branches(net: Net) -> str:
    """Weights in one branch, a weight of the main graph in both, an If in an If."""
    x = net.input("batch", 32)
    y, shared = net.linear(x, 32, 64), net.weight(64, 64)
    flag = condition(net, x)

    def leaf(parent: Net, width: int) -> onnx.GraphProto:
        return branch(parent, lambda n: n.linear(n.Relu(n.linear(y, 64, width)), width, 64))

    then = branch(net, lambda n: n.If(flag, then_branch=leaf(n, 96), else_branch=leaf(n, 80)))
    other = branch(net, lambda n: n.MatMul(n.MatMul(y, shared), shared))
    return net.If(flag, then_branch=then, else_branch=other)


def loop(net: Net) -> str:
    y = net.linear(net.input("batch", 32), 32, 64)
    matrix, body = net.weight(64, 64), net.child()
    step, going, state = (net.fresh(name) for name in ("step", "going", "state"))
    body.inputs = [
        helper.make_tensor_value_info(step, TensorProto.INT64, []),
        helper.make_tensor_value_info(going, TensorProto.BOOL, []),
        helper.make_tensor_value_info(state, TensorProto.FLOAT, None),
    ]
    body.output(body.Identity(going), body.Tanh(body.Add(body.MatMul(state, matrix), y)))
    graph = body.graph([(TensorProto.BOOL, []), (TensorProto.FLOAT, None)])
    return net.Loop(net.constant(np.array(3)), net.constant(np.array(True)), y, body=graph)


def recurrent(net: Net) -> str:
    """The same layer for two rates, as voice detectors have it."""
    x = net.input("batch", 32)
    sequence = net.reshape(net.linear(x, 32, 128), 4, -1, 32)

    def layer(child: Net) -> str:
        w, r = child.weight(1, 256, 32), child.weight(1, 256, 64)
        return child.LSTM(sequence, w, r, child.constant(np.zeros((1, 512), np.float32)), hidden_size=64)

    return net.If(condition(net, x), then_branch=branch(net, layer), else_branch=branch(net, layer))


CASES = {"branches": (branches, 6), "loop": (loop, 1), "recurrent": (recurrent, 2)}


def model(draw: Callable[[Net], str], style: str = "initializer") -> onnx.ModelProto:
    net = Net(weights=style)
    net.output(draw(net))
    return net.model()


def inner(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for body in bodies(proto.graph) for node in nodes(body)]


@pytest.mark.parametrize("style", ["initializer", "constant"])
@pytest.mark.parametrize("mode", ["dynamic", "static"])
@pytest.mark.parametrize("name", CASES)
def test_weights_of_bodies_are_in_8_bits_and_both_ways_give_what_they_gave(name: str, mode: str, style: str) -> None:
    draw, count = CASES[name]
    source = model(draw, style)
    result = quantize(source, QuantizeOptions(mode=mode), feeds=FEEDS, threads=1)
    onnx.checker.check_model(result.model.proto, full_check=False)
    for feed in FEEDS[:8]:
        assert sqnr(source, result, feed) > SQNR_DB
    kinds = [node.op_type for node in inner(result.model.proto)]
    assert kinds.count("MatMulInteger") + kinds.count("DynamicQuantizeLSTM") == count
    assert not {"MatMul", "Gemm", "LSTM"} & set(kinds)
    assert result.model.proto.ByteSize() < 0.45 * source.ByteSize()
    assert not [text for text in result.warnings if "bodies" in text]


def test_layers_of_bodies_are_listed_and_stay_float_by_name() -> None:
    source = model(branches)
    for number, node in enumerate(n for n in inner(source) if n.op_type in ("MatMul", "Gemm")):
        node.name = f"inner{number}"
    result = quantize(source, QuantizeOptions(mode="dynamic", skip=("inner0", "inner1")), feeds=FEEDS, threads=1)
    listed = {layer.name for layer in result.layers if layer.name.startswith("inner")}
    assert listed == {"inner2", "inner3", "inner4", "inner5"}
    kept = {node.name: node.op_type for node in inner(result.model.proto)}
    assert {kept["inner0"], kept["inner1"]} <= {"MatMul", "Gemm"}


def test_what_stays_float_in_bodies_is_told_in_one_line() -> None:
    def draw(net: Net) -> str:
        x = net.input("batch", 32)
        y = net.reshape(net.linear(x, 32, 64), -1, 4, 4, 4)
        flag = condition(net, x)
        then, other = (branch(net, lambda n: n.Conv(y, n.weight(4, 4, 3, 3), pads=[1] * 4)) for _ in range(2))
        return net.If(flag, then_branch=then, else_branch=other)

    result = quantize(model(draw), QuantizeOptions(mode="dynamic"), feeds=FEEDS, threads=1)
    told = [text for text in result.warnings if "bodies of If, Loop and Scan" in text]
    assert len(told) == 1 and "dynamic mode leaves" in told[0] and told[0].count("(Conv)") == 2
    weights = quantize(model(loop), QuantizeOptions(mode="weight-only"), threads=1)
    assert any("weight-only mode leaves" in text and "(MatMul)" in text for text in weights.warnings)


def test_names_and_nodes_of_bodies_stay_those_of_the_source() -> None:
    source = model(recurrent)
    result = quantize(source, QuantizeOptions(mode="dynamic"), feeds=FEEDS, threads=1)
    before, after = inner(source), inner(result.model.proto)
    assert {name for node in before for name in node.output} <= {name for node in after for name in node.output}
    assert [graph.output[0].name for graph in _bodies(source)] == [
        g.output[0].name for g in _bodies(result.model.proto)
    ]


def _bodies(proto: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [a.g for node in proto.graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def test_a_node_stands_behind_what_its_bodies_read() -> None:
    proto = model(branches)
    order = [node.name or node.output[0] for node in proto.graph.node]
    shuffled = list(reversed(proto.graph.node))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in shuffled]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    sort_nodes(proto.graph)
    onnx.checker.check_model(proto)
    sort_nodes(proto.graph)
    again = model(branches)
    sort_nodes(again.graph)
    assert [node.name or node.output[0] for node in again.graph.node] == order


def test_a_result_is_written_and_read_again(tmp_path: Path) -> None:
    result: QuantizeResult = quantize(model(loop), QuantizeOptions(mode="dynamic"), feeds=FEEDS, threads=1)
    onnx.save(result.model.proto, tmp_path / "a.onnx")
    assert np.array_equal(run(onnx.load(tmp_path / "a.onnx"), FEEDS[0]), run(result.model.proto, FEEDS[0]))


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_a_model_may_have_all_its_weights_in_bodies(mode: str) -> None:
    def draw(net: Net) -> str:
        x = net.input("batch", 32)
        then = branch(net, lambda n: n.linear(n.Relu(n.linear(x, 32, 64)), 64, 8))
        return net.If(condition(net, x), then_branch=then, else_branch=branch(net, lambda n: n.linear(x, 32, 8)))

    source = model(draw)
    result = quantize(source, QuantizeOptions(mode=mode), feeds=FEEDS, threads=1)
    assert [layer.operator for layer in result.layers] == ["MatMul"] * 3
    assert sqnr(source, result, FEEDS[0]) > SQNR_DB
