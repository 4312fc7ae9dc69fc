"""Malformed files end in one line that names what is wrong, whatever the size they claim."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import ModelError


def net(shape: list[int | str], middle: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h0"], name="first"), *(middle or [])]
    last = nodes[-1].output[0]
    nodes.append(helper.make_node("MatMul", [last, "w"], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", shape), ("y", None))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def doubled(times: int) -> list[onnx.NodeProto]:
    return [helper.make_node("Concat", [f"h{k}", f"h{k}"], [f"h{k + 1}"], axis=0) for k in range(times)]


@pytest.mark.parametrize("size", [1 << 31, 10**10, (1 << 26) + 1])
def test_an_axis_that_no_network_has_is_refused_before_it_takes_memory(size: int) -> None:
    with pytest.raises(ModelError, match=f"axis of {size} positions"):
        onnxprune.analyse(net([size, 8]))


@pytest.mark.parametrize("times", [30, 40, 60])
def test_a_tensor_that_doubles_again_and_again_is_refused(times: int) -> None:
    with pytest.raises(ModelError, match="positions"):
        onnxprune.analyse(net([3, 8], doubled(times)))


@pytest.mark.parametrize("size", [1 << 22, 1 << 25, 1 << 26])
def test_a_large_axis_that_stays_costs_nothing(size: int) -> None:
    channels = onnxprune.analyse(net([size, 8], [helper.make_node("Relu", ["h0"], ["h1"])]))
    assert channels.state.space.count < 1000


def unknown_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = 1000


def negative(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -8


def twice_its_values(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].float_data.extend([1.0] * 64)


def twice_its_values_in_a_constant(proto: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.ones(2, np.float32), "c")
    value.double_data.extend([1.0, 1.0])
    proto.graph.node.add(op_type="Constant", output=["c"]).attribute.append(helper.make_attribute("value", value))


def not_text(proto: onnx.ModelProto) -> None:
    blob = proto.graph.SerializeToString().replace(b"first", b"\xfe\xfe\xfe\xfe\xfe")
    proto.graph.ParseFromString(blob)


def stray_reference(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.add(name="alpha", ref_attr_name="beta", type=onnx.AttributeProto.FLOAT)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("groups", [0, -1, 7])
def test_groups_that_do_not_divide_the_channels_are_refused(kind: str, groups: int) -> None:
    proto = net(["n", 8])
    proto.graph.node.append(helper.make_node(kind, ["h0", "w"], ["c"], name="odd", group=groups))
    with pytest.raises(ModelError, match=f"{kind} 'odd': {groups} groups"):
        onnxprune.analyse(proto)


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (unknown_type, "'w' has the type 1000"),
        (negative, "not negative"),
        (twice_its_values, "'w' holds its values twice"),
        (twice_its_values_in_a_constant, "'c' holds its values twice"),
        (not_text, "not UTF-8"),
        (stray_reference, "'first': an attribute"),
    ],
)
def test_what_is_broken_is_named(breaks, words: str) -> None:
    proto = net(["n", 8])
    breaks(proto)
    with pytest.raises(ModelError, match=words) as caught:
        onnxprune.analyse(proto)
    assert "\n" not in str(caught.value)
