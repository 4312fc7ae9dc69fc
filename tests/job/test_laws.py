"""For every method and ten sets of options: the command line, a recipe and a Python function give the same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner

import onnxprune
from onnxprune.cli.group import cli
from onnxprune.job.methods import METHODS
from tests import networks

DATA: dict[str, Any] = {"data": True}
LSTSQ = {"compensate": "lstsq"}
KEPT = {"min_cosine": 0.9}
SETS: dict[str, list[dict[str, Any]]] = {
    "prune": [
        {"ratio": 0.5, "compensate": "none"},
        {"ratio": 0.25, "scope": "global", "score": "l1", "target": "ncnn", "precision": "int8"},
        {"params": 0.6, "select": 12, **LSTSQ, **DATA},
        {"macs": 0.7, "scope": "sensitivity", "tie_blocks": True, "compensate": "bias", **DATA},
        {"size": 0.8, "score": "l1", "randomize": 0.5, "seed": 3, "min_channels": 8, "compensate": "none"},
        {"ratios": {"conv1": 0.5}, "compensate": "none"},
        {"ratio": 0.5, "align": 4, "compensate": "distil", "steps": 2, **DATA},
        {"peak_memory": 0.7, "skip": ["conv1"], "exact_only": True, "heads": False, "head_dim": True, **LSTSQ},
        {"ratio": 0.3, "only": ["conv2", "b1"], "cut_unfitted": True, "memory": 1 << 26, **LSTSQ, **DATA},
        {"ratio": 0.5, "resize_io": ["logits"], "input_shapes": {"x": [2, 3, 12, 12]}, "compensate": "none"},
        {"ratio": 0.5, "stats": "net.stats"},
    ],
    "sparsify": [
        {},
        {"sparsity": 0.7},
        {"pattern": "2:4"},
        {"pattern": "2:4", **DATA},
        {"sparsity": 0.6, "pattern": "block:4x1"},
        {"scope": "global", "score": "magnitude", "reconstruct": False, **DATA},
        {"scope": "lamp", "score": "wanda", "reconstruct": True, **DATA},
        {"scope": "erk", "skip": ["head"]},
        {"sparsity": 0.9, "storage": "sparse", "only": ["conv*"]},
        {"score": "random", "seed": 5, "input_shapes": {"x": [2, 3, 12, 12]}},
        {"pattern": "2:4", "stats": "net.stats"},
    ],
    "factorize": [
        {},
        {"params": 0.7, **DATA},
        {"macs": 0.6},
        {"energy": 0.9},
        {"energy": 0.9, **DATA, "whiten": False},
        {"params": 0.6, "target": "webgpu"},
        {"params": 0.6, "align": 4, "refit": False, **DATA},
        {"params": 0.8, "skip": ["conv1"]},
        {"macs": 0.8, "only": ["conv2"], "refit": True, **DATA},
        {"params": 0.7, "seed": 4, "input_shapes": {"x": [2, 3, 12, 12]}},
        {"params": 0.7, "stats": "net.stats"},
    ],
    "quantize": [
        {},
        {"mode": "dynamic", "per_channel": False, "weight_type": "u8", "target": "cpu-avx2"},
        {"mode": "static", "guard": False, "measure": False, **DATA},
        {"mode": "static", "calibration": "percentile", "percentile": 99.5, "rounding": "nearest", **DATA},
        {"mode": "static", "calibration": "entropy", "activation_type": "s8", "symmetric": True, **DATA},
        {"mode": "static", "format": "qoperator", "equalize": True, "correct_bias": True, **DATA},
        {"mode": "weight-only", "bits": 4, "block_size": 16, "only": ["head"]},
        {"mode": "fp16", "keep_io_types": False},
        {"mode": "fp16", "op_block_list": ["Gemm", "Flatten"]},
        {"mode": "weight-only", "rounding": "gptq", "stats": "wide.stats"},
        {"mode": "static", "smooth": True, "symmetric": False, "skip": ["conv1"], "pass_through": True, **DATA},
    ],
    "trim": [
        {"keep": {"logits": "0-3"}},
        {"keep": {"logits:1": "7,1"}, "renumber": True},
        {"keep": {"logits": "b,d"}, "labels": "a,b,c,d,e,f,g,h,i,j"},
        {"keep": {"logits": "@kept.txt"}},
        {"outputs": ["logits"]},
        {"dims": {"batch": 2}},
        {"input_channels": {"x:1": "0,2"}},
        {"gray": ["x"]},
        {"fix": {"x": "x.npy"}, "labels_key": "names"},
        {"keep": {"logits": "2-5"}, "rare": "nearest", "input_shapes": {"x": [2, 3, 12, 12]}},
    ],
    "apply": [
        {"plan": "plan.json"},
        {"plan": "plan.json", **DATA},
        {"plan": "plan.json", "compensate": "none", **DATA},
        {"plan": "plan.json", "compensate": "bias", "select": 8, **DATA},
        {"plan": "plan.json", **LSTSQ},
        {"plan": "plan.json", "compensate": "distil", "steps": 2, **DATA},
        {"plan": "plan.json", "force": True},
        {"plan": "plan.json", "same_structure": True, **DATA},
        {"plan": "plan.json", "heads": True, "head_dim": False},
        {"plan": "plan.json", "memory": 1 << 26, **LSTSQ, **DATA},
        {"plan": "plan.json", "seed": 2, "input_shapes": {"x": [2, 3, 12, 12]}, **LSTSQ},
    ],
    "finetune": [
        {"compressed": "small.onnx", "steps": 2, **more, **DATA}
        for more in (
            {},
            {"augment": "none"},
            {"augment": "flip,shift", "select": 12},
            {"rate": 0.02},
            {"labels": "labels.npy"},
            {"labels": "labels.npy", "label_weight": 0.5, "label_output": "logits"},
            {"labels": "targets.npy", "criterion": "mse"},
            {"effort": "default", "seed": 4},
            {"state": "walk.state"},
            {"input_shapes": {"x": [2, 3, 12, 12]}},
        )
    ],
    "tune": [
        {"compensate": "none", "step": 0.4, "finest": 0.4, **more, **DATA, "gates": KEPT}
        for more in (
            {},
            {"score": "l1", "target": "webgpu"},
            {"align": 4, "precision": "float16", "min_channels": 4, "randomize": 0.2},
            {"stats": "net.stats"},
            {"skip": ["conv1"]},
            {"only": ["conv2"], "exact_only": True},
            {"tie_blocks": True, "state": "kept.json", "select": 12},
            {"step": 0.5, "finest": 0.3},
            {"heads": True, "head_dim": False, "cut_unfitted": True},
            {"compensate": "bias", "memory": 1 << 26},
            {"score": "random", "seed": 3, "measure_latency": True},
        )
    ],
}
SPELT = {
    "ratios": "--group-ratios",
    "input_shapes": "--input-shape",
    "plan": "",
    "compressed": "",
    "per_channel": "--per-channel/--per-tensor",
    "symmetric": "--symmetric/--asymmetric",
    "keep_io_types": "--keep-io-types/--convert-io-types",
    "measure_latency": "--latency/--no-latency",
}
"""Options that the command line calls otherwise than the field."""
COMMON = ["--seed", "1", "--samples", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, its data, a plan, and the files that options name."""
    folder = tmp_path_factory.mktemp("desk")
    model = networks.store(networks.convnet(width=16), folder / "net.onnx")
    networks.store(networks.convnet(width=128), folder / "wide.onnx")
    x = np.random.default_rng(0).standard_normal((16, 3, 12, 12)).astype(np.float32)
    np.savez(folder / "data.npz", x=x)
    np.save(folder / "x.npy", x[:1])
    (folder / "kept.txt").write_text("3\n5\n")
    found = onnxprune.prune(model, ratio=0.5, compensate="none", run=onnxprune.Run(threads=1))
    onnxprune.save(found.model, folder / "small.onnx")
    np.save(folder / "labels.npy", np.arange(16) % 10)
    np.save(folder / "targets.npy", np.eye(10, dtype=np.float32)[np.arange(16) % 10])
    (folder / "plan.json").write_text(found.plan.to_json())
    for name in ("net", "wide"):
        asked = [folder / f"{name}.onnx", "--data", folder / "data.npz", "--patches", "-o", folder / f"{name}.stats"]
        assert CliRunner().invoke(cli, ["stats", *map(str, asked)]).exit_code == 0
    return folder


def words(name: str, value: Any, folder: Path) -> list[str]:
    """Spell an option for the command line."""
    flag = SPELT.get(name, f"--{name.replace('_', '-')}")
    if name == "ratios":
        (folder / "ratios.json").write_text(json.dumps(value))
        return [flag, "ratios.json"]
    if isinstance(value, bool):
        yes, _, no = flag.partition("/")
        return [yes] if value else [no or f"--no-{yes[2:]}"]
    flag = {"states": "--state"}.get(name, flag)
    if isinstance(value, Mapping):
        mark = ":" if name == "input_shapes" else "="
        pairs = (f"{key}{mark}{','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in value.items())
        return [word for pair in pairs for word in (flag, pair)]
    values = value if isinstance(value, list) else [value]
    return [word for item in values for word in ([flag, str(item)] if flag else [str(item)])]


def source(method: str) -> str:
    """Return the file to work on: where few weights get fewer bits the file grows, which quantize refuses."""
    return "wide.onnx" if method == "quantize" else "net.onnx"


def by_words(method: str, options: dict[str, Any], with_data: bool, gates: dict[str, Any], folder: Path) -> None:
    given = [word for name, value in {**options, **gates}.items() for word in words(name, value, folder)]
    given += ["--data", "data.npz"] if with_data else []
    given += ["--no-latency"] if method == "quantize" else []
    common = COMMON if "seed" not in options else COMMON[2:]
    arguments = [method, source(method), *given, *common, "-o", "words.onnx"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.stderr


def by_recipe(method: str, options: dict[str, Any], with_data: bool, gates: dict[str, Any], folder: Path) -> None:
    parts: dict[str, Any] = {"model": source(method), "seed": 1, "samples": 8, "threads": 1, "gates": gates}
    parts |= {"data": "data.npz"} if with_data else {}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**parts, "steps": [{method: options}]}))
    result = CliRunner().invoke(cli, ["run", "recipe.yaml", "-o", "recipe.onnx"])
    assert result.exit_code == 0, result.stderr


def by_python(method: str, options: dict[str, Any], with_data: bool, gates: dict[str, Any], folder: Path) -> None:
    found = getattr(onnxprune, method)(
        source(method),
        **({"data": "data.npz"} if with_data else {}),
        **options,
        run=onnxprune.Run(threads=1, seed=1, samples=8),
        gates=onnxprune.Gates(**gates),
    )
    onnxprune.save(found.model, folder / "python.onnx")


@pytest.mark.parametrize(("method", "number"), [(name, n) for name in SETS for n in range(len(SETS[name]))])
def test_three_doors_give_the_same_bytes(desk: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int) -> None:
    monkeypatch.chdir(desk)
    options = dict(SETS[method][number])
    with_data, gates = bool(options.pop("data", False)), options.pop("gates", {})
    for door in (by_words, by_recipe, by_python):
        door(method, options, with_data, gates, desk)
    files = [desk / f"{door}.onnx" for door in ("words", "recipe", "python")]
    assert len({file.read_bytes() for file in files}) == 1
    assert files[0].read_bytes() != (desk / source(method)).read_bytes()
    onnx.checker.check_model(str(files[0]))


def test_every_method_has_ten_sets_which_use_every_option() -> None:
    assert set(SETS) == set(METHODS)
    for name, sets in SETS.items():
        assert len(sets) >= 10
        assert {option for given in sets for option in given} >= set(METHODS[name].option_names) - UNUSED[name], name


UNUSED: dict[str, set[str]] = {
    **{name: set() for name in SETS},
    "prune": {"latency", "states", "drop", "depth", "substitute", "effort", "stats", "experts"},
    "apply": {"effort", "substitute", "stats"},
    "finetune": {"loss", "blank"},
    "tune": {"ratio", "macs", "params", "size", "latency", "scope", "ratios", "resize_io", "states", "steps"}
    | {"workers", "input_shapes", "drop", "depth", "substitute", "effort", "stats"},
    "sparsify": {"effort", "stats"},
    "factorize": {"effort", "stats"},
    "quantize": {"seed", "input_shapes", "effort", "stats"},
    "trim": {"tokens", "scatter", "tokens_from", "tokenizer", "vocabulary"},
}
"""What a clock decides, what has tests of its own, what needs another network, and what a method refuses."""
