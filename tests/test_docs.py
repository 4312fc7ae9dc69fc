"""The examples of the pages run as they stand, in their order."""

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
PAGES = ["data.md", "validate.md", "index.md", "choose.md", "guides.md", "faq.md", "api.md"]


def examples(page: str) -> list[tuple[str, str]]:
    """Return (language, text) of every command and every piece of Python."""
    found: list[tuple[str, str]] = []
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
        if language == "python":
            found.append((language, block))
            continue
        lines = block.replace("\\\n", " ").splitlines()
        # a latency depends on what else runs here: tests/methods/test_latency.py has a clock that counts
        found += [("sh", line) for line in lines if line.startswith("onnxprune ") and "--latency" not in line]
    return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    shutil.copy(ROOT / "models/trained/fm_rnn/model.onnx", tmp_path / "model.onnx")
    with np.load(ROOT / "models/data/fmnist_calib.npz") as data:
        np.savez(tmp_path / "calib.npz", **{name: data[name][:32] for name in data.files if not name.startswith("_")})
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run_one_after_the_other(desk: Path, page: str) -> None:
    assert examples(page)
    for language, text in examples(page):
        if language == "python":
            exec(compile(text, page, "exec"), {"__name__": "__main__"})
            continue
        result = CliRunner().invoke(cli, shlex.split(text.removeprefix("onnxprune ")))
        assert result.exit_code == 0, f"{text}\n{result.output}"


def test_every_page_is_in_the_site() -> None:
    named = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


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
