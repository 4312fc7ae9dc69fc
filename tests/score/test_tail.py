"""The part of a network behind some weights gives what the whole network gives with them."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.channels.analyse import analyse
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.score import probe as room
from onnxprune.score.activity import Activity
from onnxprune.score.probe import Probe
from onnxprune.score.tail import tail_of
from onnxprune.statistics.data import read
from onnxprune.statistics.feeds import input_specs
from tests.compensate.small import network
from tests.crnn import crnn
from tests.networks import convnet

RNG = np.random.default_rng(2)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")


def two_ends() -> onnx.ModelProto:
    """Return a network of a trunk and two outputs; weights of one do not reach the other; one is a Constant node."""
    shapes = {"w0": (6, 5), "w1": (5, 7), "w3": (5, 8), "w4": (8, 2)}
    stored = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    value = numpy_helper.from_array(RNG.standard_normal((7, 3)).astype(np.float32))
    nodes = [
        helper.make_node("Constant", [], ["w2"], value=value),
        helper.make_node("MatMul", ["x", "w0"], ["t"]),
        helper.make_node("Relu", ["t"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["a"]),
        helper.make_node("Tanh", ["a"], ["ta"]),
        helper.make_node("MatMul", ["ta", "w2"], ["y"]),
        helper.make_node("MatMul", ["r", "w3"], ["b"]),
        helper.make_node("Relu", ["b"], ["rb"]),
        helper.make_node("MatMul", ["rb", "w4"], ["z"]),
    ]
    model = network(nodes, stored, ["n", 6], ["n", 3])
    model.proto.graph.output.append(helper.make_tensor_value_info("z", 1, ["n", 2]))
    return model.proto


NETWORKS = {
    "convolutions": (convnet(), (3, 12, 12)),
    "two outputs": (two_ends(), (6,)),
    "unrolled": (crnn((8, 8), hidden=10, steps=3, layers=1, height=4), (1, 4, 12)),
}


@pytest.mark.parametrize("memory", [None, 1 << 8], ids=["kept", "not kept"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_distance_is_that_of_the_whole_network_with_new_weights(name, memory):
    proto, shape = NETWORKS[name]
    model = Model(proto)
    x = RNG.standard_normal((20, *shape)).astype(np.float32)
    channels = analyse(model)
    activity = Activity(channels.view, read({"x": x}, input_specs(proto)), threads=1, memory=memory)
    probe = Probe(activity, channels.groups, 20)
    kept = probe._waiting is not None
    assert kept == (memory is None)
    for group in channels.groups:
        weights = probe.off(group, np.arange(group.size // 2))
        assert probe.distance(weights) == pytest.approx(whole_distance(model, weights, x), rel=1e-4)
        assert probe.distance({name: probe._stored(name) for name in weights}) < 1e-10


def whole_distance(model: Model, weights: dict[str, np.ndarray], x: np.ndarray) -> float:
    changed = onnx.ModelProto()
    changed.CopyFrom(model.proto)
    for tensor in changed.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    for node in changed.graph.node:
        if node.op_type == "Constant" and node.output[0] in weights:
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(weights[node.output[0]]))
    names = [value.name for value in model.proto.graph.output]
    wanted, given = (open_session(proto, threads=1).values(names, {"x": x}) for proto in (model.proto, changed))
    parts = [np.square(a - b).mean() / b.var() for a, b in zip(given, wanted, strict=True)]
    return float(np.mean(parts))


def test_only_what_stands_behind_the_weights_is_run():
    proto, _ = NETWORKS["two outputs"]
    tail = tail_of(proto.graph, ["w4"], ["y", "z"])
    assert [node.output[0] for node in tail.nodes] == ["z"] and tail.entries == ("rb",) and tail.outputs == ("z",)
    assert tail_of(proto.graph, ["w0"], ["y", "z"]).entries == ("x",)
    assert not tail_of(proto.graph, ["w1"], ["z"]).nodes


def test_the_whole_network_is_the_part_that_needs_nothing_kept():
    proto, _ = NETWORKS["two outputs"]
    tail = tail_of(proto.graph, ["w4"], ["y", "z"], whole=True)
    assert tail.entries == ("x",) and [node.output[0] for node in tail.nodes][-1] == "z"
    assert {node.output[0] for node in tail.nodes} == {"t", "r", "a", "ta", "y", "b", "rb", "z"}


def test_a_session_of_a_group_is_opened_once_for_all_widths(monkeypatch):
    opened = []
    monkeypatch.setattr(room, "open_tail", lambda *given, **named: opened.append(1) or OPEN(*given, **named))
    proto, shape = NETWORKS["convolutions"]
    channels = analyse(Model(proto))
    data = read({"x": RNG.standard_normal((8, *shape)).astype(np.float32)}, input_specs(proto))
    probe = Probe(Activity(channels.view, data, threads=1), channels.groups, 8)
    for group in channels.groups:
        costs = [probe.alone(group, np.arange(count)) for count in (4, 8, 16)]
        assert costs == sorted(costs) and costs[0] > 0
    assert len(opened) == len(channels.groups)


OPEN = room.open_tail


def test_weights_that_no_output_depends_on_cost_nothing():
    """Branches of an If that the data never take are such."""
    model = Model(two_ends())
    graph = model.proto.graph
    graph.node.append(helper.make_node("MatMul", ["r", "w5"], ["nowhere"], "dead"))
    graph.initializer.append(numpy_helper.from_array(RNG.standard_normal((5, 4)).astype(np.float32), "w5"))
    data = read({"x": RNG.standard_normal((8, 6)).astype(np.float32)}, input_specs(model.proto))
    channels = analyse(model)
    probe = Probe(Activity(channels.view, data, threads=1), channels.groups, 8)
    assert probe.distance({"w5": np.zeros((5, 4), np.float32)}) == 0.0
    assert probe.distance({"w3": np.zeros((5, 8), np.float32)}) > 0.0
