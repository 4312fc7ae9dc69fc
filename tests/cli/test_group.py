"""The command line as a whole: its commands, how fast it answers, and how every error becomes one line and a code."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from onnxprune.cli import group
from onnxprune.errors import GateError, NothingToPruneError
from tests.cli.conftest import Run

PYTHON = [sys.executable, "-m", "onnxprune"]


def test_help_lists_every_command_with_its_first_line(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("apply", "bench", "inspect", "prune", "validate"):
        assert any(line.split()[0] == name and len(line.split()) > 2 for line in result.stdout.splitlines() if line)


def test_help_answers_without_what_takes_long_to_import() -> None:
    code = (
        "import sys; from onnxprune.cli.group import cli; cli.main(['--help'], standalone_mode=False);"
        "print([m for m in 'onnx numpy onnxruntime rich yaml'.split() if m in sys.modules], len(sys.modules) < 400)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[] True"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["prune", "missing.onnx", "--wrong"], "--wrong"),
        (["inpsect", "m.onnx"], "did you mean 'inspect'"),
        (["inspect"], "MODEL"),
        (["m.onnx", "--steps", "1000000000"], "1<=x<=1000000"),
        (["m.onnx", "--memory", "2"], "from 1MB"),
        (["tune", "m.onnx", "--workers", "100000"], "1<=x<=256"),
        (["bench", "m.onnx", "--batch", "1000000"], "from 1 to 65536"),
        (["missing.onnx"], "'missing.onnx' does not exist"),
        (["inspect", "missing.onnx"], "'missing.onnx' does not exist"),
        (["inspect", "m.onnx", "--input-shape", "x1,3"], "name:1,3,224,224"),
        (["validate", "a.onnx", "b.onnx", "--max-drop", "1"], "--eval"),
        (["validate", "a.onnx", "b.onnx", "--report", "r.txt"], ".json, .html, .md or .xml"),
    ],
)
def test_wrong_usage_ends_with_code_2_and_one_line_that_says_what(run: Run, args: list[str], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr and result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1 and not result.stdout


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12\x07pytorch"])
def test_a_file_that_is_no_model_ends_with_code_2(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    for command in ("inspect", "prune", "bench"):
        result = run(command, path)
        assert result.exit_code == 2 and "broken.onnx" in result.stderr and len(result.stderr.splitlines()) == 1
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (GateError("cosine 0.5"), 3, "cosine 0.5"),
        (NothingToPruneError("all is locked"), 4, "all is locked"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("by zero"), 1, "report it"),
        (OSError(28, "No space left on device"), 2, "No space left"),
    ],
)
def test_every_kind_of_error_has_its_code_and_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(group.Commands, "get_command", lambda *_: failing)
    result = run("inspect")
    assert result.exit_code == code
    assert words in result.stderr and len(result.stderr.splitlines()) == 1


def test_flags_may_stand_before_the_command(run: Run, tmp_path: Path) -> None:
    assert "Traceback" in run("-v", "inspect", tmp_path / "no.onnx").stderr


def test_a_traceback_needs_verbose(run: Run, tmp_path: Path) -> None:
    assert "Traceback" not in run("inspect", tmp_path / "no.onnx").stderr
    assert "Traceback" in run("inspect", "-v", tmp_path / "no.onnx").stderr


def test_help_is_a_command_too(run: Run) -> None:
    assert run("help").stdout == run("--help").stdout
    assert run("help", "bench").stdout == run("bench", "--help").stdout
    assert run("help", "nonsense").exit_code == 2


def test_an_option_of_another_command_is_told_with_its_command(run: Run, model: Path) -> None:
    done = run("prune", model, "--sparsity", 0.5)
    assert done.exit_code == 2 and "belongs to onnxprune sparsify" in done.stderr
    assert "belongs to" not in run("prune", model, "--nonsense", 1).stderr


def test_a_second_model_is_the_output_of_the_default_command(run: Run, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.onnx"
    assert run(model, target, "--ratio", 0.25, "--compensate", "none").exit_code == 0 and target.is_file()
    assert run(model, model).exit_code == 2
    assert run(model, target, "-o", tmp_path / "other.onnx").exit_code == 2
