"""Energy counters: which are counted, over their wraps, and what is shown where none can be read."""

from __future__ import annotations

import json
import time
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from onnxprune.cli.group import cli
from onnxprune.evidence.run_energy import joules_per_run
from onnxprune.hardware import rapl
from onnxprune.hardware.rapl import Counter, energy_meter
from onnxprune.report import figures
from tests.micro.build import Net

RANGE = 262_143_328_850


def zone(root: Path, folder: str, name: str, value: int | None = 0, limit: int = RANGE) -> Path:
    """Make one counter; None: it is there and cannot be read."""
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{limit}\n")
    if value is None:
        (path / "energy_uj").mkdir()  # root reads whatever the mode says, but no folder
    else:
        (path / "energy_uj").write_text(f"{value}\n")
    return path / "energy_uj"


def test_packages_and_memory_are_counted_and_nothing_twice(tmp_path: Path) -> None:
    one, two = zone(tmp_path, "intel-rapl:0", "package-0", 100), zone(tmp_path, "intel-rapl:1", "package-1", 50)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 7)
    others = [
        zone(tmp_path, folder, name)
        for folder, name in (
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:1:0", "uncore"),
            ("intel-rapl:2", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
        )
    ]
    (tmp_path / "intel-rapl").mkdir()  # the driver itself, without a counter
    meter = energy_meter(tmp_path)
    assert meter is not None and meter.names == "package-0 + dram + package-1"
    assert meter.read() == 0
    one.write_text("1000100\n"), two.write_text("500050\n"), memory.write_text("250007\n")
    for other in others:
        other.write_text("9000000\n")
    assert meter.read() == pytest.approx(1.75)
    one.write_text("2000100\n")
    assert meter.read() == pytest.approx(2.75)


def test_a_counter_that_starts_again_is_followed(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 900_000, limit=1_000_000)
    meter = energy_meter(tmp_path)
    assert meter is not None
    meter.read()
    for value, total in ((200_000, 0.3), (150_000, 1.25), (150_000, 1.25)):
        path.write_text(str(value))
        assert meter.read() == pytest.approx(total)


@pytest.mark.parametrize("made", ["nothing", "unreadable", "memory alone", "damaged", "platform alone"])
def test_without_a_package_that_can_be_read_there_is_no_meter(tmp_path: Path, made: str) -> None:
    root = tmp_path / "powercap"
    if made == "unreadable":
        zone(root, "intel-rapl:0", "package-0", None)
    elif made == "memory alone":
        zone(root, "intel-rapl:0", "package-0", None)
        zone(root, "intel-rapl:0:0", "dram")
    elif made == "damaged":
        zone(root, "intel-rapl:0", "package-0").write_text("\n")
    elif made == "platform alone":
        zone(root, "intel-rapl:1", "psys")
    assert energy_meter(root) is None


def test_joules_are_those_of_one_run_in_the_median_of_the_turns(tmp_path: Path) -> None:
    path, now = zone(tmp_path, "intel-rapl:0", "package-0"), [0.0]

    def work(seconds: float, watts: float) -> None:
        now[0] += seconds
        path.write_text(str(int(path.read_text()) + round(1e6 * seconds * watts)))

    meter = energy_meter(tmp_path)
    assert meter is not None
    calls = [lambda: work(0.01, 5), lambda: work(0.02, 10)]
    found = joules_per_run(calls, meter, window=0.1, clock=lambda: now[0])
    assert found == pytest.approx([0.05, 0.2])
    assert joules_per_run([lambda: work(0.01, 0)], meter, window=0.1, clock=lambda: now[0]) is None
    path.unlink()
    path.mkdir()
    assert joules_per_run(calls, meter, window=0.1, clock=lambda: now[0]) is None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = Net()
    net.output(net.gemm(net.Relu(net.gemm(net.input("n", 128), 128, 128)), 128, 64))
    onnx.save(net.model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


WORDS = ("--runs", "3", "--warmup", "1", "--threads", "1")


def test_bench_shows_what_was_measured_beside_the_estimate(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    monkeypatch.setattr(rapl, "ROOT", tmp_path / "powercap")
    monkeypatch.setattr(Counter, "read", lambda self: round(1e6 * time.perf_counter()))  # one watt
    result = CliRunner().invoke(cli, ["bench", str(model), *WORDS, "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    joules, milliseconds = (found["latency"][str(model)][key] for key in ("joules", "median_ms"))
    assert 0.2 < joules / (1e-3 * milliseconds) < 5
    assert found["energy"]["measured"].startswith("package-0") and 0 < found["energy"]["estimates"][str(model)] < 1
    shown = CliRunner().invoke(cli, ["bench", str(model), *WORDS]).output
    assert "energy, measured" in shown and "estimate" in shown


def test_bench_shows_nothing_where_no_counter_can_be_read(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapl, "ROOT", tmp_path / "powercap")
    result = CliRunner().invoke(cli, ["bench", str(model), *WORDS, "--json"])
    found = json.loads(result.stdout)
    assert "energy" not in found and "joules" not in found["latency"][str(model)]


def test_a_report_of_two_models_that_were_timed_shows_both(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    monkeypatch.setattr(rapl, "ROOT", tmp_path / "powercap")
    monkeypatch.setattr(Counter, "read", lambda self: round(1e6 * time.perf_counter()))
    words = ["quantize", str(model), "--mode", "dynamic", "--threads", "1", "-o", str(tmp_path / "small.onnx")]
    result = CliRunner().invoke(cli, words)
    assert "energy (estimate)" in result.output and "energy (measured)" in result.output


@pytest.mark.parametrize(("value", "text"), [(12.4e-6, "12.4 uJ"), (3.14e-3, "3.14 mJ"), (1.5, "1.5 J"), (0, "0 uJ")])
def test_energies_are_written_with_their_unit(value: float, text: str) -> None:
    assert figures.joules(value) == text
