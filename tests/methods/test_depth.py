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


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)}


@pytest.mark.parametrize("target", ["macs", "params"])
def test_a_branch_that_gives_nothing_goes_first_and_widths_save_the_rest(data, target: str) -> None:
    original = with_faint("first")
    asked = {"macs": 0.6, "params": 0.7}[target]
    result = plain.prune(original, data, depth=True, align=1, compensate="lstsq", **{target: asked})
    assert result.plan.dropped == ["first"]
    assert result.keep
    assert any("of 2 branches that may go" in warning for warning in result.warnings)
    if target == "macs":
        report = onnxprune.prune(original, data, depth=True, align=1, compensate="lstsq", macs=asked).report
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
        result = plain.prune(original, data, macs=0.6, depth=depth, align=1, compensate="lstsq")
        errors.append(float(np.square(run(result.model.proto, fresh)[0] - expected).mean()))
    assert errors[0] < 0.8 * errors[1]


def test_a_target_out_of_reach_of_widths_may_be_in_reach_of_branches(data) -> None:
    original = residual.convnet()
    options = {"macs": 0.5, "align": 16, "compensate": "lstsq"}
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
    chosen = plain.prune(decoder, feeds, params=0.6, depth=True, align=1, compensate="lstsq").plan.dropped
    assert not {"attention0", "attention1"} & set(chosen)


def test_branches_that_are_named_go_besides(data) -> None:
    original = with_faint("first")
    result = plain.prune(original, data, macs=0.5, depth=True, drop=["scaled"], align=1, compensate="lstsq")
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


def test_where_widths_do_not_reach_the_target_one_more_branch_goes(data, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.methods import prune as method

    refused: list[int] = []

    def choose(channels, options, *args, whole=None, **more):  # type: ignore[no-untyped-def]
        if not refused:
            refused.append(len(options.drop))
            raise NothingToPruneError("as measured, it cannot be reached.")
        return right(channels, options, *args, **more)

    right = method.choose
    original = with_faint("first")
    best = plain.prune(original, data, macs=0.6, depth=True, align=1, compensate="lstsq", substitute="none")
    monkeypatch.setattr(method, "choose", choose)
    result = plain.prune(original, data, macs=0.6, depth=True, align=1, compensate="lstsq", substitute="none")
    assert refused == [len(best.plan.dropped)]
    assert set(best.plan.dropped) < set(result.plan.dropped)
    assert any("one more went" in warning for warning in result.warnings)
