"""onnxprune factorize: what is written, what is reported, and with which code it ends."""

import json
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Run, files


def test_factors_on_data_are_written_beside_the_input_with_a_report(run: Run, model: Path, data: Path) -> None:
    before = model.read_bytes()
    result = run("factorize", model, "--macs", 0.7, "--data", data, "--threads", 1, "--json")
    assert result.exit_code == 0, result.stderr
    assert files(model.parent) == {"net.onnx", "net-factorized.onnx"} and model.read_bytes() == before
    document = json.loads(result.stdout)
    assert document["output"]["macs"] <= 0.7 * document["input"]["macs"]
    assert document["output"]["params"] < document["input"]["params"]
    assert document["factors"]["whitened"] and document["factors"]["refitted"]
    conv2 = next(layer for layer in document["factors"]["layers"] if layer["name"] == "conv2")
    assert conv2["form"] and conv2["params_left"] < conv2["params"]
    written = onnx.load(model.with_name("net-factorized.onnx"))
    assert [o.name for o in written.graph.output] == ["logits"]
    assert any(node.name.startswith("conv2/") for node in written.graph.node)


def test_the_text_says_what_was_replaced(run: Run, model: Path) -> None:
    result = run("factorize", model, "--threads", 1, "-v")
    assert result.exit_code == 0 and "Replaced" in result.stdout and "as matrices" in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--params", "0.5", "--macs", "0.5"], 2, "one target"),
        (["--whiten"], 2, "--data"),
        (["--params", "0.01"], 4, "at least"),
        (["--min-cosine", "0.9999999"], 3, "--min-cosine"),
    ],
)
def test_what_cannot_be_done_ends_with_its_code_and_no_file(
    run: Run, model: Path, args: list[str], code: int, words: str
) -> None:
    result = run("factorize", model, *args, "--threads", 1)
    assert result.exit_code == code and words in result.stderr, result.stderr
    assert files(model.parent) == {"net.onnx"}
