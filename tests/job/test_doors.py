"""One job, three doors: the command line, a recipe and a Python function give the same bytes."""

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune import keywords
from onnxprune.job.methods import METHODS
from tests import networks
from tests.cli.conftest import Run

SETS: list[tuple[str, dict[str, Any], bool]] = [
    ("prune", {"ratio": 0.25, "compensate": "lstsq"}, True),
    ("prune", {"ratio": 0.5}, False),
    ("prune", {"params": 0.6, "score": "l1", "skip": "conv1", "compensate": "bias"}, True),
    ("sparsify", {"sparsity": 0.6, "scope": "global"}, False),
    ("sparsify", {"pattern": "2:4"}, True),
    ("factorize", {"params": 0.7}, True),
    ("quantize", {"mode": "static", "calibration": "entropy"}, True),
    ("quantize", {"mode": "fp16"}, False),
]


def words(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.mark.parametrize(("method", "options", "with_data"), SETS)
def test_the_three_doors_give_the_same_bytes(
    run: Run, model: Path, data: Path, method: str, options: dict[str, Any], with_data: bool
) -> None:
    files = {door: model.with_name(f"{door}.onnx") for door in ("words", "recipe", "python")}
    given = ["--data", data] if with_data else []
    extra = ["--no-latency"] if method == "quantize" else []
    result = run(method, model, *words(options), *given, *extra, "--threads", 1, "-o", files["words"])
    assert result.exit_code == 0, result.stderr
    text = [f"model: {model}", "threads: 1", *([f"data: {data}"] if with_data else [])]
    steps = ", ".join(
        f"{name}: '{value}'" if isinstance(value, str) else f"{name}: {value}" for name, value in options.items()
    )
    recipe = model.with_name("r.yaml")
    recipe.write_text("\n".join([*text, f"steps: [{method}: {{{steps}}}]"]))
    assert run("run", recipe, "-o", files["recipe"]).exit_code == 0
    function = getattr(onnxprune, method)
    found = function(model, data if with_data else None, run=onnxprune.Run(threads=1), **options)
    onnxprune.save(found.model, files["python"])
    assert len({file.read_bytes() for file in files.values()}) == 1
    assert found.report.parity and found.report.details["verdict"]["status"] in ("good", "poor", "not judged")


def test_a_function_verifies_as_the_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.evidence.oracle.masked_model", lambda channels, keep: channels.model)
    with pytest.raises(onnxprune.OnnxpruneError, match="differs from the original with the removed channels zeroed"):
        onnxprune.prune(networks.convnet(), ratio=0.5)


def test_a_function_keeps_gates_and_hands_over_what_was_found() -> None:
    with pytest.raises(onnxprune.GateError, match="below") as caught:
        onnxprune.prune(networks.convnet(), ratio=0.5, gates=onnxprune.Gates(min_cosine=0.99999))
    assert caught.value.report.details["gates"][0]["held"] is False


def test_the_keywords_of_the_functions_are_the_fields_of_the_options() -> None:
    for name, method in METHODS.items():
        known = typing.get_type_hints(getattr(keywords, f"{name.capitalize()}Kwargs"))
        fields = {item.name for item in dataclasses.fields(method.options)}
        targets = (
            {"ratio", "macs", "params", "size", "latency", "scope", "ratios", "depth"}
            if name == "tune"
            else {"plan", "compressed"}
        )
        assert set(known) == fields - targets, name


def test_every_public_name_is_there_and_documented() -> None:
    for name in onnxprune.__all__:
        found = getattr(onnxprune, name)
        assert inspect.getdoc(found), name
    assert set(onnxprune.__all__) <= set(dir(onnxprune))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_unknown_option_is_refused_with_the_nearest_there_is(method: str) -> None:
    with pytest.raises(onnxprune.UsageError, match="has no option 'input_shape'; did you mean 'input_shapes'"):
        onnxprune.step(method, input_shape={})


def test_what_cannot_be_pruned_raises_with_a_report() -> None:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], "only")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 5])],
        networks.weights(w=(4, 5)),
    )
    with pytest.raises(onnxprune.NothingToPruneError) as caught:
        onnxprune.prune(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), ratio=0.5)
    assert caught.value.report.details["error"]["code"] == 4


SPELT = {
    "input_shapes": "--input-shape",
    "ratios": "--group-ratios",
    "plan": "PLAN.json",
    "compressed": "COMPRESSED",
    "states": "--state",
    "vocabulary": "--tokenizer",
    "measure_latency": "--latency",
}
"""Options that the command line calls otherwise. A search looks for its target itself, and leaves states and branches
alone."""


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_option_of_a_method_is_in_the_help_of_its_command(run: Run, name: str) -> None:
    shown = " ".join(run(name, "--help").stdout.split())
    targets = (
        {"ratio", "macs", "params", "size", "latency", "scope", "ratios", "resize_io", "states", "drop", "depth"}
        if name == "tune"
        else set()
    )
    fields = [item.name for item in dataclasses.fields(METHODS[name].options) if item.name not in targets]
    assert [f for f in fields if SPELT.get(f, f"--{f.replace('_', '-')}") not in shown] == []
