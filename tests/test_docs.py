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
from tests import decoders, keys, mixtures, networks
from tests.state_space import selective

ROOT = Path(__file__).parent.parent
PAGES = ["data.md", "validate.md", "index.md", "choose.md", "guides.md", "faq.md", "api.md"]
"""Pages whose model is a trained recurrent network."""
CONVOLUTIONS = ["reports.md", "quantize.md", "finetune.md", "sparsify.md", "factorize.md", "targets.md"]
"""Pages whose model is a small convolutional network."""
ELSEWHERE = ["trim.md", "reading.md", "depth.md", "cluster.md", "devices.md", "decoders.md"]
"""Pages that tests/trimming/test_stories.py runs, or a test of their own below."""
ENDS = {"onnxprune diff": 1}
"""Exit codes besides 0: two models that differ."""
ELSEWHERE_RUN = ("--latency", "tcp://", "ssh://")
"""Parts of commands that need a quiet machine (tests/methods/test_latency.py has a clock that counts), or others."""
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
        lines = [line.partition("  #")[0] for line in lines if line.startswith("onnxprune ")]
        found += [("sh", line) for line in lines if not any(part in line for part in ELSEWHERE_RUN)]
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
    if page == "targets.md":
        shutil.copy(ROOT / "models/trained/fm_mbv2/model.onnx", bench / "mobile.onnx")
        networks.store(networks.convnet(width=64), bench / "model.onnx")
    carry_out(page)


def test_the_examples_on_branches_run(desk: Path) -> None:
    shutil.copy(ROOT / "models/trained/fm_vit/model.onnx", desk / "model.onnx")
    (desk / "calib.npz").rename(desk / "samples.npz")
    carry_out("depth.md", more=("--samples", "8"))


def test_the_examples_on_language_models_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    networks.store(decoders.packed(), tmp_path / "decoder.onnx")
    networks.store(selective.step(), tmp_path / "mamba-step.onnx")
    networks.store(mixtures.mixture().model(), tmp_path / "mixture.onnx")
    carry_out("decoders.md")
    (recipe,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "decoders.md").read_text(), re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe)
    result = CliRunner().invoke(cli, ["run", "recipe.yaml", "-o", "again.onnx"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "again.onnx").stat().st_size < (tmp_path / "decoder.onnx").stat().st_size


def test_the_examples_on_statistics_run(bench: Path) -> None:
    for day in ("monday", "tuesday"):
        networks.store(networks.convnet(seed=len(day), width=32), bench / f"{day}.onnx")
    chance = np.random.default_rng(1)
    for number in (1, 2, 3):
        (bench / f"shard-{number}").mkdir()
        np.savez(bench / f"shard-{number}/x.npz", x=chance.standard_normal((16, 3, 12, 12)).astype(np.float32))
        words = ["stats", "model.onnx", "--data", f"shard-{number}", "-o", f"{number}.stats"]
        assert number == 1 or CliRunner().invoke(cli, words).exit_code == 0
    carry_out("cluster.md")


def test_the_examples_of_other_machines_run(bench: Path) -> None:
    """But for those that need a board; tests/devices has one on loopback."""
    for name, time in (("before", 8.0), ("after", 5.0)):
        (bench / f"{name}.txt").write_text(f"{time} ms\n")
    carry_out("devices.md")


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
    texts = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
    assert {name for name, text in texts.items() if "```sh" in text or examples(name)} == {
        *PAGES,
        *CONVOLUTIONS,
        *ELSEWHERE,
    }
    assert [name for name, text in texts.items() if re.search(r"(?m)^    (?:\$ )?onnxprune \w", text)] == []


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
