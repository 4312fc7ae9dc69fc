"""A genai_config.json beside the model follows it: head counts and layers as the result has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.graph.genai import with_counts
from onnxprune.graph.model import Model, load
from onnxprune.methods.trim import TrimOptions, trim
from tests import decoders, plain
from tests.cli.conftest import Run
from tests.oracle import relative_error, session

Build = Callable[[], onnx.ModelProto]
HALF = ["--ratio", 0.5, "--align", 1, "--resize-io", "past*"]


def placed(folder: Path, build: Build, text: str | None = None) -> Path:
    path = folder / "model.onnx"
    onnx.save(build(), path)
    (folder / "genai_config.json").write_text(text or json.dumps(decoders.configuration("model.onnx")))
    return path


def fed(model: Path, config: dict[str, Any]) -> list[np.ndarray]:
    """Allocate the caches as the configuration says and run two tokens, the second with the caches of the first."""
    part = config["model"]["decoder"]
    shape = (1, part["num_key_value_heads"], 0, part["head_size"])
    opened = session(onnx.load(model))
    names = {value.name for value in opened.get_inputs()}
    layers = sorted({int(name.split(".")[1]) for name in names if name.startswith("past")})
    assert len(layers) == part["num_hidden_layers"]
    kinds = [(layer, kind) for layer in layers for kind in ("key", "value")]
    caches = {f"past_key_values.{layer}.{kind}": np.zeros(shape, np.float32) for layer, kind in kinds}
    logits = []
    for step in (1, 2):
        feeds = {"input_ids": np.array([[step]]), "attention_mask": np.ones((1, step), np.int64), **caches}
        found = opened.run(None, {name: value for name, value in feeds.items() if name in names})
        given = dict(zip([value.name for value in opened.get_outputs()], found, strict=True))
        caches = {name: given[name.replace("past_key_values", "present")] for name in caches}
        logits.append(given["logits"])
    return logits


@pytest.mark.parametrize("build", [decoders.fused, decoders.written_out], ids=["fused", "written out"])
def test_counts_follow_heads_that_go_and_the_caller_that_reads_them_can_run(
    run: Run, tmp_path: Path, build: Build
) -> None:
    path, output = placed(tmp_path, build), tmp_path / "half" / "small.onnx"
    output.parent.mkdir()
    assert run("prune", path, *HALF, "--compensate", "none", "-o", output).exit_code == 0
    before = json.loads((tmp_path / "genai_config.json").read_text())
    config = json.loads((output.parent / "genai_config.json").read_text())
    part = config["model"]["decoder"]
    counts = {name: part[name] for name in ("num_key_value_heads", "num_attention_heads", "head_size", "hidden_size")}
    assert counts == {"num_key_value_heads": 1, "num_attention_heads": 2, "head_size": 16, "hidden_size": 32}
    assert part["filename"] == "small.onnx"
    changed = {*counts, "filename"}
    assert {k: v for k, v in part.items() if k not in changed} == {
        k: v for k, v in before["model"]["decoder"].items() if k not in changed
    }
    assert config["search"] == before["search"]
    assert fed(output, config)


@pytest.mark.parametrize("build", [decoders.fused, decoders.written_out], ids=["fused", "written out"])
def test_a_dropped_attention_takes_its_cache_and_its_layer_along(run: Run, tmp_path: Path, build: Build) -> None:
    path, output, report = placed(tmp_path, build), tmp_path / "one" / "model.onnx", tmp_path / "report.json"
    output.parent.mkdir()
    words = ["--drop", "attention1", "--compensate", "none", "-o", output, "--report", report]
    result = run("prune", path, *words)
    assert result.exit_code == 0, result.stderr
    config = json.loads((output.parent / "genai_config.json").read_text())
    assert config["model"]["decoder"]["num_hidden_layers"] == 1
    told = json.loads(report.read_text())
    gone = {f"{way}.1.{kind}" for way in ("past_key_values", "present") for kind in ("key", "value")}
    assert {*told["dropped"]["inputs"], *told["dropped"]["outputs"]} == gone
    assert told["genai_config"]["changed"] == {"decoder.num_hidden_layers": {"before": 2, "after": 1}}
    silent = onnx.load(path)  # the oracle: what the attention writes is zero
    end = next(node for node in silent.graph.node if node.name == "attention1")
    silent.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    place = list(silent.graph.node).index(end)
    silent.graph.node.insert(place, onnx.helper.make_node("Mul", [end.input[1], "zero"], ["nothing"]))
    silent.graph.node[place + 1].input[1] = "nothing"
    onnx.save(silent, tmp_path / "silent.onnx")
    whole = fed(tmp_path / "silent.onnx", json.loads((tmp_path / "genai_config.json").read_text()))
    for one, other in zip(whole, fed(output, config), strict=True):
        assert relative_error(one, other) < 1e-5


def test_recipes_and_functions_write_the_same(run: Run, tmp_path: Path) -> None:
    path = placed(tmp_path, decoders.written_out)
    files = {door: tmp_path / door / "small.onnx" for door in ("words", "recipe", "python")}
    for file in files.values():
        file.parent.mkdir()
    assert run("prune", path, *HALF, "--compensate", "none", "-o", files["words"]).exit_code == 0
    steps = "prune: {ratio: 0.5, align: 1, resize_io: 'past*', compensate: none}"
    (tmp_path / "r.yaml").write_text(f"model: {path}\nsteps: [{steps}]\noutputs: {{output: {files['recipe']}}}\n")
    assert run("run", tmp_path / "r.yaml").exit_code == 0
    result = onnxprune.prune(path, ratio=0.5, align=1, resize_io="past*", compensate="none")
    onnxprune.save(result.model, files["python"])
    assert len({(file.parent / "genai_config.json").read_bytes() for file in files.values()}) == 1


def test_a_gap_between_layers_is_said(run: Run, tmp_path: Path) -> None:
    path = placed(tmp_path, decoders.written_out)
    result = run("prune", path, "--drop", "attention0", "--compensate", "none")
    assert "the caches that are left are 1" in result.stderr


def test_in_the_folder_of_the_model_it_gets_another_name(run: Run, tmp_path: Path) -> None:
    path = placed(tmp_path, decoders.written_out)
    before = (tmp_path / "genai_config.json").read_bytes()
    assert run("prune", path, *HALF, "--compensate", "none").exit_code == 0
    assert (tmp_path / "genai_config.json").read_bytes() == before
    config = json.loads((tmp_path / "model-pruned-genai_config.json").read_text())
    assert config["model"]["decoder"]["num_key_value_heads"] == 1


def test_that_of_another_model_is_not_replaced(run: Run, tmp_path: Path) -> None:
    path, output = placed(tmp_path, decoders.written_out), tmp_path / "other" / "small.onnx"
    output.parent.mkdir()
    other = output.parent / "genai_config.json"
    other.write_text('{"model": {"decoder": {"filename": "theirs.onnx"}}}')
    before = other.read_bytes()
    for _ in range(2):
        assert run("prune", path, *HALF, "--compensate", "none", "-o", output).exit_code == 0
    assert other.read_bytes() == before
    assert (output.parent / "small-genai_config.json").exists()


DEEP = "[" * 100_000


@pytest.mark.parametrize("text", ["{", "[]", '{"model": {"decoder": {"filename": "theirs.onnx"}}}', "\xff", DEEP])
def test_what_is_not_of_the_model_is_left_alone(run: Run, tmp_path: Path, text: str) -> None:
    path, output = placed(tmp_path, decoders.written_out), tmp_path / "half" / "small.onnx"
    output.parent.mkdir()
    (tmp_path / "genai_config.json").write_bytes(text.encode("latin-1"))
    result = run("prune", path, *HALF, "--compensate", "none", "-o", output)
    assert result.exit_code == 0
    assert [file.name for file in output.parent.iterdir()] == ["small.onnx"]
    assert ("cannot be read" in result.stderr) == (text in ("{", "\xff", DEEP))


def test_a_failed_gate_writes_none(run: Run, tmp_path: Path) -> None:
    path, output = placed(tmp_path, decoders.written_out), tmp_path / "half" / "small.onnx"
    output.parent.mkdir()
    assert run("prune", path, *HALF, "--compensate", "none", "--min-cosine", 1, "-o", output).exit_code == 3
    assert list(output.parent.iterdir()) == []


def test_it_is_no_output(run: Run, tmp_path: Path) -> None:
    path = placed(tmp_path, decoders.written_out)
    before = (tmp_path / "genai_config.json").read_bytes()
    result = run("prune", path, *HALF, "--report", tmp_path / "genai_config.json")
    assert result.exit_code == 2 and "never replaced" in result.stderr
    assert (tmp_path / "genai_config.json").read_bytes() == before


def test_counts_that_no_configuration_can_say_are_told(tmp_path: Path) -> None:
    before = load(decoders.written_out())
    channels = plain.prune(before, ratio=0.5, align=1, resize_io=("past_key_values.0*",), compensate="none")
    done = with_counts(decoders.configuration("m.onnx"), "m.onnx", before, channels.model, "small.onnx")
    assert done.config is None
    assert done.notes == ("its num_key_value_heads is one number for all layers, and they have 1 and 2 now",)


def test_scores_over_fewer_tokens_and_stages_of_a_pipeline() -> None:
    before = load(decoders.written_out())
    narrow = trim(before, TrimOptions(keep={"logits:2": "0-9"})).model
    config = decoders.configuration("other.onnx", pipeline=[{"decode": {"filename": "m.onnx"}}])
    done = with_counts(config, "m.onnx", before, narrow, "small.onnx")
    assert done.config is not None and done.config["model"]["vocab_size"] == 10
    assert done.config["model"]["decoder"]["pipeline"] == [{"decode": {"filename": "small.onnx"}}]
    assert done.changed == {"vocab_size": (20, 10)}
    same = with_counts(config, "m.onnx", before, Model(before.proto), "small.onnx")
    assert same.config is None
