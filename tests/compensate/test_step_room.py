"""Memory and providers of steps: what runs at once fits, results do not depend on it, sessions get the provider."""

from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.compensate.descent import Descent, orthogonal
from onnxprune.compensate.distil import variances
from onnxprune.graph import session as sessions
from onnxprune.graph.model import load
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.methods.step_room import step_room
from tests import networks

DRAW = np.random.default_rng(6)
NET = networks.convnet(width=16)
X = DRAW.standard_normal((64, 3, 12, 12)).astype(np.float32)
SECOND = "AzureExecutionProvider"
"""Part of the package for CPUs: what it does not take runs on the CPU."""


def room(memory: int | None, threads: int, scale: float = 1.0) -> Any:
    view = View(load(NET))
    return step_room(view, trace(view), memory, threads, 32, scale)


def test_less_memory_means_fewer_side_by_side_then_fewer_samples_and_a_note_at_last() -> None:
    wide = room(None, 4)
    assert (wide.size, wide.workers, wide.note) == (32, 4, "")
    few = room(4 << 20, 4)
    assert few.size < 32 and few.workers == 1 and not few.note
    assert "more than the memory that is given" in room(1 << 14, 4).note
    # larger samples than those of the trace take more
    assert room(4 << 20, 1, scale=4).size <= few.size / 2


def test_samples_of_a_run_do_not_depend_on_the_cores() -> None:
    assert len({room(memory, threads).size for threads in (1, 2, 8) for memory in (8 << 20,)}) == 1


@pytest.mark.parametrize("threads", [2, 3])
def test_the_same_weights_on_any_number_of_cores(threads: int) -> None:
    small = onnxprune.prune(NET, ratio=0.5, compensate="none").model
    found = [
        onnxprune.finetune(NET, small, {"x": X}, steps=3, run=onnxprune.Run(threads=count, memory=8 << 20))
        for count in (1, threads)
    ]
    assert found[0].model.proto.graph == found[1].model.proto.graph and found[0].curve == found[1].curve


def test_the_provider_reaches_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    if SECOND not in sessions.engine.onnxruntime().get_available_providers():
        pytest.skip(f"this onnxruntime has no {SECOND}")
    used: list[tuple[str, bool]] = []
    plain = sessions.Session.values

    def spy(self: sessions.Session, names: Any, feeds: Any) -> Any:
        used.append((self.provider, all(isinstance(value, np.ndarray) for value in feeds.values())))
        return plain(self, names, feeds)

    small = onnxprune.prune(NET, ratio=0.5, compensate="none").model
    wanted = onnxprune.finetune(NET, small, {"x": X}, steps=3, run=onnxprune.Run(threads=1))
    monkeypatch.setattr(sessions.Session, "values", spy)
    found = onnxprune.finetune(NET, small, {"x": X}, steps=3, run=onnxprune.Run(threads=1, provider="azure"))
    # weights are kept where the provider computes
    assert (SECOND, False) in used and (SECOND, True) in used
    assert found.model.proto.graph == wanted.model.proto.graph
    used.clear()
    onnxprune.prune(NET, {"x": X}, ratio=0.5, steps=2, run=onnxprune.Run(threads=1, provider="azure"))
    assert (SECOND, False) in used
    with pytest.raises(onnxprune.UsageError, match="no execution provider 'nothing'"):
        onnxprune.finetune(NET, small, {"x": X}, steps=3, run=onnxprune.Run(provider="nothing"))


@pytest.mark.parametrize("shape", [(1, 6, 40), (2, 40, 6), (1, 8, 8), (3, 5, 8)])
def test_long_matrices_become_orthogonal_by_their_gram_matrix(shape: tuple[int, ...]) -> None:
    matrices = (DRAW.standard_normal(shape) * np.exp(DRAW.standard_normal((shape[0], 1, shape[2])))).astype(np.float32)
    x = matrices.astype(np.float64)
    x /= np.sqrt(np.square(x).sum((1, 2), keepdims=True))
    for _ in range(5):
        gram = x @ x.transpose(0, 2, 1)
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    # float32 against float64
    np.testing.assert_allclose(orthogonal(matrices), x, atol=2e-4)


def test_weights_that_threads_change_are_those_that_one_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.compensate.descent.WORTH_THREADS", 0)
    weights = {f"w{number}": DRAW.standard_normal((6, 9)).astype(np.float32) for number in range(5)}
    slopes = [DRAW.standard_normal((6, 9)).astype(np.float32) for _ in weights]
    blocks = {"w0": (1, 6, 9), "w3": (2, 3, 9)}
    some = [Descent(weights, blocks, 0.1, 9, workers) for workers in (1, 3)]
    for descent in some:
        descent.step(slopes)
    for name in weights:
        np.testing.assert_array_equal(some[0].weights[name], some[1].weights[name])


def test_the_variance_of_parts_is_that_of_the_whole() -> None:
    parts = [{"a": (1000 + DRAW.standard_normal((4, 3))).astype(np.float32)} for _ in range(5)]
    whole = np.concatenate([part["a"].ravel() for part in parts]).astype(np.float64)
    assert variances(["a"], parts)["a"] == pytest.approx(whole.var(), rel=1e-9)
