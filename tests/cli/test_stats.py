"""onnxprune stats: collect, merge, and use what was collected."""

from pathlib import Path

import numpy as np
import pytest

from tests import networks
from tests.cli.conftest import Run

VALUES = np.random.default_rng(4).standard_normal((60, 3, 12, 12)).astype(np.float32)


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    networks.store(networks.convnet(width=16), tmp_path / "net.onnx")
    networks.store(networks.convnet(1, width=16), tmp_path / "other.onnx")
    for name, part in (("a", VALUES[:30]), ("b", VALUES[30:]), ("ab", VALUES)):
        np.savez(tmp_path / f"{name}.npz", x=part)
    return tmp_path


def test_merged_files_have_the_bytes_of_one_command(run: Run, shards: Path) -> None:
    for name in ("a", "b", "ab"):
        assert run("stats", "net.onnx", "--data", f"{name}.npz", "--shard", "30", "-o", f"{name}.stats").exit_code == 0
    result = run("stats", "merge", "a.stats", "b.stats", "-o", "all.stats")
    assert result.exit_code == 0
    assert "all.stats: 60 samples in 2 shards" in result.stdout
    assert (shards / "all.stats").read_bytes() == (shards / "ab.stats").read_bytes()
    result = run("prune", "net.onnx", "--stats", "all.stats", "--ratio", "0.5", "-o", "small.onnx")
    assert result.exit_code == 0, result.stderr
    recipe = "model: net.onnx\nsteps: [prune: {ratio: 0.5, stats: all.stats}]\n"
    (shards / "recipe.yaml").write_text(recipe)
    assert run("run", "recipe.yaml", "-o", "again.onnx").exit_code == 0
    assert (shards / "small.onnx").read_bytes() == (shards / "again.onnx").read_bytes()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["net.onnx"], "give --data"),
        (["net.onnx", "a.stats"], "give one model"),
        (["merge", "a.stats"], "name where the sum goes"),
        (["merge", "a.stats", "--data", "a.npz", "-o", "c.stats"], "leave --data out"),
        (["merge", "a.stats", "a.stats", "-o", "c.stats"], "'a.stats' has samples that 'a.stats' has too"),
        (
            ["merge", "a.stats", "o.stats", "-o", "c.stats"],
            "'a.stats' and 'o.stats' are statistics of different models",
        ),
        (["merge", "a.stats", "net.onnx", "-o", "c.stats"], "'net.onnx' is no file of statistics"),
        (["merge", "a.stats", "b.stats", "-o", "a.stats"], "a.stats"),
        (["net.onnx", "--data", "a.npz", "-o", "a.npz"], "a.npz"),
        (["net.onnx", "--data", "a.npz", "-o", "net.onnx"], "net.onnx"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_writes_nothing(run: Run, shards: Path, words: list[str], why: str) -> None:
    run("stats", "net.onnx", "--data", "a.npz", "-o", "a.stats")
    run("stats", "other.onnx", "--data", "a.npz", "-o", "o.stats")
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    result = run("stats", *words)
    assert result.exit_code == 2
    assert why in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before


def test_statistics_are_no_output(run: Run, shards: Path) -> None:
    run("stats", "net.onnx", "--data", "a.npz", "-o", "a.onnx")
    result = run("prune", "net.onnx", "--stats", "a.onnx", "-o", "a.onnx")
    assert result.exit_code == 2
    assert "a.onnx" in result.stderr
