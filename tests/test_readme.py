"""The README's examples run as they stand."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from onnxprune.cli.group import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.removeprefix("onnxprune ")
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("onnxprune ")
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    shutil.copy(ROOT / "models/trained/fm_rnn/model.onnx", tmp_path / "model.onnx")
    with np.load(ROOT / "models/data/fmnist_calib.npz") as data:
        np.savez(tmp_path / "calib.npz", **{name: data[name][:32] for name in data.files if not name.startswith("_")})
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run_one_after_the_other(desk: Path) -> None:
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        result = CliRunner().invoke(cli, shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert (desk / "half.onnx").read_bytes() != (desk / "model.onnx").read_bytes()


def test_the_python_example_runs(desk: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert (desk / "pruned.onnx").stat().st_size < (desk / "model.onnx").stat().st_size


def test_the_first_command_names_files_that_are_shipped() -> None:
    (command,) = re.findall(r"^python3 -m venv.*$", TEXT, re.MULTILINE)
    files = re.findall(r"models/[\w./]+", command)
    assert len(files) == 3
    assert all((ROOT / name).exists() for name in files)
