"""What is drawn from a seed stays: with fewer positions each would get another number."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from tests.micro.build import Net
from tests.oracle import parity


def noisy(kind: str, **attributes: float) -> Net:
    """Return a network with random numbers of the width of a layer that can be pruned, and one without."""
    net = Net(opset=17)
    y = net.Relu(net.MatMul(net.input("batch", 6), net.weight(6, 16)))
    if kind == "Dropout":
        y = net.Dropout(y, np.array(0.5, np.float32), np.array(True), **attributes)
    elif kind == "Bernoulli":
        y = net.Mul(y, net.Bernoulli(net.Sigmoid(y), **attributes))
    else:
        y = net.Add(y, net.op(kind, y, **attributes))
    net.output(net.MatMul(net.Relu(net.MatMul(y, net.weight(16, 12))), net.weight(12, 3)))
    return net


KINDS = ["Dropout", "Bernoulli", "RandomNormalLike", "RandomUniformLike"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_pins_what_is_drawn_and_nothing_else(kind: str) -> None:
    original = noisy(kind, seed=3 if kind == "Dropout" else 3.0).model()
    result = onnxprune.prune(original, ratio=0.5, align=1, compensate="none")
    assert [group.size for group in result.channels.groups] == [12]
    assert any("follow from a seed" in lock.reason for lock in result.channels.locks)
    assert parity(original, result.model.proto, result.plan.removed) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_seed_every_run_draws_anew_and_positions_can_go(kind: str) -> None:
    result = onnxprune.prune(noisy(kind).model(), ratio=0.5, align=1, compensate="none")
    assert {group.size for group in result.channels.groups} == {12, 16}
