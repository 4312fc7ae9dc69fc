"""No output is a file that the command reads; all outputs appear, or none."""

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import networks
from tests.cli.conftest import Run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model with external weights and everything else that a command may read."""
    onnx.save(
        networks.convnet(width=16),
        tmp_path / "net.onnx",
        save_as_external_data=True,
        location="net.data",
        size_threshold=0,
    )
    folder = tmp_path / "data" / "deep"
    folder.mkdir(parents=True)
    for number in range(2):
        feed = np.random.default_rng(number).standard_normal((4, 3, 12, 12)).astype(np.float32)
        np.savez(folder / f"{number}.npz", x=feed)
    (tmp_path / "judge.py").write_text("import other\ndef value(path):\n    return 1.0\n")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "ratios.json").write_text(json.dumps({"conv*": 0.5}))
    (tmp_path / "recipe.yaml").write_text("model: net.onnx\nsteps:\n  - prune: {ratio: 0.5, compensate: none}\n")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


PRUNE = "prune net.onnx --compensate none --no-verify"
TUNE = "tune net.onnx --data data --min-cosine 0 --compensate none"
CASES = [
    f"{PRUNE} --plan net.data",
    f"{PRUNE} -o net.data",
    f"{PRUNE} --report soft.json",
    f"{PRUNE} --plan hard.json",
    f"{PRUNE} --data data --report data/deep/link.json",
    f"{PRUNE} --data data/deep/1.npz -o data/deep/1.npz",
    f"{PRUNE} --eval judge.py:value --plan judge.py",
    f"{PRUNE} --eval judge.py:value --plan other.py",
    f"{PRUNE} --group-ratios ratios.json --report ratios.json",
    "run recipe.yaml --no-verify -o recipe.yaml",
    "run recipe.yaml --no-verify --plan net.data",
    "run recipe.yaml --no-verify --data data --report data/deep/link.json",
    "run recipe.yaml --no-verify --keep kept",
    f"{TUNE} --state net.data",
    f"{TUNE} --state data/deep/0.npz",
    f"{TUNE} --state plan.json --plan plan.json",
    "apply net.onnx plan.json --compensate none --no-verify --report plan.json",
    "quantize net.onnx --mode weight-only -o net.data",
    "sparsify net.onnx -o soft.json",
    "factorize net.onnx --report hard.json",
    "validate net.onnx net.onnx --report soft.json",
    "inspect net.onnx --report soft.json",
    "bench net.onnx --runs 1 --report soft.json",
    "sensitivity net.onnx --data data --csv data/deep/0.npz",
    "sensitivity net.onnx --data data --csv net.data --report report.json",
]


@pytest.mark.parametrize("command", CASES)
def test_no_output_may_be_a_file_that_is_read(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(place)
    (place / "soft.json").symlink_to("net.data")
    (place / "hard.json").hardlink_to("net.onnx")
    (place / "data" / "deep" / "link.json").symlink_to("0.npz")
    (place / "kept").mkdir()
    (place / "kept" / "1-prune.onnx").hardlink_to("net.onnx")
    (place / "plan.json").write_text("{}")
    before = contents(place)
    result = run(*command.split())
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr
    assert contents(place) == before


def test_outputs_beside_the_inputs_are_written(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = f"{PRUNE} --data data --eval judge.py:value --group-ratios ratios.json --plan plan.json --report r.json"
    assert run(*words.split()).exit_code == 0
    assert {"net-pruned.onnx", "plan.json", "r.json"} <= set(contents(place))
    report = json.loads((place / "r.json").read_text())
    assert report["output"]["path"].endswith("net-pruned.onnx")
    weights = next(path for path in place.glob("net-pruned.onnx.*.data"))
    assert report["output"]["bytes"] == pytest.approx(
        (place / "net-pruned.onnx").stat().st_size + weights.stat().st_size, rel=0.05
    )


@pytest.mark.parametrize("blocked", ["plan", "report"])
def test_if_one_output_cannot_be_written_there_is_none(run: Run, model: Path, blocked: str) -> None:
    outputs = {"plan": model.with_name("plan.json"), "report": model.with_name("report.json")}
    outputs[blocked] = model.parent / ("n" * 300 + ".json")
    words = [word for name, path in outputs.items() for word in (f"--{name}", path)]
    before = contents(model.parent)
    result = run(model, "--no-verify", "--compensate", "none", *words)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert contents(model.parent) == before


def test_modes_and_links_of_old_outputs_stay(run: Run, model: Path) -> None:
    real = model.with_name("real.onnx")
    shutil.copyfile(model, real)
    real.chmod(0o600)
    link = model.with_name("link.onnx")
    link.symlink_to(real.name)
    plan = model.with_name("plan.json")
    plan.write_text("")
    plan.chmod(0o640)
    assert run(model, "--no-verify", "--compensate", "none", "-o", link, "--plan", plan).exit_code == 0
    assert link.is_symlink() and onnx.load(real).metadata_props
    assert stat.S_IMODE(real.stat().st_mode) == 0o600 and stat.S_IMODE(plan.stat().st_mode) == 0o640


@pytest.mark.parametrize("option", ["-o", "--plan", "--report"])
def test_devices_are_no_outputs(run: Run, model: Path, tmp_path: Path, option: str) -> None:
    link = tmp_path / "null.json"
    link.symlink_to("/dev/null")
    for path in ("/dev/null", link, tmp_path):
        result = run(model, "--no-verify", "--compensate", "none", option, path)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert set(contents(tmp_path)) <= {"net.onnx", "null.json"}


@pytest.mark.parametrize("name", ["a\x1b[31mb.onnx", "\x9b2J.onnx", "\u202egnp.onnx"])
def test_names_reach_the_terminal_spelled_out(run: Run, model: Path, name: str) -> None:
    for path in (model.with_name(name), model.rename(model.with_name(name))):
        result = run("inspect", path)
        assert not any(char in result.output + result.stderr for char in ("\x1b", "\x9b", "\u202e"))
    proto = onnx.load(model.with_name(name))
    proto.graph.node[0].name = name
    onnx.save(proto, model)
    for words in (["inspect", model, "-v"], [model, "--json", "--no-verify"], [model, "-v"]):
        result = run(*words)
        assert result.exit_code == 0
        assert not any(char in result.output + result.stderr for char in ("\x1b", "\x9b"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": ' * 5000,
        '{"format": "onnxprune-plan", "version": 1, '
        '"source_sha256": "", "removed": {"w1": {"0": [' + "9" * 5000 + "]}}}",
    ],
)
def test_deep_and_long_documents_are_refused_in_one_line(run: Run, model: Path, text: str) -> None:
    path = model.with_name("document.json")
    path.write_text(text)
    for words in (["apply", model, path, "--force"], ["run", path], [model, "--group-ratios", path]):
        result = run(*words)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "samples: 1e9",
        "samples: -1",
        "threads: 99999999999999999999",
        "seed: -1",
        "input_shapes: {x: [-1, 3, 12, 12]}",
        "input_shapes: {x: [1, 3, 12, 99999999999]}",
        "gates: {min_cosine: .nan}",
    ],
)
def test_numbers_out_of_range_in_a_recipe_are_refused_or_bounded(run: Run, model: Path, line: str) -> None:
    path = model.with_name("recipe.yaml")
    path.write_text(f"model: net.onnx\n{line}\nsteps:\n  - prune: {{ratio: 0.5, compensate: none}}\n")
    result = run("run", path)
    assert result.exit_code in (0, 2, 3) and "Traceback" not in result.stderr and "defect" not in result.stderr
