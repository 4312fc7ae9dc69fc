"""onnxprune sparsify: what is written, what is reported, and with which code it ends."""

import json
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Run, files


def test_a_pattern_on_data_is_written_beside_the_input_with_a_report(run: Run, model: Path, data: Path) -> None:
    before = model.read_bytes()
    result = run("sparsify", model, "--pattern", "2:4", "--data", data, "--threads", 1, "--json")
    assert result.exit_code == 0, result.stderr
    assert files(model.parent) == {"net.onnx", "net-sparse.onnx"} and model.read_bytes() == before
    document = json.loads(result.stdout)
    assert document["command"] == "sparsify" and document["parity"]["logits"]["sqnr_db"] > 5
    sparsity = document["sparsity"]
    assert sparsity["zeros"] == sparsity["weights"] // 2 and sparsity["reconstructed"]
    assert sparsity["compressed_bytes"]["output"] < 0.8 * sparsity["compressed_bytes"]["input"]
    assert {layer["method"] for layer in sparsity["layers"] if layer["zeros"]} == {"obc"}
    options = {p.key: p.value for p in onnx.load(model.with_name("net-sparse.onnx")).metadata_props}
    assert json.loads(options["onnxprune.options"]) == {"command": "sparsify", "pattern": "2:4"}


def test_the_report_says_that_zeros_are_not_faster(run: Run, model: Path) -> None:
    result = run("sparsify", model, "--sparsity", 0.8, "--threads", 1)
    assert result.exit_code == 0 and "not faster for zeros" in result.stdout and "80.0 %" in result.stdout


def test_the_same_call_gives_the_same_bytes(run: Run, model: Path, data: Path) -> None:
    contents = []
    for name in ("a.onnx", "b.onnx"):
        target = model.with_name(name)
        assert run("sparsify", model, "-o", target, "--data", data, "--threads", 1, "-q").exit_code == 0
        contents.append(target.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--pattern", "2:3:4"], 2, "2:4"),
        (["--score", "wanda"], 2, "--data"),
        (["--sparsity", "0.5", "--storage", "sparse"], 2, "67 %"),
        (["--pattern", "32:64"], 4, "no multiple"),
        (["--sparsity", "0.9", "--min-cosine", "0.9999999"], 3, "--min-cosine"),
    ],
)
def test_what_cannot_be_done_ends_with_its_code_and_no_file(
    run: Run, model: Path, args: list[str], code: int, words: str
) -> None:
    result = run("sparsify", model, *args, "--threads", 1)
    assert result.exit_code == code and words in result.stderr, result.stderr
    assert files(model.parent) == {"net.onnx"}
