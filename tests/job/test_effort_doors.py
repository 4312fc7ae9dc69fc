"""Efforts of a prune and of its plan: none, a time, and words that contradict each other."""

import time
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from tests import networks
from tests.cli.conftest import Run

X = np.random.default_rng(3).standard_normal((64, 3, 12, 12)).astype(np.float32)
SMOOTH = np.random.default_rng(3).standard_normal((256, 3, 4, 4)).astype(np.float32).repeat(3, 2).repeat(3, 3)


def steps_of(result: onnxprune.PruneResult) -> int:
    assert result.compensation is not None
    return result.compensation.distilled.steps if result.compensation.distilled is not None else -1


def taken_of(result: onnxprune.PruneResult) -> int:
    assert result.compensation is not None and result.compensation.distilled is not None
    return result.compensation.distilled.curve[-1][0]


def test_quick_is_the_closed_form_alone_and_says_nothing_of_it() -> None:
    quick = onnxprune.prune(networks.convnet(), {"x": X}, ratio=0.5, effort="quick")
    plain = onnxprune.prune(networks.convnet(), {"x": X}, ratio=0.5, compensate="lstsq")
    assert steps_of(quick) == -1 and not any("gradient" in text for text in quick.warnings)
    assert quick.model.proto.graph == plain.model.proto.graph


def test_default_is_what_is_done_anyhow() -> None:
    said = onnxprune.prune(networks.convnet(), {"x": X}, ratio=0.5, effort="default")
    assert said.model.proto.graph == onnxprune.prune(networks.convnet(), {"x": X}, ratio=0.5).model.proto.graph


def test_a_time_is_spent_on_steps_and_the_report_says_what_more_would_give() -> None:
    heard: list[str] = []
    start = time.monotonic()
    result = onnxprune.prune(networks.convnet(width=8), {"x": SMOOTH}, ratio=0.5, effort="2s", progress=heard.append)
    assert 2 < time.monotonic() - start < 20  # the machine may be busy with other things
    assert taken_of(result) > 0
    distance = result.report.details["compensation"]["distance"]
    assert distance["after"] <= distance["before"]
    assert any(words in distance["outlook"] for words in ("twice as many would probably", "more effort", "no gain"))
    assert distance["curve"][-1][0] >= distance["steps"]
    assert any("gradient step" in text and "left" in text for text in heard)


def test_a_plan_is_carried_out_with_an_effort_too(tmp_path: Path) -> None:
    plan = onnxprune.prune(networks.convnet(), {"x": X}, ratio=0.5, effort="quick").plan
    assert steps_of(onnxprune.apply(networks.convnet(), plan, {"x": X}, effort="quick")) == -1
    assert taken_of(onnxprune.apply(networks.convnet(), plan, {"x": X}, effort="1s")) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effort": "soon"}, "effort 'soon'"),
        ({"effort": "1h", "steps": 3}, "leave one out"),
        ({"effort": "quick", "compensate": "distil"}, "leave one out"),
        ({"effort": "thorough", "compensate": "lstsq"}, "leave one out"),
    ],
)
def test_efforts_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(onnxprune.UsageError, match=message):
        onnxprune.prune(networks.convnet(), {"x": X}, **options)


def test_a_long_effort_without_data_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    model = networks.store(networks.convnet(), tmp_path / "net.onnx")
    result = run("prune", model, "--effort", "thorough")
    assert result.exit_code == 2 and "needs inputs of the model" in result.stderr and result.stderr.count("\n") == 1


def test_a_search_spends_a_long_effort_on_what_it_found() -> None:
    gates = onnxprune.Gates(min_cosine=0.5)
    result = onnxprune.tune(networks.convnet(), {"x": X}, gates=gates, step=0.4, finest=0.3, effort="1s")
    assert taken_of(result.result) > 0


def test_a_long_effort_improves_zeros_and_factors() -> None:
    sparse = onnxprune.sparsify(networks.convnet(), {"x": X}, pattern="2:4", effort="1s")
    assert sparse.improved is not None and sparse.improved.steps > 0
    assert sparse.improved.after <= sparse.improved.before
    assert sparse.improved.zeros > 0 and sparse.report.details["finetune"]["outlook"]
    thin = onnxprune.factorize(networks.convnet(), {"x": X}, params=0.6, effort="1s")
    assert thin.improved is not None and thin.improved.after <= thin.improved.before
    plain = onnxprune.factorize(networks.convnet(), {"x": X}, params=0.6, effort="quick")
    assert plain.improved is None
    with pytest.raises(onnxprune.UsageError, match="needs inputs of the model"):
        onnxprune.sparsify(networks.convnet(), effort="1h")
