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
from tests import keys, networks

ROOT = Path(__file__).parent.parent
PAGES = ["data.md", "validate.md", "index.md", "choose.md", "guides.md", "faq.md", "api.md"]
"""Pages whose model is a trained recurrent network."""
CONVOLUTIONS = ["reports.md", "quantize.md", "finetune.md", "sparsify.md", "factorize.md"]
"""Pages whose model is a small convolutional network."""
ELSEWHERE = {"trim.md": "tests/trimming/test_stories.py", "reading.md": "below", "depth.md": "below"}
ENDS = {"onnxprune diff": 1}
"""Exit codes besides 0: two models that differ."""
BUDGET = re.compile(r"--effort (thorough|\d+[hms])")
"""Time that nobody waits for here."""


def examples(page: str) -> list[tuple[str, str]]:
    """Return (language, text) of every command and every piece of Python."""
    found: list[tuple[str, str]] = []
    text = (ROOT / "docs" / page).read_text()
    for language, block in re.findall(r"```(sh|python|console)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            found.append((language, block))
            continue
        lines = [line.removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]
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


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a convolutional network, its halves and plan, inputs, labels and keys."""
    networks.store(networks.convnet(width=32), tmp_path / "model.onnx")
    chance = np.random.default_rng(0)
    samples = chance.standard_normal((32, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=samples)
    np.save(tmp_path / "x.npy", samples)
    np.save(tmp_path / "y.npy", chance.integers(0, 10, 32))
    monkeypatch.chdir(tmp_path)
    half = "prune model.onnx --ratio 0.5 --compensate none --no-verify"
    for more in ("--plan plan.json -o model-pruned.onnx", "-o small.onnx"):
        assert CliRunner().invoke(cli, [*half.split(), *more.split()]).exit_code == 0
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run_one_after_the_other(desk: Path, page: str) -> None:
    carry_out(page)


@pytest.mark.parametrize("page", CONVOLUTIONS)
def test_the_examples_run_on_a_convolutional_network(bench: Path, page: str) -> None:
    if page == "reports.md":
        private, public = keys.pair(bench)
        private.rename("private.pem"), public.rename("public.pem")
    carry_out(page)


def test_the_examples_on_branches_run(desk: Path) -> None:
    shutil.copy(ROOT / "models/trained/fm_vit/model.onnx", desk / "model.onnx")
    (desk / "calib.npz").rename(desk / "samples.npz")
    carry_out("depth.md", more=("--samples", "8"))


def carry_out(page: str, more: tuple[str, ...] = ()) -> None:
    """Run the examples of a page; `more` is added where a command reads data."""
    assert examples(page)
    for language, text in examples(page):
        if language == "python":
            exec(compile(text, page, "exec"), {"__name__": "__main__"})
            continue
        words = shlex.split(BUDGET.sub("--effort 1s", text).removeprefix("onnxprune "))
        words += more if "--data" in words else ()
        words += ("--effort", "1s") if words[0] == "finetune" and "--effort" not in words else ()
        result = CliRunner().invoke(cli, words)
        expected = next((code for start, code in ENDS.items() if text.startswith(start)), 0)
        assert result.exit_code == expected, f"{text}\n{result.output}"


def test_every_page_with_commands_is_run_somewhere() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md") if "```sh" in path.read_text() or examples(path.name)}
    assert pages == {*PAGES, *CONVOLUTIONS, *ELSEWHERE}


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
