"""onnxprune bench and prune with times of other machines, from the command line and from recipes."""

import json
import sys
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Run
from tests.devices import padded
from tests.devices.wide import wide

COMMAND = f"{sys.executable} {padded.__file__} {{models}}"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(wide(), "net.onnx")
    return tmp_path


def test_files_of_times_are_compared(run: Run, desk: Path) -> None:
    Path("before.txt").write_text("P50 Latency: 0.008 s\nAverage inference time cost: 8.1 ms\n")
    Path("after.txt").write_text("[ INFO ] Latency:\n[ INFO ]    Median:        5.00 ms\n")
    result = run("bench", "--times", "before.txt", "--times", "after.txt", "--json")
    assert result.exit_code == 0, result.stderr
    latency = json.loads(result.stdout)["latency"]
    assert [values["median_ms"] for values in latency.values()] == [8.0, 5.0]
    assert list(latency) == ["before.txt", "after.txt"]


def test_a_prune_for_another_machine_is_the_same_from_a_recipe(run: Run, desk: Path) -> None:
    words = ["--latency", "0.6", "--compensate", "none", "--latency-command", COMMAND]
    result = run("prune", "net.onnx", *words, "-o", "a.onnx", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["latency_share"]["where"] == f"command {COMMAND}"
    recipe = {
        "model": "net.onnx",
        "latency_command": COMMAND,
        "steps": [{"prune": {"latency": 0.6, "compensate": "none"}}],
    }
    Path("recipe.json").write_text(json.dumps(recipe))
    assert run("run", "recipe.json", "-o", "b.onnx").exit_code == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    again = run("prune", "net.onnx", *words, "--print-recipe", "--json")
    assert json.loads(again.stdout)["latency_command"] == COMMAND


def test_a_time_is_asked_for_in_a_recipe_as_on_the_command_line(run: Run, desk: Path) -> None:
    half = f"{padded.milliseconds(onnx.load('net.onnx')) / 2:.3f}ms"
    words = ["--latency", half, "--compensate", "none", "--latency-command", COMMAND]
    assert run("prune", "net.onnx", *words, "-o", "a.onnx").exit_code == 0
    Path("recipe.yaml").write_text(
        f"model: net.onnx\nlatency_command: {json.dumps(COMMAND)}\n"
        f"steps: [prune: {{latency: {half}, compensate: none}}]\n"
    )
    assert run("run", "recipe.yaml", "-o", "b.onnx").exit_code == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["bench"], "name one or more"),
        (["bench", "--times", "nothing.txt"], "cannot be read"),
        (["bench", "--times", "net.onnx"], "no time was found"),
        (["bench", "net.onnx", "--latency-command", "false {model}"], "failed with exit code 1"),
        (["bench", "net.onnx", "--latency-command", "echo 1 {model}", "--batch", "4"], "leave --batch"),
        (["bench", "net.onnx", "--device", "ssh://127.0.0.1:9"], "does not answer"),
        (["prune", "net.onnx", "--latency", "5s"], "5ms"),
        (["prune", "net.onnx", "--latency", "0.5", "--latency-command", "echo none {model}"], "no time was found"),
        (["prune", "net.onnx", "--latency", "0.5", "--device", "ssh://127.0.0.1:9"], "does not answer"),
    ],
)
def test_what_goes_wrong_is_one_line_and_writes_nothing(run: Run, desk: Path, words: list[str], why: str) -> None:
    before = sorted(desk.iterdir())
    result = run(*words)
    assert result.exit_code == 2
    assert why in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(desk.iterdir()) == before
