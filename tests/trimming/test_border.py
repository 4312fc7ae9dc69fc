"""Outputs that go, inputs that are constant, sizes that are fixed, cameras without colour, labels, states."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.states import fed_back, named_states
from onnxprune.graph.view import View
from onnxprune.methods.trim import TrimOptions, trim
from tests.micro.build import Net
from tests.oracle import random_inputs, run, session

RNG = np.random.default_rng(4)


def two_heads() -> tuple[onnx.ModelProto, str, str]:
    net = Net()
    x, other = net.input("n", 6), net.input("n", 3, name="other")
    y = net.Relu(net.gemm(x, 6, 8))
    one = net.gemm(y, 8, 4)
    two = net.Add(net.gemm(y, 8, 5), net.gemm(other, 3, 5))
    net.output(one, two)
    return net.model(), one, two


def test_an_output_goes_with_what_only_it_needed() -> None:
    model, one, _ = two_heads()
    result = trim(model, TrimOptions(outputs=(one,)))
    feeds = random_inputs(model, RNG, 3)
    assert result.inputs == ("other",)
    assert np.array_equal(run(model, feeds)[0], run(result.model.proto, {"x": feeds["x"]})[0])
    assert len(result.model.proto.graph.initializer) == 4


def chosen(nested: bool = False) -> onnx.ModelProto:
    """An If on the rate, as streaming networks have it; its branches use the same names."""

    def branch(size: int) -> onnx.GraphProto:
        weight = onnx.numpy_helper.from_array(RNG.normal(size=(6, size)).astype(np.float32), "w")
        output = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
        nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("Relu", ["h"], ["out"])]
        if nested:
            inner = [branch_of("Neg"), branch_of("Exp")]
            nodes[1] = onnx.helper.make_node("If", ["fast"], ["out"], then_branch=inner[0], else_branch=inner[1])
        return onnx.helper.make_graph(nodes, "branch", [], [output], [weight])

    def branch_of(kind: str) -> onnx.GraphProto:
        output = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)
        return onnx.helper.make_graph([onnx.helper.make_node(kind, ["h"], ["z"])], "inner", [], [output])

    net = Net()
    net.input("n", 6)
    rate = net.input(name="rate", dtype=np.int64)
    net.input(name="fast", dtype=bool)
    is_high = net.Equal(rate, np.array(16000))
    y = net.op("If", is_high, then_branch=branch(5), else_branch=branch(5))
    net.output(net.Tanh(y), shape=("n", 5))
    return net.model()


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("nested", [False, True])
def test_a_constant_input_takes_its_branch(rate: int, nested: bool) -> None:
    model = chosen(nested)
    fix = {"rate": rate, "fast": "true"}
    result = trim(model, TrimOptions(fix=fix))
    onnx.checker.check_model(result.model.proto, full_check=True)
    x = RNG.normal(size=(3, 6)).astype(np.float32)
    wanted = run(model, {"x": x, "rate": np.array(rate), "fast": np.array(True)})[0]
    assert np.array_equal(wanted, run(result.model.proto, {"x": x})[0])
    assert not any(node.op_type == "If" for node in result.model.proto.graph.node)
    assert result.model.proto.ByteSize() < model.ByteSize()


def test_a_fixed_vector_is_folded_into_what_it_reaches() -> None:
    model, _, _ = two_heads()
    value = RNG.normal(size=(1, 3)).astype(np.float32)
    result = trim(model, TrimOptions(fix={"other": value.tolist()}))
    x = RNG.normal(size=(1, 6)).astype(np.float32)
    wanted = run(model, {"x": x, "other": value})
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(wanted, run(result.model.proto, {"x": x}), strict=True))
    assert sum(node.op_type == "Gemm" for node in result.model.proto.graph.node) == 3


def test_a_dynamic_dimension_becomes_fixed() -> None:
    model, _, _ = two_heads()
    result = trim(model, TrimOptions(dims={"n": 2}))
    assert session(result.model.proto).get_inputs()[0].shape == [2, 6]


@pytest.mark.parametrize("form", ["direct", "scaled", "normalised", "last"])
def test_a_camera_without_colour(form: str) -> None:
    net = Net()
    x = net.input("n", 8, 8, 3) if form == "last" else net.input("n", 3, 8, 8)
    y = net.transpose(x, 0, 3, 1, 2) if form == "last" else x
    if form == "scaled":
        y = net.Div(net.Sub(y, net.number(0.4)), net.number(0.2))
    if form == "normalised":
        y = net.Div(net.Sub(y, net.vector(3, shape=(1, 3, 1, 1))), net.vector(3, shape=(1, 3, 1, 1)))
    net.output(net.Relu(net.conv(y, 3, 5)))
    model = net.model()
    result = trim(model, TrimOptions(gray=("x",)))
    onnx.checker.check_model(result.model.proto, full_check=True)
    axis = 3 if form == "last" else 1
    shape = (2, 8, 8, 1) if form == "last" else (2, 1, 8, 8)
    one = RNG.normal(size=shape).astype(np.float32)
    wanted = run(model, {"x": np.repeat(one, 3, axis=axis)})[0]
    assert np.allclose(wanted, run(result.model.proto, {"x": one})[0], rtol=1e-5, atol=1e-5)


def test_channels_of_an_input_go() -> None:
    net = Net()
    net.output(net.conv(net.input("n", 4, 8, 8), 4, 5))
    model = net.model()
    result = trim(model, TrimOptions(input_channels={"x:1": "0,2"}))
    x = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
    x[:, [1, 3]] = 0
    assert np.allclose(run(model, {"x": x})[0], run(result.model.proto, {"x": x[:, [0, 2]]})[0], atol=1e-6)
    assert result.shapes["x"][1][1] == 2


def old(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return it in IR version 3, where everything that is stored is an input too."""
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


@pytest.mark.parametrize(
    "options",
    [{"fix": {"other": [[0.5, 1.0, 2.0]]}}, {"tokens": {"ids": "0-4"}}, {"gray": ("image",)}],
    ids=["fix", "tokens", "gray"],
)
def test_what_is_added_to_an_old_file_is_an_input_too(options: dict[str, object]) -> None:
    net = Net(opset=9)
    ids, image = net.input("n", name="ids", dtype=np.int64), net.input("n", 3, 4, 4, name="image")
    words = net.Gather(net.weight(9, 5), ids, axis=0)
    net.output(words, net.conv(image, 3, 2), net.Tanh(net.gemm(net.input(1, 3, name="other"), 3, 4)))
    result = trim(old(net.model()), TrimOptions(**options)).model.proto  # type: ignore[arg-type]
    inputs = {value.name for value in result.graph.input}
    assert {tensor.name for tensor in result.graph.initializer} <= inputs
    onnx.checker.check_model(result, full_check=True)
    session(result)


def labelled(metadata: dict[str, str], classes: int = 6) -> onnx.ModelProto:
    net = Net()
    net.output(net.gemm(net.input("n", 4), 4, classes))
    model = net.model()
    onnx.helper.set_model_props(model, metadata)
    return model


@pytest.mark.parametrize(
    ("metadata", "classes", "kept", "places", "written"),
    [
        ({"names": "{0: 'person', 1: 'car', 2: 'dog'}"}, 7, "boxes,car", [0, 1, 2, 3, 5], "{0: 'car'}"),
        ({"names": '["person", "car", "dog"]'}, 3, "dog,person", [0, 2], '["person", "dog"]'),
        ({"id2label": '{"0": "no", "1": "yes"}'}, 2, "yes", [1], '{"0": "yes"}'),
        ({"character": "a\nb\nc\nd\n"}, 6, "blank,b,d, ", [0, 2, 4, 5], "b\nd\n"),
    ],
)
def test_labels_name_positions_and_follow(
    metadata: dict[str, str], classes: int, kept: str, places: list[int], written: str
) -> None:
    model = labelled({**metadata, "stride": "32"}, classes)
    entries = tuple(kept.split(","))
    result = trim(model, TrimOptions(keep={model.graph.output[0].name: entries}))
    feeds = random_inputs(model, RNG, 2)
    assert np.allclose(run(model, feeds)[0][:, places], run(result.model.proto, feeds)[0], atol=1e-6)
    found = {entry.key: entry.value for entry in result.model.proto.metadata_props}
    assert found == {next(iter(metadata)): written, "stride": "32"}


def test_labels_come_from_a_file(tmp_path: Path) -> None:
    names = tmp_path / "labels.txt"
    names.write_text("a\nb\nc\nd\ne\nf\n")
    model = labelled({})
    output = model.graph.output[0].name
    result = trim(model, TrimOptions(keep={output: "c,f"}, labels=f"@{names}"))
    assert result.channels.trace.shapes[output] == (3, 6) or len(result.cuts[0].kept) == 6
    assert result.cuts[0].kept.tolist() == [False, False, True, False, False, True]


def streaming(first: str, second: str, size: int = 8) -> View:
    net = Net()
    x, state = net.input("n", 4), net.input("n", size, name=first)
    y = net.Tanh(net.Add(net.gemm(x, 4, size), net.gemm(state, size, size)))
    net.nodes[-1].output[0] = second
    net.output(second)
    assert y
    return View(Model(net.model()))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("h0", "hn"),
        ("state", "stateN"),
        ("cache_in_3", "cache_out_3"),
        ("past_key_values.0.key", "present.0.key"),
        ("hiddenState", "newHiddenState"),
    ],
)
def test_state_that_is_fed_back_is_found_by_its_name(first: str, second: str) -> None:
    assert fed_back(streaming(first, second)) == ((second, first),)


def test_other_names_are_no_state() -> None:
    view = streaming("context", "logits")
    assert fed_back(view) == ()
    assert named_states(view, ["logits=context"]) == (("logits", "context"),)
    for text, words in (("logits", "not like"), ("logit=context", "did you mean 'logits'"), ("logits=x", "differ")):
        with pytest.raises(UsageError, match=words):
            named_states(view, [text])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, UsageError, "nothing is to be trimmed"),
        ({"outputs": ("lables",)}, UsageError, "no output 'lables'"),
        ({"keep": {"OUT": "9"}}, UsageError, "outside the axis"),
        ({"keep": {"OUT": "5-2"}}, UsageError, "runs backwards"),
        ({"keep": {"OUT": "persn"}}, UsageError, "near are 'person'"),
        ({"keep": {"OUT:7": "1"}}, UsageError, "no axis 7"),
        ({"keep": {"OUT:0": "1"}}, UsageError, "its size is dynamic"),
        ({"keep": {"nowhere": "1"}}, UsageError, "no tensor 'nowhere'"),
        ({"keep": {"OUT": "@missing.txt"}}, UsageError, "cannot be read"),
        ({"fix": {"y": 1}}, UsageError, "no input 'y'"),
        ({"fix": {"x": [[1.0, 2.0]]}}, UsageError, "has shape"),
        ({"fix": {"x": "many"}}, UsageError, "is no number"),
        ({"dims": {"m": 4}}, UsageError, "no input has a dimension 'm'"),
        ({"dims": {"n": 0}}, UsageError, "is no size"),
        ({"gray": ("x",)}, UsageError, "three channels"),
    ],
)
def test_what_makes_no_sense_is_one_line(options: dict[str, object], error: type[Exception], words: str) -> None:
    model = labelled({"names": json.dumps(["person", "car", "dog", "cat", "bird", "fish"])})
    output = model.graph.output[0].name
    given = {
        name: {key.replace("OUT", output): v for key, v in value.items()} if isinstance(value, dict) else value
        for name, value in options.items()
    }
    with pytest.raises(error, match=words) as caught:
        trim(model, TrimOptions(**given))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
