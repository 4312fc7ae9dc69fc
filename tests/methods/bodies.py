"""A small network written plainly and with parts of it in bodies of If nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.types import Array

OPSET, IR = 17, 8
SAMPLES = 24


def weights(seed: int = 0, stem: str = "") -> dict[str, Array]:
    """Return the weights of three convolutions: 3 -> 12 -> 16 -> 5 channels."""
    generator = np.random.default_rng(seed)
    table: dict[str, Array] = {}
    for number, (outs, ins) in enumerate(((12, 3), (16, 12), (5, 16)), 1):
        table[f"{stem}w{number}"] = (generator.standard_normal((outs, ins, 3)) / np.sqrt(3 * ins)).astype(np.float32)
        table[f"{stem}b{number}"] = (0.3 * generator.standard_normal(outs)).astype(np.float32)
    return table


def layers(read: str, made: str, stem: str = "", numbers: Sequence[int] = (1, 2, 3)) -> list[onnx.NodeProto]:
    """Return convolutions with a Relu between two of them."""
    nodes, x = [], read
    for number in numbers:
        y = made if number == numbers[-1] else f"{stem}c{number}"
        wires = [x, f"{stem}w{number}", f"{stem}b{number}"]
        nodes.append(helper.make_node("Conv", wires, [y], name=f"{stem}conv{number}", pads=[1, 1]))
        x = f"{stem}r{number}"
        if number != numbers[-1]:
            nodes.append(helper.make_node("Relu", [y], [x]))
    return nodes


def stored(table: Mapping[str, Array]) -> list[TensorProto]:
    """Return initializers."""
    return [numpy_helper.from_array(array, name) for name, array in table.items()]


def constants(table: Mapping[str, Array]) -> list[onnx.NodeProto]:
    """Return the same tensors as Constant nodes."""
    return [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)) for name, array in table.items()
    ]


def graph(
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[TensorProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] = (),
    output: str = "y",
) -> onnx.GraphProto:
    """Return a graph, or a body, with one output."""
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 5, 8] if inputs else None)]
    return helper.make_graph(nodes, "g", list(inputs), outputs, list(tensors))


def model(
    nodes: Sequence[onnx.NodeProto], tensors: Sequence[TensorProto], extra: Sequence[onnx.ValueInfoProto] = ()
) -> onnx.ModelProto:
    """Return a model that reads x: (n, 3, 8) and gives y: (n, 5, 8)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8])
    proto = helper.make_model(
        graph(nodes, tensors, [x, *extra]), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR
    )
    onnx.checker.check_model(proto)
    return proto


def plain(twin: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Return the network without control flow, with the inputs of another one, so that the data are read alike."""
    return model(layers("x", "y"), stored(weights(seed)), [v for v in twin.graph.input if v.name == "mode"])


def choice(condition: str, then: onnx.GraphProto, other: onnx.GraphProto, made: str = "y") -> onnx.NodeProto:
    """Return an If."""
    return helper.make_node("If", [condition], [made], name=f"if_{made}", then_branch=then, else_branch=other)


def inner(seed: int = 0, stem: str = "", numbers: Sequence[int] = (1, 2, 3), read: str = "x") -> onnx.GraphProto:
    """Return a body with weights of its own."""
    made, table = f"{stem}out", weights(seed, stem)
    table = {name: array for name, array in table.items() if int(name[-1]) in numbers}
    return graph(layers(read, made, stem, numbers), stored(table), output=made)


MODE = helper.make_tensor_value_info("mode", TensorProto.INT64, [])
SIXTEEN = numpy_helper.from_array(np.array(16), "sixteen")
IS_SIXTEEN = helper.make_node("Equal", ["mode", "sixteen"], ["taken"])


def by_input() -> onnx.ModelProto:
    """Everything in bodies, chosen by an input."""
    return model([IS_SIXTEEN, choice("taken", inner(), inner(7, "o"))], [SIXTEEN], [MODE])


def by_else() -> onnx.ModelProto:
    """The else branch is taken."""
    nodes = [IS_SIXTEEN, helper.make_node("Not", ["taken"], ["no"]), choice("no", inner(7, "o"), inner())]
    return model(nodes, [SIXTEEN], [MODE])


def by_shape() -> onnx.ModelProto:
    """Chosen by a size of x, the last two layers in bodies; the first one is outside, its output captured."""
    one = numpy_helper.from_array(np.array(1), "one")
    nodes = [
        *layers("x", "c1", numbers=(1,)),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["channels"]),
        helper.make_node("Greater", ["channels", "one"], ["taken"]),
        choice("taken", inner(numbers=(2, 3), read="r1"), inner(7, "o", (2, 3), "r1")),
    ]
    return model(nodes, [one, *stored({n: a for n, a in weights().items() if n[-1] == "1"})])


def by_data() -> onnx.ModelProto:
    """Chosen by what a first layer gives."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "low"], ["taken"]),
        choice("taken", inner(), inner(7, "o")),
    ]
    return model(nodes, [numpy_helper.from_array(np.array(-9.0, np.float32), "low")])


def nested() -> onnx.ModelProto:
    """An If in an If: its condition is made in the outer body."""
    within = graph(
        [
            *layers("x", "c1", numbers=(1,)),
            helper.make_node("Relu", ["c1"], ["r1"]),
            helper.make_node("ReduceMin", ["r1"], ["least"], keepdims=0),
            helper.make_node("Less", ["least", "low"], ["below"]),
            choice("below", inner(7, "o", (2, 3), "r1"), inner(0, "", (2, 3), "r1"), "z"),
        ],
        [
            *stored({n: a for n, a in weights().items() if n[-1] == "1"}),
            numpy_helper.from_array(np.array(-1.0, np.float32), "low"),
        ],
        output="z",
    )
    return model([IS_SIXTEEN, choice("taken", within, inner(8, "p"))], [SIXTEEN], [MODE])


def captured() -> onnx.ModelProto:
    """The weights are in the outer graph."""
    bodies = graph(layers("x", "out"), output="out"), graph(layers("x", "oout", "o"), output="oout")
    return model([IS_SIXTEEN, choice("taken", *bodies)], [SIXTEEN, *stored(weights() | weights(7, "o"))], [MODE])


def in_constants() -> onnx.ModelProto:
    """The weights are in Constant nodes of the body."""
    body = graph([*constants(weights()), *layers("x", "out")], output="out")
    return model([IS_SIXTEEN, choice("taken", body, inner(7, "o"))], [SIXTEEN], [MODE])


def same_names() -> onnx.ModelProto:
    """Both bodies use the same names."""
    return model([IS_SIXTEEN, choice("taken", inner(), inner(7))], [SIXTEEN], [MODE])


def around() -> onnx.ModelProto:
    """A layer before an If and one behind it, others in its bodies; both branches give what the last one reads."""
    table = weights()
    outside = {name: array for name, array in table.items() if name[-1] in "13"}
    nodes = [
        IS_SIXTEEN,
        *layers("x", "c1", numbers=(1,)),
        helper.make_node("Relu", ["c1"], ["r1"]),
        choice("taken", inner(0, "", (2,), "r1"), inner(7, "o", (2,), "r1"), "c2"),
        helper.make_node("Relu", ["c2"], ["r2"]),
        *layers("r2", "y", numbers=(3,)),
    ]
    return model(nodes, [SIXTEEN, *stored(outside)], [MODE])


FOLLOWED: tuple[Callable[[], onnx.ModelProto], ...] = (
    by_input,
    by_else,
    by_shape,
    by_data,
    nested,
    captured,
    in_constants,
    same_names,
)


def samples(proto: onnx.ModelProto, mode: int | Sequence[int] = 16, seed: int = 3) -> list[dict[str, Array]]:
    """Return feeds of one sample each; `mode` may differ from sample to sample."""
    generator = np.random.default_rng(seed)
    modes = np.broadcast_to(np.asarray(mode), (SAMPLES,))
    base = generator.standard_normal((4, 3, 8))
    feeds = []
    for number in range(SAMPLES):
        x = np.einsum("i,ijk->jk", generator.standard_normal(4), base) + 0.3 * generator.standard_normal((3, 8))
        feeds.append({"x": x[None].astype(np.float32), "mode": np.array(modes[number])})
    names = {value.name for value in proto.graph.input}
    return [{name: array for name, array in feed.items() if name in names} for feed in feeds]
