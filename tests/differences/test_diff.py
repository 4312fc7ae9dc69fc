"""A diff finds exactly what was removed, and says nothing of equal models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from models import zoo
from onnxprune.cli.group import cli
from onnxprune.differences.lost_positions import kept_positions


def network(seed: int = 0, width: int = 8) -> onnx.ModelProto:
    """Return x -> Conv -> Relu -> Conv -> y, with vectors that say nothing about positions."""
    random = np.random.default_rng(seed)
    arrays = {
        "w1": random.standard_normal((width, 3, 3, 3)),
        "b1": np.zeros(width),
        "w2": random.standard_normal((4, width, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["y"], "second"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, 5, 5]) for name, c in (("x", 3), ("y", 4))]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pruned(model: onnx.ModelProto | Path) -> onnxprune.PruneResult:
    return onnxprune.prune(model, ratio=0.5, align=1, compensate="none", run=onnxprune.Run(verify=False))


@pytest.mark.parametrize("name", ["ESPCN", "MLPConcat", "WaveNet", "network"])
def test_positions_that_values_tell_are_those_of_the_plan(name: str) -> None:
    source = network() if name == "network" else zoo.build(name)
    result = pruned(source)
    found = onnxprune.diff(source, result.model.proto)
    assert found.removed == {tensor: axes for tensor, axes in result.plan.removed.items() if axes}
    assert not found.is_equal and found.link.how == "values"
    stayed = {change["tensor"]: change["changed"] for change in found.tensors["changed"]}
    assert {tensor: stayed[tensor] for tensor in found.removed} == dict.fromkeys(found.removed, 0.0)
    with_plan = onnxprune.diff(source, result.model.proto, result.plan)
    assert with_plan.removed == found.removed and with_plan.tensors == found.tensors


REFITS = {"prune": {"compensate": "distil", "steps": 2}, "quantize": {"compensate": "lstsq"}, "sparsify": {}}
"""Last step -> how the prune before it refits; one of them has steps of its own."""


@pytest.mark.parametrize("steps", [["prune"], ["prune", "quantize"], ["prune", "sparsify"]])
def test_a_refitted_result_says_itself_what_it_lost(tmp_path: Path, steps: list[str]) -> None:
    """Values tell nothing after a refit, and names of weights change when they are stored in fewer bits."""
    onnx.save(network(width=128), tmp_path / "a.onnx")
    data = {"x": np.random.default_rng(1).standard_normal((32, 3, 5, 5)).astype(np.float32)}
    options = {
        "prune": {"ratio": 0.5, "align": 1, **REFITS[steps[-1]]},
        "quantize": {"mode": "fp16"},
        "sparsify": {},
    }
    job = onnxprune.Job(tuple(onnxprune.step(name, **options[name]) for name in steps), tmp_path / "a.onnx", data)
    done = onnxprune.run_recipe(job)
    onnxprune.save(done.model, tmp_path / "b.onnx")
    found = onnxprune.diff(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert found.link.how == "record" and found.removed == {k: v for k, v in done.plan.removed.items() if v}


@pytest.mark.parametrize("damage", ["{}", "[]", "x", '{"removed": 3}', '{"removed": {"first": "////"}}'])
def test_a_record_that_does_not_fit_is_not_believed(tmp_path: Path, damage: str) -> None:
    onnx.save(network(), tmp_path / "a.onnx")
    onnxprune.save(pruned(tmp_path / "a.onnx").model, tmp_path / "b.onnx")
    other = onnx.load(tmp_path / "b.onnx")
    for item in other.metadata_props:
        item.value = damage if item.key == "onnxprune.options" else item.value
    assert onnxprune.diff(tmp_path / "a.onnx", other).link.how == "values"


def test_node_data_of_a_viewer_tell_every_node(tmp_path: Path) -> None:
    source, other = network(), pruned(network()).model.proto
    other.graph.node.add(op_type="Identity", input=["y"], output=["z"])
    found = onnxprune.diff(source, other)
    told = json.loads(found.to_model_explorer())["g"]["results"]
    assert {name: line["value"] for name, line in told.items()} == {
        "first": "narrower",
        "relu": "equal",
        "second": "narrower",
        "z": "added",
    }
    width = json.loads(found.to_model_explorer("width"))["g"]
    assert {name: line["value"] for name, line in width["results"].items()} == {
        "first": 0.5,
        "relu": 0.5,
        "second": 1.0,
    }
    assert [stop["stop"] for stop in width["gradient"]] == [0.0, 0.5, 1.0]
    cost = json.loads(found.to_model_explorer("cost"))["g"]["results"]
    assert cost == {"first": {"value": 4 * 3 * 9 * 25.0}, "second": {"value": 4 * 4 * 25.0}}
    with pytest.raises(onnxprune.UsageError, match="change, width, cost"):
        found.to_model_explorer("colour")
    for name, proto in (("a", source), ("b", other)):
        onnx.save(proto, tmp_path / f"{name}.onnx")
    words = ["diff", *(str(tmp_path / name) for name in ("a.onnx", "b.onnx"))]
    file = tmp_path / "nodes.json"
    assert CliRunner().invoke(cli, [*words, "--model-explorer", str(file), "--overlay", "cost"]).exit_code == 1
    assert json.loads(file.read_text())["g"]["name"] == "multiply-adds"
    assert CliRunner().invoke(cli, [*words, "--overlay", "cost"]).exit_code == 2
    assert CliRunner().invoke(cli, [*words, "--model-explorer", words[1]]).exit_code == 2


def test_a_model_equals_itself_and_its_copy() -> None:
    found = onnxprune.diff(network(), network())
    assert found.is_equal and found.removed == {}


def test_every_kind_of_change_is_told() -> None:
    other = network()
    other.graph.node[0].attribute[0].ints[0] = 2
    other.graph.node[2].input[0] = "a"
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones(8, np.float32), "b1"))
    other.graph.initializer[2].name = other.graph.node[2].input[1] = "renamed"
    other.graph.node.add(op_type="Identity", input=["y"], output=["z"], name="more")
    other.graph.output.add().CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4, 5, 5]))
    other.opset_import[0].version = 18
    other.metadata_props.add(key="owner", value="me")
    found = onnxprune.diff(network(), other)
    assert {(change["node"], change["what"]) for change in found.nodes["changed"]} == {
        ("first", "pads"),
        ("second", "inputs"),
    }
    assert found.nodes["added"] == [{"node": "more", "operator": "Identity"}] and not found.nodes["removed"]
    assert [(change["tensor"], change["changed"]) for change in found.tensors["changed"]] == [
        ("b1", pytest.approx(8**0.5, rel=1e-3))
    ]
    assert found.tensors["renamed"] == [{"tensor": "w2", "after": "renamed"}]
    assert [change["what"] for change in found.interface] == ["output 'z'"]
    assert {change["what"] for change in found.settings} == {"opset ai.onnx", "metadata 'owner'"}


def test_a_refit_is_measured_with_the_plan_and_called_unknown_without() -> None:
    source, samples = network(), {"x": np.random.default_rng(1).standard_normal((32, 3, 5, 5)).astype(np.float32)}
    result = onnxprune.prune(source, samples, ratio=0.5, align=1, compensate="lstsq")
    told = {
        change["tensor"]: change
        for change in onnxprune.diff(source, result.model.proto, result.plan).tensors["changed"]
    }
    assert told["w2"]["removed"]["1"] == result.plan.removed["w2"][1] and told["w2"]["changed"] > 0
    assert set(told["w2"]) == {"tensor", "before", "after", "removed", "changed"}


def test_models_that_have_nothing_to_do_with_each_other_are_compared() -> None:
    found = onnxprune.diff(zoo.build("GNN"), zoo.build("ESPCN"))
    assert found.nodes["removed"] and found.nodes["added"] and not found.is_equal
    json.dumps(found.to_json())


def test_a_plan_of_another_model_is_refused() -> None:
    plan = pruned(network(1)).plan
    with pytest.raises(onnxprune.UsageError, match="another file"):
        onnxprune.diff(network(0), pruned(network(0)).model.proto, plan)


def test_positions_are_found_on_all_axes_or_not_at_all() -> None:
    before = np.random.default_rng(0).standard_normal((6, 5, 2)).astype(np.float32)
    kept = kept_positions(before, before[np.ix_([0, 2, 5], [1, 4], [0, 1])])
    assert kept is not None and [part.tolist() for part in kept] == [[0, 2, 5], [1, 4], [0, 1]]
    assert kept_positions(before, before[[2, 0]]) is None  # another order
    assert kept_positions(before, before[:3] * 2) is None
    assert kept_positions(np.zeros((4, 2), np.float32), np.zeros((3, 2), np.float32)) is None


def test_the_command_ends_like_diff(tmp_path: Path) -> None:
    source, result = network(), pruned(network())
    for name, proto in (("a", source), ("b", result.model.proto)):
        onnx.save(proto, tmp_path / f"{name}.onnx")
    a, b = str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")
    runner = CliRunner()
    assert runner.invoke(cli, ["diff", a, a]).exit_code == 0
    page, data = tmp_path / "d.html", tmp_path / "d.json"
    told = runner.invoke(cli, ["diff", a, b, "--report", str(page)])
    assert told.exit_code == 1 and "axis 0: 4 of 8 gone" in told.output
    assert "Width of every group" in page.read_text() and "4 of 8 gone" in page.read_text()
    assert runner.invoke(cli, ["diff", a, b, "-q", "--report", str(data)]).exit_code == 1
    assert json.loads(data.read_text())["diff"]["tensors"]["changed"][0]["removed"]
    assert runner.invoke(cli, ["diff", a, str(tmp_path / "none.onnx")]).exit_code == 2
    assert runner.invoke(cli, ["diff", a, b, "--plan", a]).exit_code == 2
    assert runner.invoke(cli, ["diff", a, b, "--report", a]).exit_code == 2
