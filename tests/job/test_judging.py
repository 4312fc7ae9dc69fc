"""What a result is judged on, and what happens to one that is far from the original."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import InputSpec
from onnxprune.statistics.split import first, split
from tests.cli.conftest import Run, files


def numbered(count: int, batch: int | None = None) -> Data:
    return read({"x": np.arange(count, dtype=np.float32)[:, None]}, [InputSpec("x", np.dtype(np.float32), (batch, 1))])


def values(data: Data) -> list[int]:
    return [int(value) for feed in data.batches(7) for value in feed["x"].ravel()]


@pytest.mark.parametrize("count", [16, 17, 64, 130, 513])
def test_one_in_four_is_judged_on_and_nothing_is_both_or_neither(count: int) -> None:
    fit, judged = split(numbered(count))
    assert judged is not None and judged.samples == count // 4 and fit.samples == count - count // 4
    assert sorted([*values(fit), *values(judged)]) == list(range(count))
    assert values(judged) == values(split(numbered(count))[1] or fit), "the same every time"
    assert all(4 * turn <= value < 4 * turn + 4 for turn, value in enumerate(values(judged))), "spread over all"


@pytest.mark.parametrize("period", [2, 4, 8])
def test_classes_in_turns_are_on_both_sides(period: int) -> None:
    for part in split(numbered(256)):
        assert part is not None and {value % period for value in values(part)} == set(range(period))


def test_batches_of_a_fixed_size_stay_whole() -> None:
    fit, judged = split(numbered(40, 5))
    assert judged is not None and judged.samples == 10 and fit.samples == 30
    starts = [int(feed["x"][0, 0]) for part in (fit, judged) for feed in part]
    assert sorted(starts) == list(range(0, 40, 5))
    assert all(np.ptp(feed["x"]) == 4 for part in (fit, judged) for feed in part)


def test_whole_feeds_stay_whole_and_a_reader_is_split_like_a_file() -> None:
    specs = [InputSpec("x", np.dtype(np.float32), (None,)), InputSpec("s", np.dtype(np.float32), (2, 3))]
    feeds = [{"x": np.full(n % 3 + 1, n, np.float32), "s": np.full((2, 3), n, np.float32)} for n in range(20)]

    class Reader:
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    for source in (feeds, iter(feeds), Reader()):
        fit, judged = split(read(source, specs))
        assert judged is not None and (fit.samples, judged.samples) == (15, 5)
        assert [float(feed["s"][0, 0]) for feed in judged] == [float(feed["x"][0]) for feed in judged]


def test_too_few_are_not_split() -> None:
    assert split(numbered(15))[1] is None and split(numbered(30, 10))[1] is None
    assert values(first(numbered(9), 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("command", [("prune", "--ratio", 0.25), ("sparsify",), ("factorize",), ("quantize",)])
def test_the_report_says_what_was_judged_on(run: Run, model: Path, data: Path, command: tuple[object, ...]) -> None:
    extra = ["--no-latency"] if command[0] == "quantize" else []
    result = run(command[0], model, *command[1:], "--data", data, "--threads", 1, "--json", *extra)
    document = json.loads(result.stdout)
    assert document["samples"] == 4 and "4 samples of" in document["inputs"], document["inputs"]
    assert "that nothing was fitted to" in document["inputs"]
    assert "4 held-out samples" in " ".join(document["verdict"]["reasons"])
    assert document["argv"][0] == command[0] and {"onnx", "onnxruntime"} <= document["versions"].keys()


def test_few_samples_are_used_for_both_and_that_is_said(run: Run, model: Path, data: Path) -> None:
    result = run(model, "--ratio", 0.25, "--data", data, "--samples", 12, "--threads", 1, "--json")
    document = json.loads(result.stdout)
    assert document["samples"] == 12 and document["verdict"]["status"] != "good"
    assert any("judged on the same samples" in warning for warning in document["warnings"])


def test_other_data_can_judge_and_then_all_data_are_fitted_to(run: Run, model: Path, data: Path) -> None:
    other = data.with_name("other.npz")
    np.savez(other, x=np.random.default_rng(5).standard_normal((6, 3, 12, 12)).astype(np.float32))
    args = ("--ratio", 0.25, "--compensate", "lstsq", "--threads", 1, "--json", "--judge-data", other)
    document = json.loads(run(model, *args, "--data", data).stdout)
    assert document["samples"] == 6 and document["compensation"]["samples"] == 16
    assert "6 samples of" in document["inputs"] and "other.npz" in document["inputs"]
    document = json.loads(run(model, *args).stdout)
    assert document["samples"] == 6 and document["compensation"]["made_up"] is True


def test_no_output_is_what_is_judged_on(run: Run, model: Path, data: Path) -> None:
    before = data.read_bytes()
    result = run(model, "--judge-data", data, "--report", data.with_suffix(".npz"), "-o", data)
    assert result.exit_code == 2 and data.read_bytes() == before


FAR = ("--ratio", 0.75, "--align", 1, "--compensate", "none", "--score", "random", "--threads", 1)


def test_what_is_far_from_the_original_says_so_first(run: Run, model: Path, data: Path) -> None:
    result = run(model, *FAR, "--data", data)
    assert result.exit_code == 0 and result.stdout.startswith("Verdict: poor. Far from the original on 4 held-out")
    assert "train" not in result.stdout


@pytest.mark.parametrize(("ci", "flags", "code"), [(None, ["--strict"], 3), ("true", [], 3), ("1", ["--no-strict"], 0)])
def test_where_it_is_strict_nothing_is_written_but_the_report(
    run: Run, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, ci: str | None, flags: list[str], code: int
) -> None:
    if ci is not None:
        monkeypatch.setitem(os.environ, "CI", ci)
    report = model.with_name("r.json")
    result = run(model, *FAR, "--data", data, *flags, "--report", report, "--json")
    assert result.exit_code == code, result.stderr
    document = json.loads(result.stdout)
    assert document == json.loads(report.read_text()) and document["verdict"]["status"] == "poor"
    assert model.with_name("net-pruned.onnx").exists() is (code == 0)
    if code:
        assert len(result.stderr.splitlines()) == 1 and "held-out" in result.stderr


def test_recipes_and_functions_are_strict_too(run: Run, model: Path, data: Path) -> None:
    text = f"model: {model}\ndata: {data}\nthreads: 1\ngates: {{strict: true}}\n"
    options = "ratio: 0.75, align: 1, compensate: none, score: random"
    recipe = model.with_name("r.yaml")
    recipe.write_text(f"{text}steps: [prune: {{{options}}}]\n")
    assert run("run", recipe).exit_code == 3 and files(model.parent) == {"net.onnx", "r.yaml"}
    with pytest.raises(onnxprune.GateError, match="Far from the original"):
        onnxprune.prune(
            model, data, gates=onnxprune.Gates(strict=True), ratio=0.75, align=1, compensate="none", score="random"
        )


def test_gates_on_made_up_inputs_say_so_and_fail_where_it_is_strict(run: Run, model: Path) -> None:
    args = (model, "--ratio", 0.25, "--min-cosine", -1, "--threads", 1)
    result = run(*args)
    assert result.exit_code == 0 and "made-up inputs, which show defects, not accuracy" in result.stderr
    assert run(*args, "--strict").exit_code == 3


def test_every_gate_stands_in_the_report_with_its_value(run: Run, model: Path, data: Path) -> None:
    args = (model, "--ratio", 0.25, "--data", data, "--threads", 1, "--json")
    document = json.loads(run(*args, "--min-cosine", 0.1, "--min-sqnr", 290).stdout)
    gates = {gate["name"]: gate for gate in document["gates"]}
    assert gates["min_cosine"]["held"] and gates["min_cosine"]["value"] == pytest.approx(
        document["parity"]["logits"]["cosine"], rel=1e-6
    )
    assert not gates["min_sqnr"]["held"] and gates["min_sqnr"]["limit"] == 290
    assert document["error"]["code"] == 3 and document["verdict"]["status"] == "failed"


def test_a_broken_evaluation_fails_before_the_work_with_a_report(run: Run, model: Path, data: Path) -> None:
    (data.parent / "judge.py").write_text("def value(path):\n    return 1 / 0\n")
    report = model.with_name("r.json")
    args = ("--eval", f"{data.parent / 'judge.py'}:value", "--report", report, "--json")
    result = run(model, "--data", data, *args)
    assert result.exit_code == 2 and "ZeroDivisionError" in result.stderr and len(result.stderr.splitlines()) == 1
    document = json.loads(report.read_text())
    assert document == json.loads(result.stdout) and "ZeroDivisionError" in document["error"]["message"]
    assert "prune" not in document["seconds"] and not model.with_name("net-pruned.onnx").exists()


def test_nothing_to_prune_leaves_a_report(run: Run, model: Path) -> None:
    report = model.with_name("r.json")
    assert run(model, "--params", 0.0001, "--report", report).exit_code == 4
    assert json.loads(report.read_text())["error"]["code"] == 4 and files(model.parent) == {"net.onnx", "r.json"}


def test_a_plan_of_a_refitted_prune_warns_where_nothing_is_refitted(run: Run, model: Path, data: Path) -> None:
    plan = model.with_name("p.json")
    run(model, "--ratio", 0.25, "--plan", plan, "--threads", 1)
    bare = run("apply", model, plan, "--threads", 1)
    assert bare.exit_code == 0 and "further from the original" in bare.stderr
    for args in (("--data", data), ("--compensate", "none")):
        assert "further from the original" not in run("apply", model, plan, "--threads", 1, *args).stderr
    run(model, "--ratio", 0.25, "--plan", plan, "--compensate", "none")
    assert "further from the original" not in run("apply", model, plan, "--threads", 1).stderr


@pytest.mark.parametrize("with_data", [True, False])
def test_options_for_images_are_refused_where_there_are_none(
    run: Run, model: Path, data: Path, with_data: bool
) -> None:
    result = run(model, "--mean", "0.5", *(["--data", data] if with_data else []))
    assert result.exit_code == 2 and "--mean" in result.stderr and len(result.stderr.splitlines()) == 1


def test_without_data_the_last_line_says_what_to_do(run: Run, model: Path) -> None:
    last = run(model, "--threads", 1).stdout.splitlines()[-1]
    assert "--data" in last and "onnxprune tune" in last and "gate" in last


@pytest.mark.parametrize(
    ("command", "name"), [("tune", "tuned"), ("sparsify", "sparse"), ("factorize", "factorized"), ("prune", "pruned")]
)
def test_the_help_of_a_command_names_its_own_default_output(run: Run, command: str, name: str) -> None:
    assert f"MODEL-{name}.onnx" in "".join(run(command, "--help").stdout.split())
