"""onnxprune quantize: what is written, what is reported, and with which code it ends."""

import json
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Run, files


def test_the_default_with_data_is_static_int8_beside_the_input(run: Run, model: Path, data: Path) -> None:
    before = model.read_bytes()
    result = run("quantize", model, "--data", data, "--threads", 1, "--json")
    assert result.exit_code == 0, result.stderr
    assert files(model.parent) == {"net.onnx", "net-int8.onnx"} and model.read_bytes() == before
    document = json.loads(result.stdout)
    assert document["format"] == "onnxprune-report" and document["command"] == "quantize"
    assert document["quantization"]["mode"] == "static"
    assert document["output"]["bytes"] < 0.5 * document["input"]["bytes"]
    assert document["parity"]["logits"]["sqnr_db"] > 25
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert layers["conv1"]["precision"] == "quantized" and layers["conv1"]["sqnr_db"] > 25
    assert len(document["latency"]) == 2 and document["latency_ratio"] > 0


@pytest.mark.parametrize(
    ("args", "name"),
    [(["--mode", "fp16"], "fp16"), (["--mode", "bf16"], "bf16"), (["--mode", "weight-only"], "int4"), ([], "int8")],
)
def test_the_name_of_the_output_says_the_bits(run: Run, model: Path, args: list[str], name: str) -> None:
    result = run("quantize", model, *args, "--threads", 1, "--no-latency", "-q")
    assert result.exit_code == 0, result.stderr
    assert files(model.parent) == {"net.onnx", f"net-{name}.onnx"}


def test_static_without_data_runs_and_warns(run: Run, model: Path) -> None:
    result = run("quantize", model, "--mode", "static", "--threads", 1, "--no-latency")
    assert result.exit_code == 0 and "random inputs" in result.stderr


def test_a_quantized_model_is_refused_in_one_line_or_passed_through(run: Run, model: Path, data: Path) -> None:
    run("quantize", model, "--data", data, "--no-latency", "--threads", 1, "--no-provenance")
    quantized = model.with_name("net-int8.onnx")
    result = run("quantize", quantized)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and "quantized already" in result.stderr
    result = run("quantize", quantized, "--pass-through", "-o", model.with_name("same.onnx"), "--no-provenance")
    assert result.exit_code == 0 and "passed through" in result.stderr
    assert model.with_name("same.onnx").read_bytes() == quantized.read_bytes()


def test_a_gate_out_of_reach_writes_nothing_and_ends_with_code_3(run: Run, model: Path, data: Path) -> None:
    (model.parent / "data" / "judge.py").write_text("import os\ndef value(path):\n    return os.path.getsize(path)\n")
    judge = f"{model.parent / 'data' / 'judge.py'}:value"
    result = run("quantize", model, "--data", data, "--eval", judge, "--max-drop", -1e9, "--threads", 1)
    assert result.exit_code == 3 and "--max-drop" in result.stderr
    assert files(model.parent) == {"net.onnx"}


def test_a_gate_keeps_layers_float_until_it_holds(run: Run, model: Path, data: Path) -> None:
    free = json.loads(run("quantize", model, "--data", data, "--json", "--no-latency", "--threads", 1).stdout)
    reached = free["parity"]["logits"]["sqnr_db"]
    args = ["--data", data, "--min-sqnr", reached + 3, "--json", "--no-latency", "--threads", 1]
    result = run("quantize", model, *args)
    assert result.exit_code == 0, result.stderr
    gated = json.loads(result.stdout)
    assert gated["parity"]["logits"]["sqnr_db"] >= reached + 3
    kept = [layer for layer in gated["layers"] if layer["precision"] == "float"]
    assert 0 < len(kept) < len(gated["layers"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--mode", "int8"], "--mode"),
        (["--bits", "4"], "weight-only"),
        (["--mode", "weight-only", "--block-size", "7"], "block-size 7"),
        (["--skip", "nothing*"], "nothing*"),
        (["--op-block-list", "Nothing"], "Nothing"),
        (["--percentile", "101"], "101"),
    ],
)
def test_wrong_options_end_with_code_2_one_line_and_no_file(run: Run, model: Path, args: list[str], words: str) -> None:
    result = run("quantize", model, *args)
    assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1
    assert files(model.parent) == {"net.onnx"}


def test_the_same_input_gives_the_same_bytes(run: Run, model: Path, data: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        run("quantize", model, "--data", data, "-o", model.with_name(name), "--no-latency", "--threads", 1)
    assert model.with_name("a.onnx").read_bytes() == model.with_name("b.onnx").read_bytes()
    assert onnx.load(model.with_name("a.onnx")).metadata_props[0].key == "onnxprune.version"
