"""A command of the user's times models, small ones and whole ones, and a target is met where it runs."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnxprune
from onnxprune import Run
from onnxprune.allocate import device_table
from onnxprune.devices.latency_command import LatencyCommand
from onnxprune.errors import DeviceError, NothingToPruneError, UsageError
from tests.devices import padded
from tests.devices.wide import wide

PADDED = f"{sys.executable} {padded.__file__}"
TOLERANCE = 0.03


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(wide(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary files of the test go where it can see them."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def share(model: Path, result: onnxprune.Model) -> float:
    return padded.milliseconds(result.proto) / padded.milliseconds(onnx.load(model))


def test_a_share_is_met_where_the_command_measures_it(model: Path, own_folder: Path) -> None:
    run = Run(latency_command=f"{PADDED} {{models}}")
    found = onnxprune.prune(model, latency=0.6, compensate="none", run=run)
    assert share(model, found.model) == pytest.approx(0.6, abs=TOLERANCE)
    assert found.latency.share == pytest.approx(share(model, found.model), rel=1e-3)
    assert list(own_folder.iterdir()) == []


def test_a_time_is_met_as_well_as_a_share(model: Path) -> None:
    now = padded.milliseconds(onnx.load(model))
    run = Run(latency_command=f"{PADDED} {{models}}")
    found = onnxprune.prune(model, latency=f"{now / 2:.3f}ms", compensate="none", run=run)
    assert share(model, found.model) == pytest.approx(0.5, abs=TOLERANCE)
    with pytest.raises(NothingToPruneError, match="no more than the"):
        onnxprune.prune(model, latency=f"{2 * now:.3f}ms", compensate="none", run=run)


def test_layers_are_timed_in_one_call_and_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, script = tmp_path / "calls", tmp_path / "logged.py"
    script.write_text(
        f"import sys, runpy\nopen({str(log)!r}, 'a').write(f'{{len(sys.argv) - 1}}\\n')\n"
        f"runpy.run_path({padded.__file__!r}, run_name='__main__')\n"
    )
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    counts = []
    for again in range(2):
        # another text, so that nothing is remembered but what is kept on disk under the command
        run = Run(latency_command=f"{sys.executable} {script} {{models}}", latency_timeout=60 + again)
        onnxprune.prune(model, latency=0.6, compensate="none", run=run)
        counts.append([int(line) for line in log.read_text().split()])
        log.write_text("")
    layers = [count for count in counts[0] if count > 2]
    assert len(layers) == 1  # one batch; all other calls are of one or two whole models
    assert len(counts[0]) < 12
    assert not [count for count in counts[1] if count > 2]


def test_where_every_model_is_a_call_there_are_few(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_table, "FEW_CALLS", 4)
    calls, one = [], LatencyCommand._one
    monkeypatch.setattr(LatencyCommand, "_one", lambda self, path: calls.append(path) or one(self, path))
    run = Run(latency_command=f"{PADDED} {{model}} ", latency_timeout=61)
    onnxprune.prune(model, latency=0.5, compensate="none", run=run)
    assert len(calls) < 12


def test_bench_times_there_too(model: Path) -> None:
    command = f"{PADDED} {{model}}"
    timings = onnxprune.bench([model, wide((32, 32))], latency_command=command)
    assert [timing.median_ms for timing in timings.values()] == pytest.approx(
        [padded.milliseconds(onnx.load(model)), padded.milliseconds(wide((32, 32)))], rel=1e-3
    )


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3 # {model}", "failed with exit code 3"),
        ("echo 'no board found' >&2; exit 1 # {model}", "no board found"),
        ("echo hello # {model}", "printed 'hello': no time was found"),
        ("echo 1.5 # {models}", "1 lines with times for .* models"),
        ("echo 1e400 # {models}", "1 lines with times for 1 models"),
        ("sleep 60 # {model}", "took longer than 0.5 seconds"),
        ("surely-not-there {model}", "exit code 127"),
    ],
)
def test_a_command_that_fails_is_one_line_and_leaves_nothing(
    model: Path, own_folder: Path, command: str, why: str
) -> None:
    run = Run(latency_command=command, latency_timeout=0.5)
    with pytest.raises(DeviceError, match=why):
        onnxprune.prune(model, latency=0.6, compensate="none", run=run)
    assert list(own_folder.iterdir()) == []


def test_what_a_command_started_ends_with_it(model: Path, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    run = Run(latency_command=f"sleep 300 & echo $! > {mark}; sleep 300 # {{model}}", latency_timeout=0.5)
    with pytest.raises(DeviceError, match="took longer"):
        onnxprune.prune(model, latency=0.6, compensate="none", run=run)
    state = Path(f"/proc/{int(mark.read_text())}/stat")
    end = time.monotonic() + 10
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":  # nobody may have buried it yet
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    "run",
    [
        {"latency_command": "time-it"},
        {"latency_command": "a {model} {models}"},
        {"latency_command": "a {model}", "device": "ssh://board"},
        {"latency_command": 5},
        {"latency_command": "a {model}", "latency_timeout": "long"},
        {"device": 5},
        {"device": "board"},
        {"device": "ssh://"},
        {"device": "ssh://user:secret@board"},
        {"device": "ssh://-oProxyCommand=x"},
        {"device": "ssh://board/path"},
        {"device": "ssh://board?pyhton=x"},
        {"device": "ssh://board:ssh"},
    ],
)
def test_what_makes_no_sense_is_refused(run: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Run(**run)


@pytest.mark.parametrize("latency", ["5", "ms", "-5ms", "0ms", "infms", "nanms", "5s"])
def test_a_latency_is_a_share_or_milliseconds(latency: str) -> None:
    with pytest.raises(UsageError, match="give a share of the original's"):
        onnxprune.PruneOptions(latency=latency)


@pytest.mark.parametrize("step", [("prune", {}), ("prune", {"macs": 0.5}), ("tune", {})])
@pytest.mark.parametrize("where", [{"latency_command": "echo 3 # {model}"}, {"device": "ssh://nobody@nowhere"}])
def test_where_to_measure_is_refused_where_nothing_is_measured(step, where) -> None:
    name, options = step
    with pytest.raises(UsageError, match="no step measures a latency"):
        onnxprune.Job((onnxprune.step(name, **options),), "m.onnx", run=onnxprune.Run(**where))
