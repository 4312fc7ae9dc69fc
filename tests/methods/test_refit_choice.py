"""How what stays is refitted where nobody says: gradient steps within predicted seconds, least squares alone beyond."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models import zoo
from onnxprune.errors import UsageError
from onnxprune.graph.model import load
from onnxprune.methods import step_count as room
from onnxprune.methods.calibration import calibration
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import look


def pruned(**options: object) -> PruneResult:
    (path,) = [p for p in zoo.trained() if p.parent.name == "fm_rnn" and p.name == "model.onnx"]
    model = load(path)
    x = np.random.default_rng(0).normal(size=(128, 1, 28, 28)).astype(np.float32)
    wanted = PruneOptions(ratio=0.3, score="l2", **options)
    return prune(model, wanted, calibration(model, {"input": x}), runtime=Runtime(1))


def mlp(width: int) -> onnx.ModelProto:
    """Return 1024 -> width -> 1024."""
    generator = np.random.default_rng(1)
    sizes = {"a": (1024, width), "b": (width, 1024)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
            helper.make_node("Relu", ["h"], ["r"], "bend"),
            helper.make_node("MatMul", ["r", "b"], ["y"], "last"),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", 1, ["n", 1024])],
        [helper.make_tensor_value_info("y", 1, ["n", 1024])],
        [
            numpy_helper.from_array(generator.normal(0, size[0] ** -0.5, size).astype(np.float32), name)
            for name, size in sizes.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_small_network_takes_steps_and_is_nearer_for_it() -> None:
    result = pruned(steps=60)
    assert result.compensation is not None
    assert result.compensation.distilled is not None
    assert result.compensation.distilled.curve[-1][0] == 60
    assert 0 < result.compensation.distilled.steps <= 60
    assert result.compensation.distilled.after < 0.9 * result.compensation.distilled.before
    assert not result.warnings


def test_a_network_too_large_for_steps_says_so_and_takes_them_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_SECONDS", 1e-3)
    monkeypatch.setattr(room, "TIMES", 1.0)
    result = pruned()
    assert result.compensation is not None
    assert result.compensation.distilled is None
    assert "compensate distil takes them" in result.warnings[-1]
    asked = pruned(compensate="distil", steps=2)
    assert asked.compensation is not None
    assert asked.compensation.distilled is not None


def test_large_networks_take_steps_within_a_multiple_of_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_SECONDS", 1e-3)
    monkeypatch.setattr(room, "TIMES", 100.0)
    assert pruned().compensation.distilled is not None
    monkeypatch.setattr(room, "MOST_SECONDS", 0.01)
    assert pruned().compensation.distilled is None


def test_the_whole_never_falls_with_what_comes_before_the_steps() -> None:
    """A large network whose closed form is cheap gets what a small one gets, not three times little."""
    before = np.linspace(0, 200, 401)
    whole = np.array([seconds + room.seconds_left(seconds) for seconds in before])
    assert (np.diff(whole) >= 0).all()
    assert list(whole[before <= 10]) == [30.0] * 21
    assert room.seconds_left(20.0) == 40.0
    assert room.seconds_left(100.0) == 20.0
    assert room.seconds_left(150.0) < 0


def test_no_number_of_parameters_changes_the_seconds() -> None:
    """Two matrices, of 0.9 and of 1.1 million parameters: both are refitted in little, and get steps."""
    seconds = []
    for width in (440, 540):
        model = load(mlp(width))
        assert (width * 2 * 1024 > 1_000_000) == (width == 540)
        x = np.random.default_rng(0).normal(size=(32, 1024)).astype(np.float32)
        result = prune(model, PruneOptions(ratio=0.3, compensate="none"), calibration(model, {"x": x}))
        data = calibration(model, {"x": x})
        plan, note = room.steps_of(look(result.view, data, Runtime(1)), result, data, None, None, Runtime(1))
        assert not note
        seconds.append(plan.seconds)
    assert all(20 < each < 30 for each in seconds)


def test_what_curves_took_comes_off_the_seconds_of_steps() -> None:
    x = np.random.default_rng(0).normal(size=(32, 1024)).astype(np.float32)
    model = load(mlp(64))
    data = calibration(model, {"x": x})
    result = prune(model, PruneOptions(macs=0.6, compensate="lstsq"), data, runtime=Runtime(1))
    assert 0 < result.curves_seconds < 1
    assert prune(model, PruneOptions(ratio=0.4, compensate="lstsq", score="l2"), data).curves_seconds == 0
    seen = look(result.view, data, Runtime(1))

    def left(curves: float) -> float | None:
        return room.steps_of(seen, replace(result, curves_seconds=curves), data, None, None, Runtime(1))[0].seconds

    assert left(0) == pytest.approx(left(5.0) + 5.0)
    closed = 30.0 - left(0)
    assert left(20.0) == pytest.approx(2 * (20.0 + closed))


def test_least_squares_alone_takes_no_steps() -> None:
    result = pruned(compensate="lstsq")
    assert result.compensation is not None
    assert result.compensation.distilled is None
    assert not result.warnings


def test_no_steps_at_all_are_asked_for_otherwise() -> None:
    with pytest.raises(UsageError, match="steps 0: give a whole number from 1"):
        PruneOptions(steps=0)


def test_small_networks_with_a_long_closed_form_get_a_multiple_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_SECONDS", 1e-3)
    monkeypatch.setattr(room, "closed_form_seconds", lambda *given: 1000.0)
    monkeypatch.setattr(room, "MOST_SECONDS", 1001.0)
    taken = pruned().compensation
    assert taken is not None
    assert taken.distilled is not None
    monkeypatch.setattr(room, "MOST_SECONDS", 1000.0)
    left = pruned().compensation
    assert left is not None
    assert left.distilled is None
