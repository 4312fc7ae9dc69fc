"""onnxprune validate and bench, from options to exit code."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import networks
from tests.cli.conftest import Run


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return networks.store(networks.convnet(seed=1), tmp_path / "other.onnx")


def test_validate_prints_figures_and_says_that_inputs_were_random(run: Run, model: Path) -> None:
    result = run("validate", model, model, "--threads", 1)
    assert result.exit_code == 0
    assert "3 random inputs (seed 0)" in result.stdout and "identical" in result.stdout
    assert "\x1b" not in result.output


def test_json_alone_is_on_standard_output(run: Run, model: Path, other: Path) -> None:
    result = run("validate", model, other, "--json", "--threads", 1)
    document = json.loads(result.stdout)
    assert document["command"] == "validate" and document["seed"] == 0
    assert document["input"]["path"] == str(model) and document["output"]["path"] == str(other)
    assert document["input"]["params"] == 3 * 32 * 9 + 32 + 32 * 32 * 9 + 32 + 330
    assert document["input"]["macs"] == 144 * (3 * 32 * 9 + 32 * 32 * 9) + 320
    assert -1 <= document["parity"]["logits"]["cosine"] < 0.99
    assert "logits" in result.stderr


def test_quiet_prints_the_json_only(run: Run, model: Path) -> None:
    result = run("validate", model, model, "--json", "-q", "--threads", 1)
    assert json.loads(result.stdout) and not result.stderr


def test_a_gate_that_fails_ends_with_code_3_and_names_the_figure(run: Run, model: Path, other: Path) -> None:
    assert run("validate", model, model, "--min-cosine", 1, "--threads", 1).exit_code == 0
    result = run("validate", model, other, "--min-sqnr", 40, "--threads", 1)
    assert result.exit_code == 3
    assert "SQNR" in result.stderr and "--min-sqnr 40" in result.stderr
    assert result.stdout.startswith("Verdict: failed.") and "--min-sqnr 40" in result.stdout.splitlines()[0]


def test_data_of_the_user_are_used_and_counted(run: Run, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((6, 3, 12, 12)).astype(np.float32))
    document = json.loads(run("validate", model, model, "--data", tmp_path / "data.npz", "--json").stdout)
    assert "data.npz" in document["inputs"] and document["samples"] == 6


def test_data_that_do_not_fit_end_with_code_2(run: Run, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros((6, 3, 5, 5), np.float32))
    result = run("validate", model, model, "--data", tmp_path / "data.npy")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1


def test_a_drop_is_measured_by_the_function_of_the_user(run: Run, model: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def value(path):\n    return 0.5 if 'other' in path else 0.9\n")
    judge = f"{tmp_path / 'judge.py'}:value"
    assert run("validate", model, other, "--eval", judge, "--max-drop", 0.5).exit_code == 0
    result = run("validate", model, other, "--eval", judge, "--max-drop", 0.3)
    assert result.exit_code == 3 and "0.4" in result.stderr
    assert run("validate", model, other, "--eval", f"{tmp_path / 'judge.py'}:none").exit_code == 2


def test_an_operator_that_onnxruntime_does_not_have_is_named(run: Run, tmp_path: Path) -> None:
    path = networks.store(networks.custom(), tmp_path / "custom.onnx")
    result = run("bench", path)
    assert result.exit_code == 2 and "Mystery" in result.stderr and len(result.stderr.splitlines()) == 1


def test_bench_reports_every_model_with_its_spread(run: Run, model: Path, other: Path) -> None:
    document = json.loads(run("bench", model, other, "--runs", 3, "--warmup", 1, "--threads", 1, "--json").stdout)
    assert list(document["latency"]) == [str(model), str(other)]
    for timing in document["latency"].values():
        assert timing["p10_ms"] <= timing["median_ms"] <= timing["p90_ms"] and timing["runs"] == 3


def test_a_page_is_written_for_html(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("validate", model, model, "--report", tmp_path / "r.html").exit_code == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert not list(tmp_path.glob(".*"))


def test_bench_takes_lists_of_threads_and_batches(run: Run, model: Path, other: Path) -> None:
    args = ["--threads", "1,2", "--batch", "1,4", "--runs", 3, "--warmup", 1, "--json"]
    document = json.loads(run("bench", model, other, *args).stdout)
    settings = [(line["model"], line["threads"], line["batch"]) for line in document["grid"]]
    assert settings == [(str(path), t, b) for t in (1, 2) for b in (1, 4) for path in (model, other)]
    assert all(line["runs"] == 3 and line["median_ms"] > 0 for line in document["grid"])
    assert run("bench", model, "--threads", "1,x").exit_code == 2


def test_the_first_layer_that_differs_is_found(run: Run, model: Path) -> None:
    proto = onnx.load(model)
    weight = next(t for t in proto.graph.initializer if t.name == proto.graph.node[2].input[1] or len(t.dims) == 4)
    node = next(n for n in proto.graph.node if weight.name in n.input)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] += 1.0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    broken = model.with_name("broken.onnx")
    onnx.save(proto, broken)
    result = run("validate", model, broken, "--layer-sqnr", 40, "--threads", 1, "--json")
    assert result.exit_code == 3 and f"'{node.name}'" in result.stderr
    document = json.loads(result.stdout)
    names = [layer["name"] for layer in document["compared_layers"]]
    assert document["first_below"]["name"] == node.name in names and len(names) >= len(proto.graph.node) - 2
    same = run("validate", model, model, "--layers", "--layer-sqnr", 40, "--threads", 1, "--json")
    assert same.exit_code == 0 and json.loads(same.stdout)["first_below"] is None


def test_layers_of_a_pruned_and_of_a_quantized_model_are_matched(run: Run, model: Path) -> None:
    run("prune", model, "--ratio", 0.5, "-o", model.with_name("p.onnx"), "--align", 1)
    run("quantize", model, "--mode", "static", "-o", model.with_name("q.onnx"), "--no-latency")
    pruned = json.loads(run("validate", model, model.with_name("p.onnx"), "--layers", "--json").stdout)
    assert any("shapes" in layer for layer in pruned["compared_layers"])
    cut = [layer for layer in pruned["compared_layers"] if "kept" in layer]
    assert cut and all(layer["kept"][0] < layer["kept"][1] and layer["sqnr_db"] is not None for layer in cut)
    quantized = json.loads(run("validate", model, model.with_name("q.onnx"), "--layers", "--json").stdout)
    convolutions = [layer for layer in quantized["compared_layers"] if layer["operator"] == "Conv"]
    assert convolutions and all(15 < layer["sqnr_db"] < 80 for layer in convolutions)


@pytest.mark.parametrize("source", ["record", "plan", "values"])
def test_kept_channels_of_a_prune_without_refit_are_what_they_were(
    run: Run, model: Path, tmp_path: Path, source: str
) -> None:
    """The first layer reads the input, so each of its channels gives what it gave, whoever tells which are left."""
    networks.store(networks.convnet(width=16), model)
    plan, pruned = tmp_path / "plan.json", tmp_path / "p.onnx"
    more = [] if source == "record" else ["--no-provenance"]
    made = run("prune", model, "--ratio", 0.5, "--compensate", "none", "-o", pruned, "--plan", plan, *more)
    assert made.exit_code == 0, made.output
    with_plan = ["--layer-plan", plan] if source == "plan" else []
    told = run("validate", model, pruned, "--layers", *with_plan, "--threads", 1, "--report", tmp_path / "r.json")
    assert told.exit_code == 0 and "8 of 16 channels" in told.output, told.output
    layers = json.loads((tmp_path / "r.json").read_text())["compared_layers"]
    first = next(layer for layer in layers if layer["operator"] == "Conv")
    assert first["kept"] == [8, 16] and first["sqnr_db"] > 100
    assert all(layer["sqnr_db"] is not None for layer in layers)


def test_a_plan_of_layers_is_refused_without_layers(run: Run, model: Path, tmp_path: Path) -> None:
    refused = run("validate", model, model, "--layer-plan", tmp_path / "plan.json")
    assert refused.exit_code == 2 and "--layers" in refused.stderr
    missing = run("validate", model, model, "--layers", "--layer-plan", tmp_path / "plan.json")
    assert missing.exit_code == 2 and missing.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "code"),
    [(["logits:1e9"], 0), (["1e-9"], 3), (["1e-9", "logits:1e9"], 0), (["nothing:1"], 2), (["logits:-1"], 2)],
)
def test_tolerances_are_kept_or_end_with_code_3(
    run: Run, model: Path, other: Path, given: list[str], code: int
) -> None:
    args = [word for item in given for word in ("--tolerance", item)]
    result = run("validate", model, other, *args, "--threads", 1, "-q")
    assert result.exit_code == code, result.stderr


def ending_in(*operators: tuple[str, list[str]]) -> onnx.ModelProto:
    """Return the convnet with two more operators behind its logits, which read "zero" and "one"."""
    proto = networks.convnet()
    proto.graph.node[-1].output[0] = "raw"
    for name, value in {"zero": 0.0, "one": 1.0}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full(10, value, np.float32), name))
    for (operator, inputs), output in zip(operators, ("a", "b", "logits"), strict=True):
        proto.graph.node.append(onnx.helper.make_node(operator, inputs, [output]))
    return proto


NO_NUMBERS = {
    "nan": [("Mul", ["raw", "zero"]), ("Sub", ["a", "one"]), ("Log", ["b"])],
    "infinite": [("Mul", ["raw", "zero"]), ("Identity", ["a"]), ("Reciprocal", ["b"])],
    "root": [("Mul", ["raw", "zero"]), ("Sub", ["a", "one"]), ("Sqrt", ["b"])],
}


def overflowing() -> onnx.ModelProto:
    """Return the convnet with a normalisation in it that goes beyond half precision."""
    proto = networks.convnet()
    vectors = {"huge": 1e6, "shift": 2e5, "nothing": 0.1, "one": 1.0}
    for name, value in vectors.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full(32, value, np.float32), name))
    proto.graph.node[0].output[0] = "raw"
    norm = onnx.helper.make_node("BatchNormalization", ["raw", "huge", "shift", "nothing", "one"], ["c1"])
    proto.graph.node.insert(1, norm)
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1e-6), "w2"))
    return proto


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_values_that_are_no_numbers_are_never_equal(run: Run, tmp_path: Path, kind: str) -> None:
    path = networks.store(ending_in(*NO_NUMBERS[kind]), tmp_path / "m.onnx")
    result = run("validate", path, path, "--json", "--threads", 1)
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["verdict"]["status"] == "failed"
    assert "NaN or infinite" in document["verdict"]["reasons"][0] and "both models" in document["verdict"]["reasons"][0]
    for gate in (["--min-cosine", -1], ["--min-sqnr", -300], ["--min-agreement", 0], ["--strict"]):
        assert run("validate", path, path, *gate, "--threads", 1).exit_code == 3, gate


def test_half_precision_that_would_overflow_stays_in_float32(run: Run, tmp_path: Path) -> None:
    path = networks.store(overflowing(), tmp_path / "m.onnx")
    result = run("quantize", path, "--mode", "fp16", "-o", tmp_path / "half.onnx", "--no-latency")
    assert result.exit_code == 0 and "stay float32" in result.stderr
    compared = run("validate", path, tmp_path / "half.onnx", "--min-cosine", 0.999)
    assert compared.exit_code == 0, compared.output


@pytest.mark.parametrize(("which", "status"), [("other", "poor"), ("model", "good")])
def test_a_verdict_is_said_first_and_a_poor_one_fails_only_a_strict_run(
    run: Run, model: Path, other: Path, tmp_path: Path, which: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    np.save(tmp_path / "data.npy", np.random.default_rng(0).standard_normal((24, 3, 12, 12)).astype(np.float32))
    args = ["validate", model, {"model": model, "other": other}[which], "--data", tmp_path / "data.npy", "--threads", 1]
    result = run(*args)
    assert result.exit_code == 0 and result.stdout.startswith(f"Verdict: {status}.") and "24 samples" in result.stdout
    assert run(*args, "--strict").exit_code == (3 if status == "poor" else 0)
    monkeypatch.setenv("CI", "true")
    assert run(*args).exit_code == (3 if status == "poor" else 0)
    assert run(*args, "--no-strict").exit_code == 0


def test_made_up_inputs_judge_nothing(run: Run, model: Path, other: Path) -> None:
    result = run("validate", model, other, "--threads", 1, "--strict")
    assert result.exit_code == 0 and result.stdout.startswith("Verdict: not judged.")


def test_a_report_has_them_and_the_page_shows_them(run: Run, model: Path, data: Path) -> None:
    proto = networks.convnet(seed=3, width=16)
    proto.graph.node[-1].output[0] = "scores"
    proto.graph.node.append(onnx.helper.make_node("Softmax", ["scores"], ["logits"]))
    networks.store(proto, model)
    words = ("--data", data, "--ratio", 0.75, "--align", 1, "--compensate", "none", "--no-strict")
    page = model.with_name("r.html")
    told = json.loads(run("prune", model, *words, "--report", page, "--json").stdout)
    shown = told["decisions"]["shown"]
    assert 0 < len(shown) == told["decisions"]["changed"]["logits"] and shown[0]["before"] != shown[0]["after"]
    confidences = [line["confidence"][0] for line in shown]
    assert confidences == sorted(confidences, reverse=True)
    assert page.read_text().count("<img ") == len(shown) and "Decisions that changed" in page.read_text()
