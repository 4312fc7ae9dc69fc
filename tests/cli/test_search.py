"""onnxprune sensitivity and tune: tables, bounds that are kept, searches that go on after an interruption."""

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.methods.tune import tune
from onnxprune.validate.gates import Gates
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
    assert not model.with_name("net-tuned.onnx").exists()


def test_tune_without_a_bound_is_refused(run: Run, model: Path, data: Path) -> None:
    result = run("tune", model, "--data", data)
    assert result.exit_code == 2 and "bound" in result.stderr


@pytest.mark.parametrize(("body", "words"), [("1 / 0", "ZeroDivisionError"), ("return 'good'", "raised ValueError")])
def test_an_evaluation_that_raises_or_gives_no_number_ends_it(
    run: Run, model: Path, data: Path, tmp_path: Path, body: str, words: str
) -> None:
    (tmp_path / "judge.py").write_text(f"def judge(path):\n    {body}\n")
    judge = f"{tmp_path / 'judge.py'}:judge"
    result = run("tune", model, "--data", data, "--threads", 1, "--max-drop", 0.1, "--eval", judge)
    assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1


def test_an_interrupted_search_goes_on_where_it_was(model: Path, data: Path, tmp_path: Path) -> None:
    state, calls = tmp_path / "state.json", []

    def judge(path: str) -> float:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return width(Path(path)) / 64

    settings = {"evaluate": judge, "step": 0.2, "finest": 0.2, "state": state}
    with pytest.raises(KeyboardInterrupt):
        tune(model, data, Gates(max_drop=0.5), **settings)
    measured = len(json.loads(state.read_text())["candidates"])
    assert measured == 2
    found = tune(model, data, Gates(max_drop=0.5), **settings)
    again = tune(model, data, Gates(max_drop=0.5), **{**settings, "state": None})
    assert len(calls) - 4 - (len(again.curve) + 1) == len(again.curve) - measured + 1
    assert found.best == again.best and found.best.drop <= 0.5


def test_a_state_of_another_search_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"format": "onnxprune-tune", "key": [], "candidates": []}')
    with pytest.raises(onnxprune.UsageError, match="another search"):
        tune(model, data, Gates(min_cosine=0.9), state=state)


def test_workers_find_the_same_model(model: Path, data: Path) -> None:
    one, two = (tune(model, data, Gates(min_cosine=0.9), step=0.2, finest=0.1, workers=n) for n in (1, 3))
    assert abs(one.best.macs - two.best.macs) <= 0.1
