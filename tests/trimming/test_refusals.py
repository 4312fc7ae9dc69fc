"""What cannot be asked of the border: one line, exit code 2, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import Run
from tests.micro.build import Net


def labelled(folder: Path) -> Path:
    """A segmentation network over six named classes, a state that is fed back, and an input of tokens."""
    net = Net()
    x = net.Relu(net.conv(net.input("n", 3, 8, 8), 3, 8))
    net.output(net.conv(x, 8, 6, kernel=1))
    model = net.model()
    final = model.graph.output[0].name
    model.graph.node[-1].output[0] = "scores"
    model.graph.output[0].name = "scores"
    assert final != "scores"
    names = dict(enumerate(["person", "car", "dog", "cat", "bird", "fish"]))
    onnx.helper.set_model_props(model, {"names": json.dumps(names)})
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def encoder(folder: Path) -> Path:
    net = Net()
    ids = net.input("n", 4, name="ids", dtype=np.int64)
    net.output(net.reduce("Mean", net.Gather(net.weight(20, 8), ids, axis=0), [1], keepdims=0))
    path = folder / "model.onnx"
    onnx.save(net.model(), path)
    return path


def recurrent(folder: Path) -> Path:
    net = Net()
    x, h = net.input(1, "n", 6), net.input(1, "n", 16, name="before")
    weights = [net.weight(1, 48, 6), net.weight(1, 48, 16), net.weight(1, 96)]
    y, after = net.GRU(x, *weights, None, h, hidden_size=16, outputs=2)
    net.output(net.linear(net.squeeze(y, 0, 1), 16, 5), after)
    path = folder / "model.onnx"
    onnx.save(net.model(), path)
    return path


CASES = [
    (["--keep", "scores:1=0-6"], "6"),
    (["--keep", "scores:1=-7"], "7"),
    (["--keep", "scores:1=persom,car"], "person"),
    (["--keep", "score:1=person"], "scores"),
    (["--outputs", "boxes"], "scores"),
    (["--keep", "scores:1="], ""),
    (["--keep", "scores:2=0-3"], "a spatial axis"),
    (["--keep", "scores:0=0"], "its size is dynamic"),
    (["--keep", "scores:7=0"], "7"),
    (["--input-channels", "y:1=0"], "y"),
    (["--fix", "z=1"], "z"),
    (["--dims", "many=4"], "many"),
    (["--scatter", "scores:1"], "scores"),
]


@pytest.mark.parametrize(("words", "said"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_it_is_one_line(run: Run, tmp_path: Path, words: list[str], said: str) -> None:
    refused(run, tmp_path, ["trim", labelled(tmp_path), *words], said)


def test_a_tokenizer_of_another_vocabulary_is_one_line(run: Run, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    words = {f"w{number}": number for number in range(50)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "corpus.txt").write_text("w1 w2\n")
    files = ["--tokens-from", tmp_path / "corpus.txt", "--tokenizer", tmp_path / "tokenizer.json"]
    refused(run, tmp_path, ["trim", encoder(tmp_path), "--tokens", "ids=text", *files], "20 rows")


def test_a_state_whose_sides_differ_is_one_line(run: Run, tmp_path: Path) -> None:
    path = recurrent(tmp_path)
    output = onnx.load(path).graph.output[0].name
    refused(run, tmp_path, ["prune", path, "--ratio", "0.5", "--state", f"{output}=before"], "differ")


def refused(run: Run, folder: Path, words: list[object], said: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = run(*words, "-o", folder / "out.onnx", "--report", folder / "report.json")
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1 and said in lines[0]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
