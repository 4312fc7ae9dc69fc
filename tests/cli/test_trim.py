"""onnxprune trim: the command, the recipe and the function do the same, and say what they did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import onnxprune
from onnxprune.cli.group import cli
from tests.micro.build import Net
from tests.oracle import run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = Net()
    x, rate = net.input("n", 6), net.input(name="rate", dtype=np.int64)
    y = net.Relu(net.gemm(x, 6, 8))
    logits = net.gemm(y, 8, 5)
    net.output(net.Mul(logits, net.Cast(rate, to=1)), net.gemm(y, 8, 3))
    proto = net.model()
    for node, name in zip(proto.graph.output, ("logits", "other"), strict=True):
        for made in proto.graph.node:
            made.output[:] = [name if output == node.name else output for output in made.output]
        node.name = name
    onnx.helper.set_model_props(proto, {"names": "{0: 'a', 1: 'b', 2: 'c', 3: 'd', 4: 'e'}"})
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


WORDS = ["--outputs", "logits", "--keep", "logits=b,d", "--fix", "rate=2"]


def test_three_doors_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    assert call("trim", model, *WORDS, "-o", tmp_path / "one.onnx", "-q").exit_code == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(call("trim", model, *WORDS, "-o", tmp_path / "two.onnx", "--print-recipe").stdout)
    assert call("run", recipe, "-q").exit_code == 0
    result = onnxprune.trim(model, outputs="logits", keep={"logits": ["b", "d"]}, fix={"rate": 2})
    onnxprune.save(result.model, tmp_path / "three.onnx")
    files = [(tmp_path / f"{name}.onnx").read_bytes() for name in ("one", "two", "three")]
    assert files[0] == files[1] == files[2]
    x = np.ones((2, 6), dtype=np.float32)
    before = run(onnx.load(model), {"x": x, "rate": np.array(2)})[0]
    assert np.allclose(before[:, [1, 3]], run(onnx.load(tmp_path / "one.onnx"), {"x": x})[0], atol=1e-6)


def test_a_plan_is_applied_again(model: Path, tmp_path: Path) -> None:
    one, two, plan = tmp_path / "one.onnx", tmp_path / "two.onnx", tmp_path / "plan.json"
    assert call("trim", model, *WORDS, "-o", one, "--plan", plan, "-q").exit_code == 0
    assert json.loads(plan.read_text())["trim"]["outputs"] == ["logits"]
    assert call("apply", model, plan, "-o", two, "-q").exit_code == 0
    assert onnx.load(one).graph == onnx.load(two).graph


def test_later_steps_get_what_the_trimmed_model_takes(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    rng = np.random.default_rng(0)
    np.savez(data, x=rng.normal(size=(40, 6)).astype(np.float32), rate=np.array(2))
    recipe = tmp_path / "recipe.yaml"
    trims = "trim: {outputs: logits, keep: {logits: 'b,d'}, fix: {rate: 2}}"
    steps = [trims, "prune: {ratio: 0.25, compensate: lstsq}"]
    lines = [f"model: {model}", f"data: {data}", "steps:", *(f"- {step}" for step in steps)]
    recipe.write_text("\n".join([*lines, f"outputs: {{output: {tmp_path / 'small.onnx'}}}"]))
    assert call("run", recipe, "-q").exit_code == 0
    small = onnx.load(tmp_path / "small.onnx")
    assert [value.name for value in small.graph.input] == ["x"]
    assert sorted(tensor.dims[0] for tensor in small.graph.initializer if len(tensor.dims) == 2) == [2, 6]


def test_the_report_names_what_went(model: Path, tmp_path: Path) -> None:
    report = json.loads(call("trim", model, *WORDS, "-o", tmp_path / "one.onnx", "--json").stdout)
    assert report["trim"]["cuts"] == [{"tensor": "logits", "axis": 1, "size": 5, "kept": 2}]
    assert report["trim"]["inputs_gone"] == ["rate"]
    assert report["parity"]["logits"]["cosine"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--keep", "logits"], 2, "not like NAME=VALUE"),
        (["--keep", "logits=z"], 2, "no label 'z'"),
        (["--keep", "other:0=1"], 2, "cannot lose positions"),
        (["--fix", "rate=fast"], 2, "no number"),
        ([], 2, "nothing is to be trimmed"),
    ],
)
def test_one_line_and_nothing_written(model: Path, tmp_path: Path, words: list[str], code: int, message: str) -> None:
    target = tmp_path / "out.onnx"
    result = call("trim", model, *words, "-o", target)
    assert result.exit_code == code
    assert message in result.stderr and "\n" not in result.stderr.strip()
    assert not target.exists()
