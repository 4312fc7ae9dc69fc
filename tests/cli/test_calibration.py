"""Data on the command line: the refit that they buy, and what is said about data that do not fit."""

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import Run
from tests.networks import convnet


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Inputs of the small network."""
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((64, 3, 12, 12)).astype(np.float32))
    return path


def test_with_data_what_stays_is_refitted_and_comes_nearer_to_the_original(run: Run, model: Path, data: Path) -> None:
    cosines = {}
    for mode in ("none", "bias", "lstsq"):
        args = ("--ratio", 0.5, "--data", data, "--compensate", mode, "--threads", 1, "--json")
        cosines[mode] = json.loads(run(model, *args).stdout)["parity"]["logits"]["cosine"]
    assert cosines["none"] < cosines["bias"] < cosines["lstsq"]


def test_least_squares_are_the_default_with_data_and_the_report_has_every_layer(
    run: Run, model: Path, data: Path
) -> None:
    result = run(model, "--ratio", 0.5, "--data", data, "--threads", 1, "--json")
    document = json.loads(result.stdout)
    layers = {layer["name"]: layer for layer in document["compensation"]["layers"]}
    assert document["compensation"]["samples"] == 48 and set(layers) == {"conv1", "conv2", "head"}
    assert layers["conv2"]["used"] and layers["conv2"]["after"] < layers["conv2"]["before"]
    assert "Refitted 2 of 3 layers on 48 samples" in result.stderr
    assert document["masked_parity"]["relative_error"]["logits"] < 1e-4
    assert "before what stays was refitted" in result.stderr


def test_the_report_with_details_has_a_table_of_layers(run: Run, model: Path, data: Path) -> None:
    shown = run(model, "--ratio", 0.5, "--data", data, "--threads", 1, "-v").stdout
    assert "nothing changed before it" in shown and "Errors of layers" in shown


def test_samples_limit_what_is_read(run: Run, model: Path, data: Path) -> None:
    result = run(model, "--ratio", 0.5, "--data", data, "--samples", 32, "--threads", 1, "--json")
    assert json.loads(result.stdout)["compensation"]["samples"] == 24


def test_a_plan_can_be_applied_with_a_refit(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    run(model, "--ratio", 0.5, "--data", data, "--plan", plan, "--threads", 1, "-o", tmp_path / "a.onnx")
    result = run("apply", model, plan, "--data", data, "--threads", 1, "-o", tmp_path / "b.onnx")
    assert result.exit_code == 0, result.stderr
    one, two = (onnx.load(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    assert one.graph.SerializeToString() == two.graph.SerializeToString()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((4, 3, 9, 12), np.float32)}, "[4, 3, 9, 12]"),
        ({"a": np.zeros((4, 3, 12, 12), np.float32), "b": np.zeros(3)}, "'x'"),
        ({"x": np.full((4, 3, 12, 12), np.nan, np.float32)}, "NaN"),
        ({"x": np.zeros((0, 3, 12, 12), np.float32)}, "no samples"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_one_line(
    run: Run, model: Path, tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    result = run(model, "--data", tmp_path / "bad.npz")
    assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1
    assert not model.with_name("net-pruned.onnx").exists()


def test_constant_data_and_one_sample_are_used_with_a_warning(run: Run, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.ones((1, 3, 12, 12), np.float32))
    result = run(model, "--data", tmp_path / "one.npz", "--threads", 1)
    assert result.exit_code == 0
    assert "constant" in result.stderr and "one sample" in result.stderr


def test_without_data_the_refit_looks_at_made_up_inputs_and_says_so(run: Run, model: Path, tmp_path: Path) -> None:
    files = {mode: tmp_path / f"{mode}.onnx" for mode in ("default", "lstsq", "none")}
    for mode, file in files.items():
        mode_args = () if mode == "default" else ("--compensate", mode)
        result = run(model, *mode_args, "--ratio", 0.5, "--threads", 1, "--json", "--no-provenance", "-o", file)
        assert result.exit_code == 0, result.stderr
        said = [w for w in json.loads(result.stdout)["warnings"] if "made-up inputs" in w]
        assert ("give 128 or more of them with --data" in "".join(said)) == (mode != "none")
    assert files["default"].read_bytes() == files["lstsq"].read_bytes() != files["none"].read_bytes()


def test_a_model_whose_inputs_cannot_be_made_up_is_pruned_without_a_refit(run: Run, tmp_path: Path) -> None:
    proto = convnet()
    proto.graph.node.insert(0, onnx.helper.make_node("CastLike", ["text", "b1"], ["number"]))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [1]))
    onnx.save(proto, tmp_path / "text.onnx")
    refused = run(tmp_path / "text.onnx", "--ratio", 0.5)
    assert refused.exit_code == 2 and "was not seen to run, so nothing was written" in refused.stderr
    result = run(tmp_path / "text.onnx", "--ratio", 0.5, "--no-verify")
    assert result.exit_code == 0 and "not refitted: the input 'text' takes" in result.stderr
    asked = run(tmp_path / "text.onnx", "--ratio", 0.5, "--compensate", "lstsq")
    assert asked.exit_code == 2 and "cannot be drawn at random; give --data" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "args", [("--mean", "a"), ("--image-size", "0"), ("--memory", "-4GB"), ("--memory", "lots"), ("--compensate", "x")]
)
def test_wrong_values_are_refused(run: Run, model: Path, args: tuple[str, str]) -> None:
    assert run(model, *args).exit_code == 2


def test_data_on_which_the_network_overflows_are_told_in_one_line(run: Run, model: Path, tmp_path: Path) -> None:
    big = np.random.default_rng(0).standard_normal((32, 3, 12, 12)).astype(np.float32) * 1e30
    np.savez(tmp_path / "big.npz", x=big)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run(model, "--data", tmp_path / "big.npz", "--threads", 1, "--no-verify", "--compensate", "lstsq")
    assert result.exit_code == 0, result.stderr
    assert "could not be refitted: activations overflow on these data" in result.stderr
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines())
