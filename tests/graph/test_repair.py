"""What onnxruntime runs and the checker refuses is mended while it is read, with a note."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import ModelError
from onnxprune.graph.functions import inlined
from onnxprune.graph.model import load
from tests.oracle import run

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])


def model(nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto] | None = None, **options) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    stored = {"w": (8, 16), "v": (16, 4), "s": (16,), "b": (16,)}
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in stored.items()]
    used = {name for node in nodes for name in node.input}
    ends = outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, options.pop("name", "g"), [X], ends, [t for t in tensors if t.name in used])
    options.setdefault("opset_imports", [helper.make_opsetid("", 13)])
    return helper.make_model(graph, **{"ir_version": 8} | options)


def layers(*between: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return two products with something between "h" and "k"."""
    middle = list(between) or [helper.make_node("Relu", ["h"], ["k"])]
    return [helper.make_node("MatMul", ["x", "w"], ["h"]), *middle, helper.make_node("MatMul", ["k", "v"], ["y"])]


def norm() -> onnx.NodeProto:
    return helper.make_node("LayerNormalization", ["h", "s", "b"], ["k"])


def without_imports(proto: onnx.ModelProto) -> onnx.ModelProto:
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


NO_SHAPE = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
NO_TYPE = [helper.make_empty_tensor_value_info("y")]
GELU = helper.make_node("Gelu", ["h"], ["k"], domain="com.microsoft")
FLAWED = {
    "an output without a shape": (model(layers(), NO_SHAPE), "no shape was declared"),
    "an output without a type": (model(layers(), NO_TYPE), "no shape was declared"),
    "a graph without a name": (model(layers(), name=""), "no name"),
    "an operator set that is not imported": (model(layers(GELU)), "'com.microsoft'"),
    "ONNX's own operator set not imported": (without_imports(model(layers())), "'ai.onnx'"),
    "weights that are no inputs in IR 3": (model(layers(), ir_version=3), "IR version 3"),
    "a layer norm below opset 17": (model(layers(norm())), ""),
    "several flaws at once": (model(layers(), NO_SHAPE, name=""), "no name"),
    "a shape that does not follow": (model(layers(GELU), NO_SHAPE), "'com.microsoft'"),
}


@pytest.mark.parametrize("name", FLAWED)
def test_a_flawed_model_is_read_pruned_and_gives_a_valid_one(name: str) -> None:
    proto, note = FLAWED[name]
    before = proto.SerializeToString(deterministic=True)
    read = load(proto)
    assert note in " ".join(read.notes) and bool(read.notes) == bool(note)
    result = onnxprune.prune(proto, ratio=0.5, align=1, compensate="none")
    assert proto.SerializeToString(deterministic=True) == before, "the given model was changed"
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)}
    assert [v.shape for v in run(result.model.proto, feeds)] == [v.shape for v in run(proto, feeds)]
    assert result.plan.removed
    if note and "not follow" not in name:
        onnx.checker.check_model(result.model.proto)


def test_old_operators_are_raised_where_they_can_be() -> None:
    nodes = layers(helper.make_node("Dropout", ["h"], ["k"], is_test=1))
    proto = model(nodes, opset_imports=[helper.make_opsetid("", 6)])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    read = load(proto)
    assert read.proto.opset_import[0].version == 7 and "raised" in read.notes[0]
    nodes[1] = helper.make_node("Add", ["h", "s"], ["k"], broadcast=1)
    proto = model(nodes, opset_imports=[helper.make_opsetid("", 6)])
    with pytest.raises(ModelError, match="opset 6 is older"):
        load(proto)


def test_a_plugin_in_the_default_domain_is_named_and_what_it_touches_stays() -> None:
    plugin = helper.make_node("SomePlugin_TRT", ["y"], ["z"], size=4)
    end = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])
    channels = onnxprune.analyse(model([*layers(), plugin], [end]))
    assert channels.state.unknown == {"SomePlugin_TRT": 1}
    assert [group.size for group in channels.groups] == [16]


def twice_a_key(proto: onnx.ModelProto) -> None:
    for value in ("first", "last"):
        proto.metadata_props.add(key="k", value=value)


def twice_an_operator_set(proto: onnx.ModelProto) -> None:
    proto.opset_import.insert(0, helper.make_opsetid("ai.onnx", 17))


def twice_a_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


def twice_a_weight_that_is_an_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.extend([helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 16])] * 3)


@pytest.mark.parametrize(
    ("repeat", "named"),
    [
        (twice_a_key, "key 'k'"),
        (twice_an_operator_set, "operator set 'ai.onnx'"),
        (twice_a_weight, "stored tensor 'w'"),
        (twice_a_weight_that_is_an_input, "input 'w'"),
    ],
)
def test_of_repeated_entries_the_last_one_counts_as_in_onnxruntime(
    repeat: Callable[[onnx.ModelProto], None], named: str
) -> None:
    proto = model(layers())
    repeat(proto)
    read = load(proto)
    assert named in read.notes[0]
    onnx.checker.check_model(read.proto)
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)}
    np.testing.assert_array_equal(run(read.proto, feeds)[0], run(proto, feeds)[0])
    assert read.proto.opset_import[0].version == 13
    assert [item.value for item in read.proto.metadata_props] in ([], ["last"])


def test_stored_tensors_of_one_name_that_differ_are_refused() -> None:
    proto = model(layers())
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 16), np.float32), "w"))
    with pytest.raises(ModelError, match="w initializer name is not unique"):
        load(proto)


@pytest.mark.parametrize("suffix", [".onnx.gz", ".onnx"])
def test_a_packed_file_is_read_as_what_it_holds(tmp_path: Path, suffix: str) -> None:
    proto = model(layers())
    path = tmp_path / f"m{suffix}"
    path.write_bytes(gzip.compress(proto.SerializeToString()))
    assert load(path).proto == proto
    assert load(path).size_bytes == len(proto.SerializeToString())
    path.write_bytes(gzip.compress(proto.SerializeToString())[:-20])
    with pytest.raises(ModelError, match="damaged"):
        load(path)


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_every_repeated_declaration_of_a_shape_is_mended(repeats: int) -> None:
    proto = model(layers())
    for _ in range(repeats):
        proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 16]))
    pruned = onnxprune.prune(proto, ratio=0.5, align=1, compensate="none").model.proto
    assert [v.type.tensor_type.shape.dim[1].dim_value for v in pruned.graph.value_info] == [8] * repeats


def function(name: str, calls: list[onnx.NodeProto]) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 13), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], ["c"], calls, imports)


def doubling(depth: int) -> list[onnx.FunctionProto]:
    made = [function("F0", [helper.make_node("Relu", ["a"], ["c"])])]
    for number in range(1, depth):
        calls = [helper.make_node(f"F{number - 1}", [a], [c], domain="f") for a, c in (("a", "b"), ("b", "c"))]
        made.append(function(f"F{number}", calls))
    return made


@pytest.mark.parametrize(
    ("functions", "call", "words"),
    [
        (doubling(30), "F29", "unfold to more than"),
        ([function("F0", [helper.make_node("F0", ["a"], ["c"], domain="f")])], "F0", "calls itself"),
        (doubling(1), "F0 with too much", "it takes 1"),
    ],
)
def test_functions_that_cannot_be_put_in_place_are_refused_at_once(
    functions: list[onnx.FunctionProto], call: str, words: str
) -> None:
    given = ["h", "h"] if "much" in call else ["h"]
    proto = model(layers(helper.make_node(call.split()[0], given, ["k"], domain="f")))
    proto.functions.extend(functions)
    proto.opset_import.append(helper.make_opsetid("f", 1))
    with pytest.raises(ModelError, match=words):
        inlined(onnxprune.graph.model.Model(proto))
