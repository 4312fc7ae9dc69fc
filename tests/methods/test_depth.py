"""Branches and widths chosen together: the target is met, and what loses less stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import Run
from onnxprune.errors import NothingToPruneError, UsageError
from tests import plain
from tests.methods import residual
from tests.oracle import random_inputs, run


def with_faint(name: str, factor: float = 1e-3) -> onnx.ModelProto:
    """Return the convolutional network one of whose branches gives next to nothing."""
    proto = residual.convnet()
    end = next(node for node in proto.graph.node if node.name == name)
    last = next(node for node in proto.graph.node if node.output[0] in end.input and node.op_type == "Conv")
    for tensor in proto.graph.initializer:
        if tensor.name in last.input[1:]:
            values = factor * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return proto


CLOSED = {"compensate": "lstsq", "substitute": "none"}


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)}


@pytest.mark.parametrize("target", ["macs", "params"])
def test_a_branch_that_gives_nothing_goes_first_and_widths_save_the_rest(data, target: str) -> None:
    original = with_faint("first")
    asked = {"macs": 0.6, "params": 0.7}[target]
    result = plain.prune(original, data, depth=True, align=1, **CLOSED, **{target: asked})
    assert result.plan.dropped == ["first"]
    assert result.keep
    assert any("of 2 branches that may go" in warning for warning in result.warnings)
    if target == "macs":
        report = onnxprune.prune(original, data, depth=True, align=1, **CLOSED, macs=asked).report
        assert report.output.macs / report.input.macs == pytest.approx(asked, rel=0.03)


def test_a_branch_that_matters_stays(data) -> None:
    original = residual.convnet()
    result = plain.prune(original, data, macs=0.9, depth=True, align=1, compensate="lstsq")
    assert result.plan.dropped == []
    assert result.keep


def test_the_choice_is_nearer_than_widths_alone(data) -> None:
    original = with_faint("first")
    fresh = {"x": np.random.default_rng(1).normal(size=(32, 3, 8, 8)).astype(np.float32)}
    expected = run(original, fresh)[0]
    errors = []
    for depth in (True, False):
        result = plain.prune(original, data, macs=0.6, depth=depth, align=1, score="lstsq", **CLOSED)
        errors.append(float(np.square(run(result.model.proto, fresh)[0] - expected).mean()))
    assert errors[0] < 0.8 * errors[1]


def test_a_target_out_of_reach_of_widths_may_be_in_reach_of_branches(data) -> None:
    original = residual.convnet()
    options = {"macs": 0.5, "align": 16, "compensate": "lstsq", "substitute": "none"}
    with pytest.raises(NothingToPruneError):
        plain.prune(original, data, **options)
    assert plain.prune(original, data, depth=True, **options).plan.dropped


def test_what_is_skipped_or_a_cache_is_not_dropped(data) -> None:
    original = with_faint("first")
    inner = [node.name for node in original.graph.node if node.op_type == "Conv"][1]
    result = plain.prune(original, data, macs=0.6, depth=True, align=1, compensate="lstsq", skip=[inner])
    assert "first" not in result.plan.dropped
    decoder = residual.decoder()
    rng = np.random.default_rng(0)
    feeds = [random_inputs(decoder, rng, 4) for _ in range(8)]
    chosen = plain.prune(decoder, feeds, params=0.6, depth=True, align=1, **CLOSED).plan.dropped
    assert not {"attention0", "attention1"} & set(chosen)


def test_branches_that_are_named_go_besides(data) -> None:
    original = with_faint("first")
    result = plain.prune(original, data, macs=0.5, depth=True, drop=["scaled"], align=1, **CLOSED)
    assert result.plan.dropped[0] == "scaled"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"depth": True, "ratio": 0.5}, "depth spends a budget"),
        ({"depth": True}, "depth spends a budget"),
        ({"depth": True, "macs": 0.5, "resize_io": ["x"]}, "leave one of them out"),
        ({"depth": True, "macs": 0.5}, "give --data"),
    ],
)
def test_depth_without_what_it_needs_is_one_line(options: dict, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        onnxprune.prune(residual.convnet(), run=Run(verify=False), **options)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_choices_that_do_not_reach_the_target_make_room_for_others(data, monkeypatch, times: int) -> None:
    """Widths alone, one branch and two branches are worth a trial."""
    from onnxprune.methods import pruning as method

    refused: list[int] = []

    def choose(channels, options, *args, **more):  # type: ignore[no-untyped-def]
        if len(refused) < times and not more.get("quick"):
            refused.append(len(options.drop))
            raise NothingToPruneError("as measured, it cannot be reached.")
        return right(channels, options, *args, **more)

    right = method.choose
    monkeypatch.setattr(method, "choose", choose)
    options = {"macs": 0.3, "depth": True, "align": 8, "compensate": "lstsq", "substitute": "none"}
    if times == 3:
        with pytest.raises(NothingToPruneError, match="as measured"):
            plain.prune(with_faint("first"), data, **options)
        return
    result = plain.prune(with_faint("first"), data, **options)
    assert refused == [0, 1, 2][:times] and len(result.plan.dropped) not in refused
    assert sum("another choice was taken" in warning for warning in result.warnings) == times


def test_finalists_are_compared_after_the_steps_that_the_result_has(data, monkeypatch) -> None:
    from onnxprune.methods import pruning as method

    asked: list[tuple[int, str, int]] = []

    def refit(result, samples, mode, runtime, steps, *args):  # type: ignore[no-untyped-def]
        asked.append((samples.samples, mode, steps))
        return right(result, samples, "lstsq", runtime)

    right = method.refit
    monkeypatch.setattr(method, "refit", refit)
    options = {"macs": 0.6, "depth": True, "align": 8, "substitute": "none", "compensate": "distil", "steps": 50}
    plain.prune(with_faint("first", 0.2), data, **options)
    *trials, last = asked
    assert len(trials) >= 2 and {call[1:] for call in asked} == {("distil", 50)}
    assert {call[0] for call in trials} == {last[0] * 3 // 4}


def test_the_choice_has_the_steps_that_it_has_when_its_branches_are_named(data) -> None:
    """What the curves of the others took is not taken from it."""
    options = {"macs": 0.6, "align": 8, **CLOSED}
    chosen = plain.prune(with_faint("first"), data, depth=True, **options)
    named = plain.prune(with_faint("first"), data, drop=chosen.plan.dropped, **options)
    assert chosen.curves_seconds == named.curves_seconds > 0
    assert chosen.model.proto.SerializeToString(deterministic=True) == named.model.proto.SerializeToString(
        deterministic=True
    )


ERRORS = {"": 0.0, "a": 1.0, "b": 2.0, "c": 3.0, "ab": 9.0, "ac": 4.0, "bc": 5.0, "abc": 12.0}


@pytest.mark.parametrize(("goal", "expected"), [(0.75, "a"), (0.5, "ac"), (0.25, "acb"), (0.1, "acb")])
def test_what_a_branch_costs_depends_on_those_that_went_before(monkeypatch, goal: float, expected: str) -> None:
    """Each saves a quarter; `b` is cheap alone, dear after `a`."""
    from onnxprune.graph.model import load
    from onnxprune.methods.branch_choice import BranchChoice
    from onnxprune.methods.calibration import calibration
    from onnxprune.methods.prune_options import PruneOptions
    from onnxprune.methods.runtime import Runtime

    asked: list[str] = []

    def fitted(self, names, *, thin):  # type: ignore[no-untyped-def]
        asked.append("".join(sorted(names)))
        return ERRORS[asked[-1]]

    monkeypatch.setattr(BranchChoice, "_fitted", fitted)
    for name in ("_predicted", "share"):
        monkeypatch.setattr(BranchChoice, name, lambda self, names: 1 - len(names) / 4)
    model = load(residual.convnet())
    feeds = calibration(model, {"x": np.zeros((4, 3, 8, 8), np.float32)})
    choice = BranchChoice(model, PruneOptions(macs=goal), feeds, Runtime(), lambda text: None)
    choice.free = dict.fromkeys("abc")  # type: ignore[misc]
    assert "".join(choice.path()) == expected
    assert len(asked) == len(set(asked))
