"""onnxprune explain tells scores, twins and readers of one group."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli.conftest import Run


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """x -> Gemm (6 channels, 4 is twice 1, 5 is nearly nothing) -> Relu -> two readers, one of which reads 2 most."""
    random = np.random.default_rng(0)
    first = random.standard_normal((6, 8)).astype(np.float32)
    first[4], first[5] = 2 * first[1], 1e-3
    readers = {name: random.uniform(0.9, 1.1, (3, 6)).astype(np.float32) for name in ("left", "right")}
    readers["right"][:, 2] = 50
    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["a"], "gemm", transB=1),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        *(helper.make_node("Gemm", ["r", name], [f"y_{name}"], name, transB=1) for name in readers),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in {"first": first, **readers}.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])]
    outputs = [helper.make_tensor_value_info(f"y_{name}", TensorProto.FLOAT, [1, 3]) for name in readers]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    path = tmp_path / "twins.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_twins_readers_and_scores_are_those_of_the_weights(run: Run, twins: Path, tmp_path: Path) -> None:
    page = tmp_path / "e.html"
    done = run("explain", twins, "gemm", "--ratio", 0.34, "--json", "--report", page)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)["explain"]
    lines = {line["channel"]: line for line in found["channels"]}
    assert found["size"] == 6 and found["exact"]
    assert lines[4]["twin"] == 1 and lines[1]["twin"] == 4 and lines[4]["likeness"] == pytest.approx(1, abs=1e-6)
    assert lines[2]["reader"] == "right" and lines[2]["weight"] > 4 and lines[0]["reader"] == "left"
    assert min(lines, key=lambda channel: lines[channel]["score"]) == 5
    gone = {channel for channel, line in lines.items() if not line["kept"]}
    assert 5 in gone and len(gone) == 2
    assert max(lines[channel]["score"] for channel in gone) <= min(lines[c]["score"] for c in lines if c not in gone)
    assert "Scores of the channels" in page.read_text() and "nearest twin" in page.read_text()


def test_a_group_that_is_not_there_is_told_with_those_that_are(run: Run, twins: Path) -> None:
    done = run("explain", twins, "gemn")
    assert done.exit_code == 2 and "there is no group 'gemn'; there are gemm" in done.stderr
    refused = run("explain", twins, "gemm", "--score", "taylor")
    assert refused.exit_code == 2 and "weights alone" in refused.stderr and "--data" not in refused.stderr


def test_inspect_lists_opset_inputs_outputs_and_operators(run: Run, twins: Path) -> None:
    done = run("inspect", twins, "--json")
    assert json.loads(done.stdout)["model_facts"] == {
        "ir_version": 8,
        "opsets": {"ai.onnx": 17},
        "operators": {"Gemm": 3, "Relu": 1},
        "inputs": {"x": "float [1, 8]"},
        "outputs": {"y_left": "float [1, 3]", "y_right": "float [1, 3]"},
    }
    assert "input x: float [1, 8]" in done.stderr and "4 nodes: 3 Gemm, 1 Relu" in done.stderr
