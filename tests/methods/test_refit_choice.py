"""How what stays is refitted where nobody says: gradient steps for small networks, least squares alone for large."""

import numpy as np
import pytest

from models import zoo
from onnxprune.errors import UsageError
from onnxprune.graph.model import load
from onnxprune.methods import step_count as room
from onnxprune.methods.calibration import calibration
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime


def pruned(**options: object) -> PruneResult:
    (path,) = [p for p in zoo.trained() if p.parent.name == "fm_rnn" and p.name == "model.onnx"]
    model = load(path)
    x = np.random.default_rng(0).normal(size=(128, 1, 28, 28)).astype(np.float32)
    wanted = PruneOptions(ratio=0.3, score="l2", **options)
    return prune(model, wanted, calibration(model, {"input": x}), runtime=Runtime(1))


def test_a_small_network_takes_steps_and_is_nearer_for_it() -> None:
    result = pruned(steps=30)
    assert result.compensation is not None
    assert result.compensation.distilled is not None
    assert result.compensation.distilled.curve[-1][0] == 30
    assert 0 < result.compensation.distilled.steps <= 30
    assert result.compensation.distilled.after < result.compensation.distilled.before
    assert not result.warnings


def test_a_network_too_large_for_steps_says_so_and_takes_them_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SMALL_SECONDS", 1e-3)
    monkeypatch.setattr(room, "LARGE_TIMES", 1.0)
    result = pruned()
    assert result.compensation is not None
    assert result.compensation.distilled is None
    assert "compensate distil takes them" in result.warnings[-1]
    asked = pruned(compensate="distil", steps=2)
    assert asked.compensation is not None
    assert asked.compensation.distilled is not None


def test_large_networks_take_steps_within_a_multiple_of_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SMALL_PARAMETERS", 1)
    monkeypatch.setattr(room, "LARGE_TIMES", 1.0)
    assert pruned().compensation.distilled is None
    monkeypatch.setattr(room, "LARGE_TIMES", 100.0)
    assert pruned().compensation.distilled is not None
    monkeypatch.setattr(room, "LARGE_SECONDS", 0.01)
    assert pruned().compensation.distilled is None


def test_least_squares_alone_takes_no_steps() -> None:
    result = pruned(compensate="lstsq")
    assert result.compensation is not None
    assert result.compensation.distilled is None
    assert not result.warnings


def test_no_steps_at_all_are_asked_for_otherwise() -> None:
    with pytest.raises(UsageError, match="steps 0: give a whole number from 1"):
        PruneOptions(steps=0)


def test_small_networks_with_a_long_closed_form_get_a_multiple_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SMALL_SECONDS", 1e-3)
    monkeypatch.setattr(room, "closed_form_seconds", lambda *given: 1000.0)
    monkeypatch.setattr(room, "LARGE_SECONDS", 1001.0)
    taken = pruned().compensation
    assert taken is not None
    assert taken.distilled is not None
    monkeypatch.setattr(room, "LARGE_SECONDS", 1000.0)
    left = pruned().compensation
    assert left is not None
    assert left.distilled is None
