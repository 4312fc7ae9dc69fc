"""The commands of docs/trim.md run as they stand, on small networks of the five kinds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxprune.cli.group import cli
from tests.micro.build import Net
from tests.trimming.heads import yolo8
from tests.trimming.test_tokens import encoder

PAGE = (Path(__file__).parents[2] / "docs" / "trim.md").read_text(encoding="utf-8")


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """Give tensors other names."""
    for node in model.graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


def detector() -> onnx.ModelProto:
    net = Net()
    head = net.Concat(*yolo8(net), axis=1)
    net.output(head)
    model = renamed(net.model(), {head: "output0"})
    names = ["person", "bicycle", "car", *(f"kind{number}" for number in range(9))]
    onnx.helper.set_model_props(model, {"names": str(dict(enumerate(names))), "stride": "8"})
    return model


def reader() -> onnx.ModelProto:
    net = Net()
    x = net.reshape(net.transpose(net.Relu(net.conv(net.input("n", 1, 4, 8), 1, 8)), 0, 3, 1, 2), 0, 8, 32)
    scores = net.Softmax(net.linear(x, 32, 18), axis=2)
    net.output(scores)
    model = renamed(net.model(), {scores: "probabilities"})
    onnx.helper.set_model_props(model, {"character": "\n".join("abc0123456789xyz") + "\n"})
    return model


def voice() -> onnx.ModelProto:
    net = Net()
    net.input("n", 6, name="x")
    net.input("n", 16, name="state")
    rate = net.input(name="rate", dtype=np.int64)

    def branch(size: int) -> onnx.GraphProto:
        weights = [net.rng.normal(size=shape).astype(np.float32) / 4 for shape in ((6, 16), (16, 16))]
        stored = [onnx.numpy_helper.from_array(w, f"w{size}_{n}") for n, w in enumerate(weights)]
        nodes = [
            onnx.helper.make_node("MatMul", ["x", f"w{size}_0"], [f"a{size}"]),
            onnx.helper.make_node("MatMul", ["state", f"w{size}_1"], [f"b{size}"]),
            onnx.helper.make_node("Add", [f"a{size}", f"b{size}"], [f"c{size}"]),
            onnx.helper.make_node("Tanh", [f"c{size}"], [f"out{size}"]),
        ]
        result = onnx.helper.make_tensor_value_info(f"out{size}", onnx.TensorProto.FLOAT, None)
        return onnx.helper.make_graph(nodes, f"branch{size}", [], [result], stored)

    hidden = net.op("If", net.Equal(rate, np.array(16000)), then_branch=branch(1), else_branch=branch(2))
    net.output(net.Sigmoid(net.linear(hidden, 16, 1)), shape=("n", 1))
    net.output(hidden, shape=("n", 16))
    return renamed(net.model(), {hidden: "stateN"})


def decoder() -> onnx.ModelProto:
    net = Net()
    width, heads, size, words = 16, 4, 4, 120
    ids = net.input("n", 1, name="ids", dtype=np.int64)
    x = net.Gather(net.weight(words, width, name="words"), ids, axis=0)
    names, parts = {}, []
    for kind in ("key", "value"):
        past = net.input("n", heads, "past", size, name=f"past_key_values.0.{kind}")
        new = net.transpose(net.reshape(net.linear(x, width, width), 0, 1, heads, size), 0, 2, 1, 3)
        parts.append(net.Concat(past, new, axis=2))
        names[parts[-1]] = f"present.0.{kind}"
    query = net.transpose(net.reshape(net.linear(x, width, width), 0, 1, heads, size), 0, 2, 1, 3)
    mixed = net.MatMul(net.Softmax(net.MatMul(query, net.transpose(parts[0], 0, 1, 3, 2)), axis=-1), parts[1])
    y = net.linear(net.reshape(net.transpose(mixed, 0, 2, 1, 3), 0, 1, width), width, width)
    logits = net.linear(y, width, words)
    net.output(logits, *parts)
    return renamed(net.model(), {**names, logits: "logits"})


def large_encoder() -> onnx.ModelProto:
    net = Net()
    ids = net.input("n", "t", name="ids", dtype=np.int64)
    x = net.Gather(net.weight(4000, 24, name="words"), ids, axis=0)
    net.output(net.reduce("Mean", net.Tanh(net.linear(x, 24, 24)), [1], keepdims=0))
    return net.model()


def test_the_stories_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"detector": detector, "reader": reader, "encoder": large_encoder, "vad": voice, "decoder": decoder}
    for name, make in made.items():
        onnx.save(make(), tmp_path / f"{name}.onnx")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("onnxprune ")]
    assert len(lines) == 9
    for line in lines:
        result = CliRunner().invoke(cli, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        written = shlex.split(line)[-1]
        assert (tmp_path / written).stat().st_size > 0
    two = onnx.load(tmp_path / "two-classes.onnx")
    assert {entry.key: entry.value for entry in two.metadata_props}["names"] == "{0: 'person', 1: 'car'}"
    sizes = {path.stem: path.stat().st_size for path in tmp_path.glob("*.onnx")}
    assert sizes["smaller-encoder"] < 0.35 * sizes["encoder"] < sizes["small-encoder"] < 0.7 * sizes["encoder"]


def test_tokens_of_a_text(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    words = {word: number for number, word in enumerate(["[UNK]", "[PAD]", "a", "bird", "sings", "stone"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[UNK]", "[PAD]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.txt").write_text("a bird\nbird sings\n")
    onnx.save(encoder(), tmp_path / "encoder.onnx")
    words_of = ["trim", tmp_path / "encoder.onnx", "--tokens", "ids=text", "--tokens-from", tmp_path / "text.txt"]
    call = [str(word) for word in (*words_of, "--tokenizer", tmp_path / "tokenizer.json", "--json")]
    result = CliRunner().invoke(cli, call)
    assert result.exit_code == 0, result.output
    assert '"kept": 5' in result.stdout
    refused = CliRunner().invoke(cli, call[:4])
    assert refused.exit_code == 2
    assert "need all three" in refused.stderr
