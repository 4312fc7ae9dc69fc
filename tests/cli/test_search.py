"""onnxprune sensitivity and tune: tables, bounds that are kept, searches that go on after an interruption."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.evidence.limits import GateLimits
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.tune import tune
from onnxprune.statistics.sources import FileFunction
from tests import networks
from tests.cli.conftest import Run


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs of the small network."""
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((48, 3, 12, 12)).astype(np.float32))
    return path


def width(path: Path) -> int:
    return sum(tensor.dims[0] for tensor in onnx.load(path).graph.initializer if tensor.name in ("w1", "w2"))


def test_sensitivity_lists_every_group_as_table_json_and_csv(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    result = run("sensitivity", model, "--data", data, "--threads", 1, "--json", "--csv", table)
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["sensitivity"]
    assert {row["group"] for row in rows} == {"conv1", "conv2"} and "conv1" in result.stderr
    for row in rows:
        assert 0 < row["error_at_0.1"] < row["error_at_0.9"]
    assert [row["group"] for row in csv.DictReader(table.open())] == [row["group"] for row in rows]
    assert not model.with_name("net-pruned.onnx").exists()


def test_what_matters_more_costs_more(data: Path) -> None:
    proto = networks.convnet()
    weight = next(t for t in proto.graph.initializer if t.name == "w3")
    array = np.array(onnxprune.load(proto).array(weight))
    array[:, 8:] *= 1e-3
    weight.raw_data = array.tobytes()
    costs = {cost.name: cost for cost in onnxprune.sensitivity(proto, data).groups}
    assert costs["conv2"].errors[4] < costs["conv1"].errors[4]


@pytest.mark.parametrize("command", ["sensitivity", "tune"])
def test_data_are_needed(run: Run, model: Path, command: str) -> None:
    result = run(command, model)
    assert result.exit_code == 2 and "--data" in result.stderr


def test_tune_keeps_the_bound_and_shows_the_curve(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    args = ("tune", model, "--data", data, "--threads", 1, "--align", 1, "-o", output, "--json")
    result = run(*args, "--min-sqnr", 45, "--step", 0.2, "--finest", 0.1)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    kept = [point for point in document["curve"] if point["kept"]]
    assert document["parity"]["logits"]["sqnr_db"] >= 45 and width(output) < 64
    assert document["output"]["macs"] / document["input"]["macs"] == pytest.approx(
        min(p["macs"] for p in kept), rel=0.01
    )
    assert any(not point["kept"] for point in document["curve"]) and any(point["pareto"] for point in document["curve"])
    assert not (tmp_path / "out.onnx.tune.json").exists()


def test_a_bound_that_nothing_keeps_writes_nothing_and_says_how_far_it_got(run: Run, model: Path, data: Path) -> None:
    result = run("tune", model, "--data", data, "--threads", 1, "--min-sqnr", 200, "--step", 0.4, "--finest", 0.4)
    assert result.exit_code == 4 and "of the MACs left there is cosine" in result.stderr
    assert [path.name for path in model.parent.glob("net*")] == [model.name]


def test_tune_without_a_bound_is_refused(run: Run, model: Path, data: Path) -> None:
    result = run("tune", model, "--data", data)
    assert result.exit_code == 2 and "bound" in result.stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("1 / 0", "raised ZeroDivisionError"),
        ("return 'good'", "returned 'good', a finite number"),
        ("return None", "returned 'None', a finite number"),
        ("return {'score': 1}", "a finite number is needed"),
        ("return float('nan')", "returned nan"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
    ],
)
def test_an_evaluation_that_raises_or_gives_no_number_ends_it(
    run: Run, model: Path, data: Path, tmp_path: Path, body: str, words: str
) -> None:
    (tmp_path / "judge.py").write_text(f"def judge(path):\n    {body}\n")
    judge = f"{tmp_path / 'judge.py'}:judge"
    result = run("tune", model, "--data", data, "--threads", 1, "--max-drop", 0.1, "--eval", judge)
    assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1
    assert [path.name for path in model.parent.glob("net*")] == [model.name]


def test_an_interrupted_search_goes_on_where_it_was(model: Path, data: Path, tmp_path: Path) -> None:
    state, calls, groups = tmp_path / "state.json", [], []

    def judge(path: str) -> float:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return width(Path(path)) / 64

    settings = {"evaluate": judge, "step": 0.2, "finest": 0.2, "state": state, "progress": groups.append}
    with pytest.raises(KeyboardInterrupt):
        tune(model, data, GateLimits(max_drop=0.5), **settings)
    measured = len(json.loads(state.read_text())["candidates"])
    assert measured == 2 and any("measuring group" in text for text in groups)
    groups.clear()
    found = tune(model, data, GateLimits(max_drop=0.5), **settings)
    assert not any("measuring group" in text for text in groups)
    again = tune(model, data, GateLimits(max_drop=0.5), **{**settings, "state": None})
    assert len(calls) - 4 - (len(again.curve) + 1) == len(again.curve) - measured + 1
    assert found.best == again.best and found.best.drop <= 0.5 and found.curve == again.curve
    assert found.result.model.proto.SerializeToString() == again.result.model.proto.SerializeToString()


def test_a_state_of_another_search_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"format": "onnxprune-tune", "key": [], "candidates": []}')
    with pytest.raises(onnxprune.UsageError, match="another search"):
        tune(model, data, GateLimits(min_cosine=0.9), state=state)


JUDGE = """
import onnx, os, pathlib
def judge(path):
    (pathlib.Path(__file__).parent / f"process-{os.getpid()}").touch()
    return sum(t.dims[0] for t in onnx.load(path).graph.initializer if t.name in ("w1", "w2")) / 64
"""


def test_workers_are_processes_and_find_the_same_model(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    judge = FileFunction(tmp_path / "judge.py", "judge")
    settings = {"evaluate": judge, "step": 0.2, "finest": 0.05, "runtime": Runtime(1)}
    one, three = (tune(model, data, GateLimits(max_drop=0.4), workers=n, **settings) for n in (1, 3))
    assert len(list(tmp_path.glob("process-*"))) >= 3
    assert one.best == three.best and one.curve == three.curve and len(one.curve) > 3
    assert one.result.model.proto.SerializeToString() == three.result.model.proto.SerializeToString()
    assert not multiprocessing.active_children()


def test_an_error_in_a_process_is_the_same_one_line(model: Path, data: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "judge.py").write_text("def judge(path):\n    return 1.0 if path.endswith('net.onnx') else 1 / 0\n")
    args = ("tune", model, "--data", data, "--threads", 1, "--max-drop", 0.1, "--workers", 2)
    result = run(*args, "--eval", f"{tmp_path / 'judge.py'}:judge")
    assert result.exit_code == 2 and "raised ZeroDivisionError" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_function_that_cannot_be_sent_is_refused(model: Path, data: Path) -> None:
    with pytest.raises(onnxprune.UsageError, match="cannot be sent to other processes"):
        tune(model, data, GateLimits(max_drop=0.1), evaluate=lambda path: 1.0, workers=2)


def is_gone(group: int) -> bool:
    """Tell whether all processes of a group end; they sleep for a minute if nobody ends them."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_a_state_to_go_on_from_and_no_process(
    model: Path, data: Path, tmp_path: Path, workers: int
) -> None:
    slow = "import time\ncalls = []\ndef judge(path):\n    calls.append(path)\n"
    slow += "    time.sleep(60 * (len(calls) > 2))\n    return 1.0\n"
    (tmp_path / "judge.py").write_text(slow)
    state = tmp_path / "state.json"
    command = [sys.executable, "-m", "onnxprune", "tune", model, "--data", data, "--threads", 1, "--step", 0.1]
    command += ["--max-drop", 0.1, "--eval", f"{tmp_path / 'judge.py'}:judge", "--state", state, "--workers", workers]
    process = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, text=True, start_new_session=True,
        # a shell starts what runs in its background with SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (state.is_file() and json.loads(state.read_text())["candidates"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in errors
    assert "interrupted; nothing was written" in errors and "the same command goes on from there" in errors
    assert is_gone(process.pid)
    (tmp_path / "judge.py").write_text(slow.replace("60 *", "0 *"))
    done = subprocess.run([str(part) for part in command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not state.exists() and model.with_name("net-tuned.onnx").exists()
