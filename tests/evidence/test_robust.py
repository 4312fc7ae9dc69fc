"""Robustness on classifiers whose margins are known: one reads a wide feature, the other a narrow one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.cli.group import cli
from onnxprune.evidence.perturbed import CHANGES, sides
from onnxprune.evidence.robust import is_less


def classifier(weights: np.ndarray, shape: list[int | str], ending: str = "Identity") -> onnx.ModelProto:
    """Return x -> Flatten -> Gemm -> (Softmax) -> y, two classes."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["logits" if ending == "Identity" else "g"]),
    ]
    nodes += [] if ending == "Identity" else [helper.make_node(ending, ["g"], ["logits"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], 2])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weights.astype(np.float32), "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


WIDE = classifier(np.array([[1, -1], [0, 0]]), ["n", 2])
NARROW = classifier(np.array([[0, 0], [50, -50]]), ["n", 2])
SIGNS = np.where(np.random.default_rng(0).random((64, 1)) < 0.5, -1.0, 1.0)
DATA = (SIGNS * np.array([1.0, 0.02])).astype(np.float32)
"""Both features tell the class; the second one is 50 times narrower."""


@pytest.mark.parametrize("ending", ["Identity", "Softmax"])
def test_what_reads_a_narrow_feature_is_brittle(ending: str) -> None:
    weights = [np.array([[1, -1], [0, 0]]), np.array([[0, 0], [50, -50]])]
    wide, narrow = (classifier(weight, ["n", 2], ending) for weight in weights)
    found = onnxprune.robustness(wide, narrow, data={"x": DATA})
    lines = {line.change: line for line in found.lines}
    assert set(lines) == {"noise", "brighter", "darker", "fgsm"} and "none was shifted" in found.warnings[0]
    assert found.is_brittle and "more brittle" in found.sentence
    assert (lines["fgsm"].original, lines["fgsm"].compressed) == (1.0, 0.0) and lines["fgsm"].brittle
    assert lines["noise"].original == 1.0 > lines["noise"].compressed and lines["noise"].figure == "agreement"
    assert lines["brighter"].compressed == pytest.approx((SIGNS > 0).mean()) == lines["brighter"].both


def test_the_original_may_be_the_brittle_one() -> None:
    found = onnxprune.robustness(NARROW, WIDE, data={"x": DATA})
    assert not found.is_brittle and "no more" in found.sentence


def test_a_model_is_as_steady_as_itself_and_the_same_seed_gives_the_same() -> None:
    found = onnxprune.robustness(NARROW, NARROW, data={"x": DATA}, seed=3)
    assert all(line.original == line.compressed and line.both == 1.0 for line in found.lines)
    assert found == onnxprune.robustness(NARROW, NARROW, data={"x": DATA}, seed=3)


def test_images_are_shifted_along_their_sides_alone() -> None:
    assert sides((2, 3, 12, 12)) == (2, 3) and sides((2, 12, 10, 3)) == (1, 2)
    assert sides((2, 3, 5)) == sides((2, 3, 4, 4)) == sides((64, 2)) == ()
    image = np.arange(64.0).reshape(1, 1, 8, 8)
    moved = CHANGES["shift"](image, 1.0, np.random.default_rng(0))
    assert np.array_equal(moved[..., 1:, 1:], image[..., :-1, :-1]) and moved[0, 0, 0, 0] == 0


def test_chance_makes_no_model_brittle() -> None:
    assert not is_less(0.90, 0.92, 64) and is_less(0.90, 0.92, 10_000)
    assert not is_less(0.995, 1.0, 10_000) and is_less(0.9, 0.95, None)


def test_what_cannot_be_differentiated_or_changed_is_told() -> None:
    double = classifier(np.array([[1, -1], [0, 0]]), ["n", 2])
    for value in (double.graph.input[0], double.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    double.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.eye(2), "w"))
    found = onnxprune.robustness(double, double, data={"x": DATA.astype(np.float64)})
    assert any("gradient" in warning for warning in found.warnings) and len(found.lines) == 3
    with pytest.raises(onnxprune.DataError, match="varies"):
        onnxprune.robustness(WIDE, WIDE, data={"x": np.ones((4, 2), np.float32)})


def test_the_command_says_whether_it_is_brittle(tmp_path: Path) -> None:
    onnx.save(WIDE, tmp_path / "a.onnx")
    onnx.save(NARROW, tmp_path / "b.onnx")
    np.savez(tmp_path / "x.npz", x=DATA)
    words = ["validate", "a.onnx", "b.onnx", "--data", "x.npz"]
    words = [str(tmp_path / word) if "." in word else word for word in words]
    told = CliRunner().invoke(cli, [*words, "--robust", "--no-strict", "--report", str(tmp_path / "r.html")])
    assert told.exit_code == 0 and "more brittle" in told.output, told.output
    assert "Small changes of inputs, on 64 samples" in (tmp_path / "r.html").read_text()
    made_up = CliRunner().invoke(cli, [*words[:3], "--robust", "--no-strict"])
    assert made_up.exit_code == 0 and "says little of yours" in made_up.stderr
    document = json.loads(CliRunner().invoke(cli, [*words, "--robust", "--no-strict", "--json"]).stdout)
    assert document["robustness"]["brittle"] is True
