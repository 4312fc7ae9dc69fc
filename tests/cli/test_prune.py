"""onnxprune prune, inspect and apply: what is written, what is not, and with which code they end."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests import networks
from tests.cli.conftest import Run

PYTHON = [sys.executable, "-m", "onnxprune"]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def channels(path: Path) -> list[int]:
    return [tensor.dims[0] for tensor in onnx.load(path).graph.initializer if tensor.name in ("w1", "w2")]


def test_the_default_command_writes_beside_the_input_a_model_that_runs(run: Run, model: Path) -> None:
    before = model.read_bytes()
    result = run(model, "--ratio", 0.5, "--threads", 1)
    assert result.exit_code == 0, result.stderr
    output = model.with_name("net-pruned.onnx")
    assert files(model.parent) == {"net.onnx", "net-pruned.onnx"} and model.read_bytes() == before
    assert channels(output) == [16, 16]
    session = onnxruntime.InferenceSession(output)
    assert session.run(None, {"x": np.zeros((3, 3, 12, 12), np.float32)})[0].shape == (3, 10)


def test_prune_by_name_is_the_same(run: Run, model: Path, tmp_path: Path) -> None:
    run(model, "--ratio", 0.5, "-o", tmp_path / "a.onnx", "--no-verify")
    run("prune", model, "--ratio", 0.5, "-o", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_summary_answers_the_four_questions(run: Run, model: Path) -> None:
    shown = run(model, "--ratio", 0.5, "--threads", 1).stdout
    assert "Masked parity" in shown and "random inputs" in shown
    assert "onnxprune bench" in shown
    assert "parameters" in shown and "MACs" in shown
    assert "'logits' is an output of the model" in shown
    assert "\x1b" not in shown


def test_json_alone_is_on_standard_output_and_follows_the_contract(run: Run, model: Path) -> None:
    result = run(model, "--ratio", 0.5, "--json", "--threads", 1)
    document = json.loads(result.stdout)
    assert document["format"] == "onnxprune-report" and document["command"] == "prune"
    assert document["output"]["params"] < document["input"]["params"]
    assert document["output"]["path"].endswith("net-pruned.onnx") and len(document["output"]["sha256"]) == 64
    assert document["output"]["bytes"] == model.with_name("net-pruned.onnx").stat().st_size
    groups = [group for group in document["groups"] if not group["locked"]]
    assert {(group["size"], group["kept"]) for group in groups} == {(32, 16)}
    assert document["masked_parity"]["relative_error"]["logits"] < 1e-4
    assert set(document["parity"]["logits"]) >= {"cosine", "sqnr_db", "max_abs", "agreement"}


def test_quiet_prints_nothing(run: Run, model: Path) -> None:
    result = run(model, "-q", "--threads", 1)
    assert result.exit_code == 0 and not result.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--ratio", "1.2"], "1.2"),
        (["--ratio", "-0.1"], "-0.1"),
        (["--ratio", "much"], "--ratio"),
        (["--ratio", "0.5", "--macs", "0.5"], "ratio and macs"),
        (["--macs", "0"], "--macs"),
        (["--score", "l3"], "l3"),
        (["--skip", "nothing*"], "nothing*"),
        (["--only", "nothing*"], "nothing*"),
        (["--group-ratios", "missing.json"], "missing.json"),
        (["--input-shape", "y:1,3,12,12"], "'y'"),
        (["--input-shape", "x:1,3,13,12"], "13"),
        (["--max-drop", "0.1"], "--eval"),
        (["--eval", "none.py:value"], "none.py"),
        (["--eval", "value"], "file.py:function"),
        (["--data", "none.npz"], "none.npz"),
        (["--provider", "abacus"], "abacus"),
        (["-o", "missing/folder/out.onnx"], "missing/folder"),
        (["--report", "report.txt"], "report.txt"),
        (["--align", "0"], "--align"),
    ],
)
def test_wrong_options_end_with_code_2_one_line_and_no_file(run: Run, model: Path, args: list[str], words: str) -> None:
    result = run(model, *args)
    assert result.exit_code == 2
    assert words in result.stderr and len(result.stderr.splitlines()) == 1
    assert files(model.parent) == {"net.onnx"}


def test_an_output_that_is_the_input_is_refused_even_through_a_link(run: Run, model: Path) -> None:
    before = model.read_bytes()
    link = model.with_name("link.onnx")
    link.symlink_to(model)
    for path in (model, link):
        result = run(model, "-o", path)
        assert result.exit_code == 2 and "input" in result.stderr
    assert model.read_bytes() == before


@pytest.mark.parametrize("option", ["-o", "--report", "--plan"])
def test_existing_files_are_replaced_but_for_no_clobber(run: Run, model: Path, tmp_path: Path, option: str) -> None:
    target = tmp_path / "there.json"
    target.write_text("old")
    result = run(model, option, target, "--no-clobber")
    assert result.exit_code == 2 and "--no-clobber" in result.stderr and target.read_text() == "old"
    assert files(model.parent) == {"net.onnx", "there.json"}
    assert run(model, option, target, "--no-verify").exit_code == 0
    assert target.read_bytes() != b"old"


def test_a_gate_that_fails_ends_with_code_3_and_writes_nothing(run: Run, model: Path, tmp_path: Path) -> None:
    result = run(model, "--min-cosine", 0.99999, "--report", tmp_path / "r.json", "--plan", tmp_path / "p.json")
    assert result.exit_code == 3
    assert "--min-cosine" in result.stderr and len(result.stderr.splitlines()) == 1
    assert files(model.parent) == {"net.onnx", "r.json"}, "the report stands alone"


def test_a_gate_measures_even_without_verification(run: Run, model: Path) -> None:
    assert run(model, "--no-verify", "--min-cosine", 0.99999).exit_code == 3
    assert run(model, "--no-verify", "--min-cosine", -1).exit_code == 0


def test_a_drop_above_the_limit_writes_nothing(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("import os\ndef value(path):\n    return float(os.path.getsize(path) > 40000)\n")
    judge = f"{tmp_path / 'judge.py'}:value"
    assert run(model, "--ratio", 0.5, "--eval", judge, "--max-drop", 0.5).exit_code == 3
    assert files(tmp_path) - {"__pycache__"} == {"net.onnx", "judge.py"}
    result = run(model, "--ratio", 0.5, "--eval", judge, "--max-drop", 1, "--json")
    assert json.loads(result.stdout)["evaluation"] == {"before": 1.0, "after": 0.0, "drop": 1.0}


def test_nothing_to_prune_ends_with_code_4(run: Run, tmp_path: Path) -> None:
    path = networks.store(
        networks.model(
            [helper.make_node("Gemm", ["x", "w"], ["y"], "only")],
            [helper.make_tensor_value_info("x", networks.FLOAT, ["batch", 4])],
            [helper.make_tensor_value_info("y", networks.FLOAT, ["batch", 5])],
            networks.weights(w=(4, 5)),
        ),
        tmp_path / "gemm.onnx",
    )
    result = run(path)
    assert result.exit_code == 4 and len(result.stderr.splitlines()) == 1
    assert "'y' is an output of the model" in result.stderr
    assert files(tmp_path) == {"gemm.onnx"}


def test_a_target_out_of_reach_ends_with_code_4(run: Run, model: Path) -> None:
    assert run(model, "--params", 0.0001).exit_code == 4
    assert files(model.parent) == {"net.onnx"}


def test_ratio_zero_without_provenance_gives_the_input_back(run: Run, model: Path) -> None:
    assert run(model, "--ratio", 0, "--no-provenance").exit_code == 0
    assert model.with_name("net-pruned.onnx").read_bytes() == model.read_bytes()


def test_the_output_names_its_origin_without_paths(run: Run, model: Path) -> None:
    run(model, "--ratio", 0.5, "--no-verify")
    keys = {item.key: item.value for item in onnx.load(model.with_name("net-pruned.onnx")).metadata_props}
    assert set(keys) == {"onnxprune.version", "onnxprune.options", "onnxprune.source_sha256"}
    assert json.loads(keys["onnxprune.options"])["ratio"] == 0.5
    assert str(model.parent) not in keys["onnxprune.options"]


def test_a_saved_plan_gives_the_same_model_again(run: Run, model: Path, tmp_path: Path) -> None:
    plan, first, second = tmp_path / "plan.json", tmp_path / "first.onnx", tmp_path / "second.onnx"
    plain = ("--compensate", "none", "--no-provenance")
    assert run(model, "--ratio", 0.5, "--plan", plan, "-o", first, *plain).exit_code == 0
    assert run("apply", model, plan, "-o", second, "--no-provenance", "--threads", 1).exit_code == 0
    assert first.read_bytes() == second.read_bytes()
    removed = json.loads(plan.read_text())["removed"]
    assert len(removed["w1"]["0"]) == len(removed["w2"]["1"]) == 16


def test_a_plan_for_another_file_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    run(model, "--plan", plan, "--no-verify")
    other = networks.store(networks.convnet(seed=1), tmp_path / "other.onnx")
    result = run("apply", other, plan)
    assert result.exit_code == 2 and "another file" in result.stderr
    plan.write_text("{")
    assert run("apply", model, plan).exit_code == 2
    assert run("apply", model, tmp_path / "none.json").exit_code == 2


def test_inspect_lists_groups_and_the_reasons_of_locks(run: Run, model: Path) -> None:
    shown = run("inspect", model).stdout
    assert "conv1" in shown and "conv2" in shown and "'logits' is an output of the model" in shown
    groups = json.loads(run("inspect", model, "--json").stdout)["groups"]
    free = [group for group in groups if not group["locked"]]
    assert [(group["size"], group["kept"], group["exact"]) for group in free] == [(32, None, True), (32, None, True)]
    assert free[0]["macs"] == 144 * (3 * 32 * 9 + 32 * 32 * 9)
    assert {site["role"] for site in free[0]["sites"]} == {"writes", "reads", "scales"}


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    for _ in range(600):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_in_the_middle_leaves_nothing(model: Path, number: signal.Signals, code: int) -> None:
    """The function of --eval is called while the result stands in its temporary file."""
    folder = model.parent
    (folder / "judge.py").write_text(
        "import pathlib, time\n"
        "def value(path):\n    if not path.endswith('net.onnx'):\n"
        "        pathlib.Path(__file__).with_name('now').touch()\n        time.sleep(60)\n    return 1.0\n"
    )
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [*PYTHON, str(model), "--eval", f"{folder / 'judge.py'}:value", "--no-verify"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    wait_for(folder / "now", process)
    assert len(files(folder)) == 4, "the temporary file is there"
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors and len(errors.splitlines()) <= 1
    assert files(folder) == {"net.onnx", "judge.py", "now"}


def test_a_full_disk_ends_with_code_2_and_leaves_nothing(model: Path) -> None:
    def small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    command = [*PYTHON, str(model), "--no-verify"]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files_only, check=False)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert files(model.parent) == {"net.onnx"}


def test_a_pipe_that_closes_early_is_no_defect(model: Path) -> None:
    command = f"{sys.executable} -m onnxprune inspect {model} -v | head -c 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "defect" not in result.stderr and "Traceback" not in result.stderr


def test_a_random_choice_follows_the_seed_and_tells_no_channels(run: Run, model: Path) -> None:
    networks.store(networks.convnet(width=16), model)
    plans = []
    for number, seed in enumerate((1, 1, 2)):
        plan = model.with_name(f"{number}.json")
        words = ("--randomize", "1.0", "--seed", seed, "--compensate", "none", "--plan", plan)
        assert run("prune", model, "--ratio", 0.5, *words, "-o", model.with_name("p.onnx")).exit_code == 0
        plans.append(json.loads(plan.read_text())["removed"])
    assert plans[0] == plans[1] != plans[2]
    options = {item.key: item.value for item in onnx.load(model.with_name("p.onnx")).metadata_props}
    assert "removed" not in json.loads(options["onnxprune.options"])
    for wrong in ("0", "-1", "11", "nan"):
        assert run("prune", model, "--randomize", wrong).exit_code == 2, wrong
