"""onnxprune run and --print-recipe: the same model as the commands, exit codes, files."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def recipe(model: Path, text: str) -> Path:
    path = model.with_name("r.yaml")
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "command",
    [("prune", "--ratio", 0.25, "--compensate", "lstsq"), ("quantize", "--mode", "static", "--skip", "conv1")],
)
def test_the_printed_recipe_gives_the_same_bytes_as_the_command(
    run: Run, model: Path, data: Path, command: tuple[object, ...]
) -> None:
    name, *given = command
    args = [name, model, *given, "--data", data, "--threads", 1, "-o", model.with_name("a.onnx")]
    printed = run(*args, "--print-recipe")
    assert printed.exit_code == 0 and not model.with_name("a.onnx").exists()
    report = model.with_name("a.json")
    assert run(*args, "--report", report).exit_code == 0
    path = recipe(model, printed.stdout)
    result = run("run", path, "-o", model.with_name("b.onnx"))
    assert result.exit_code == 0, result.stderr
    assert model.with_name("a.onnx").read_bytes() == model.with_name("b.onnx").read_bytes()
    assert json.loads(report.read_text())["recipe"]["steps"][0].keys() == {name}


def test_steps_are_reported_and_kept_with_paths_relative_to_the_recipe(run: Run, model: Path, data: Path) -> None:
    path = recipe(
        model,
        "model: net.onnx\ndata: data/x.npz\nthreads: 1\nsteps:\n"
        "- prune: {ratio: 0.25, compensate: lstsq}\n- quantize: {mode: static}\n"
        "gates: {min_cosine: 0.1}\noutputs: {output: o.onnx, report: o.json, plan: p.json, intermediates: steps}\n",
    )
    result = run("run", path, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(model.with_name("o.json").read_text())
    assert document == json.loads(result.stdout)
    assert [item["step"] for item in document["steps"]] == ["prune", "quantize"]
    assert document["steps"][0]["params"] < document["input"]["params"]
    assert document["output"]["bytes"] == model.with_name("o.onnx").stat().st_size < document["input"]["bytes"]
    assert {item.name for item in (model.parent / "steps").iterdir()} == {"1-prune.onnx", "2-quantize.onnx"}
    assert json.loads(model.with_name("p.json").read_text())["format"] == "onnxprune-plan"


@pytest.mark.parametrize("keep", [False, True])
def test_a_failed_gate_ends_with_code_3_and_keeps_the_last_good_model_if_asked(
    run: Run, model: Path, data: Path, keep: bool
) -> None:
    text = "model: net.onnx\nthreads: 1\nsteps:\n- prune: {ratio: 0.25}\n"
    path = recipe(model, f"{text}- prune: {{ratio: 0.5, gates: {{min_sqnr: 280}}}}\noutputs: {{output: o.onnx}}\n")
    result = run("run", path, *["--keep-last-good"][: int(keep)])
    assert result.exit_code == 3 and "step 2 (prune)" in result.stderr, result.stderr
    assert model.with_name("o.onnx").exists() is keep
    if keep:
        assert run("run", recipe(model, text), "-o", model.with_name("one.onnx")).exit_code == 0
        assert model.with_name("o.onnx").read_bytes() == model.with_name("one.onnx").read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: [prune]\n", "--model"),
        ("model: net.onnx\nsteps:\n- prune: {ratoi: 1}\n", "r.yaml:3:"),
        ("model: none.onnx\nsteps: [prune]\n", "none.onnx"),
        ("model: net.onnx\ndata: none.npz\nsteps: [prune]\n", "none.npz"),
        ("model: net.onnx\nsteps: [quantize]\noutputs: {plan: p.json}\n", "plan"),
        ("model: net.onnx\nsteps: [prune]\noutputs: {output: net.onnx}\n", "input"),
    ],
)
def test_a_wrong_recipe_ends_with_code_2_one_line_and_no_file(run: Run, model: Path, text: str, words: str) -> None:
    path = recipe(model, text)
    before = set(model.parent.iterdir())
    result = run("run", path)
    assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1
    assert set(model.parent.iterdir()) == before


def test_every_prune_of_a_recipe_is_held_against_the_model_before_it(run: Run, model: Path, data: Path) -> None:
    steps = "threads: 1\nmodel: net.onnx\ndata: data/x.npz\nsteps:\n- prune: {ratio: 0.25, compensate: lstsq}\n"
    steps += "- quantize: {mode: static}\n"
    twice = steps.replace("- quantize: {mode: static}", "- prune: {ratio: 0.3, compensate: lstsq, align: 1}")
    for text, prunes in ((steps, [0]), (twice, [0, 1])):
        result = run("run", recipe(model, text), "-o", model.with_name("o.onnx"), "--json")
        assert result.exit_code == 0, result.stderr
        document = json.loads(result.stdout)
        errors = [item["masked_parity"]["relative_error"] for item in document["steps"] if "masked_parity" in item]
        assert [n for n, item in enumerate(document["steps"]) if "masked_parity" in item] == prunes
        assert all(error < 1e-4 for item in errors for error in item.values())  # float32 over three layers: 1e-6
        assert [f"Step {n + 1}: Masked parity" in document["verdicts"][n] for n in prunes] == [True] * len(prunes)


def test_a_prune_in_a_recipe_that_is_not_the_masked_model_is_a_defect(
    run: Run, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.evidence.oracle.masked_model", lambda channels, keep: channels.model)
    path = recipe(
        model, "threads: 1\nmodel: net.onnx\ndata: data/x.npz\nsteps: [prune: {ratio: 0.5, compensate: lstsq}]\n"
    )
    result = run("run", path, "-o", model.with_name("o.onnx"))
    assert result.exit_code == 1 and "differs from the original with the removed channels zeroed" in result.stderr
    assert not model.with_name("o.onnx").exists()
    assert run("run", path, "-o", model.with_name("o.onnx"), "--no-verify").exit_code == 0
