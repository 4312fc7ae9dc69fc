"""The examples of the pages about data run as they stand."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from onnxprune.cli.group import cli
from tests import networks

ROOT = Path(__file__).parent.parent
PAGES = ["data.md", "validate.md"]


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [line.removeprefix("onnxprune ") for line in lines if line.startswith("onnxprune ")]
    # a latency depends on what else runs here: tests/methods/test_latency.py has a clock that counts
    return [line for line in found if "--latency" not in line]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    shutil.copy(ROOT / "models/trained/fm_rnn/model.onnx", tmp_path / "model.onnx")
    with np.load(ROOT / "models/data/fmnist_calib.npz") as data:
        np.savez(tmp_path / "calib.npz", **{name: data[name][:32] for name in data.files if not name.startswith("_")})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_run_one_after_the_other(desk: Path, page: str) -> None:
    assert commands(page)
    for command in commands(page):
        result = CliRunner().invoke(cli, shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}"


def test_a_python_caller_that_must_outlive_a_crash_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = networks.store(networks.convnet(), tmp_path / "model.onnx").parent
    monkeypatch.chdir(desk)
    script = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reading.md").read_text(), re.DOTALL)[-1]
    (desk / "caller.py").write_text(script)
    done = subprocess.run([sys.executable, "caller.py"], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (desk / "small.onnx").stat().st_size < (desk / "model.onnx").stat().st_size
    dying = script.replace("onnxprune.save(", "import os\n    os.abort()\n    onnxprune.save(")
    (desk / "caller.py").write_text(dying)
    done = subprocess.run([sys.executable, "caller.py"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and done.stdout == "onnxruntime crashed on this model\n", done
