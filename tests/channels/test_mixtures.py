"""Mixtures written out: experts go with the rows of their router, and a choice that is no mixture stays whole."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.channels.analyse import analyse
from onnxprune.channels.rewrite import rewrite
from onnxprune.evidence.oracle import masked_model
from onnxprune.graph.model import Model
from tests.channels.halving import halve
from tests.micro.build import Net
from tests.mixtures import EXPERTS, INNER, WIDTH, mixture
from tests.oracle import random_inputs, relative_error, run

STYLES = ("soft", "scattered", "masked", "one hot", "compared", "einsum", "picked", "sigmoid")


@pytest.mark.parametrize("style", STYLES)
def test_experts_are_groups_and_go(style: str) -> None:
    halved = halve(mixture(style))
    sizes = {group.kind: group.size for group in halved.channels.groups if group.size != WIDTH}
    assert sizes == {"expert": EXPERTS, "channel": INNER}
    assert halved.share < 0.16
    shapes = {tuple(tensor.dims) for tensor in halved.pruned.graph.initializer}
    assert (EXPERTS // 2, WIDTH // 2, INNER // 2) in shapes and (WIDTH // 2, EXPERTS // 2) in shapes


@pytest.mark.parametrize("style", ["scattered", "picked", "one hot", "compared"])
def test_every_choice_of_experts_gives_what_those_left_would_have_given(style: str) -> None:
    model = mixture(style).model()
    channels = analyse(Model(model))
    (group,) = (group for group in channels.groups if group.kind == "expert")
    feeds = random_inputs(model, np.random.default_rng(1), 16)
    for kept in ([0, 1], [2, 5], [1, 3, 4]):
        keep = {group.name: np.isin(np.arange(EXPERTS), kept)}
        pairs = zip(
            *(run(proto, feeds) for proto in (masked_model(channels, keep).proto, rewrite(channels, keep).proto)),
            strict=True,
        )
        assert max(relative_error(*pair) for pair in pairs) < 1e-5
        assert group.least == 2


def test_no_ratio_leaves_fewer_experts_than_are_taken_at_once() -> None:
    from onnxprune.methods.prune import prune
    from onnxprune.methods.prune_options import PruneOptions

    result = prune(mixture("scattered", taken=3).model(), PruneOptions(ratio=0.9, align=1, compensate="none"))
    (group,) = (group for group in result.channels.groups if group.kind == "expert")
    assert result.keep[group.name].sum() == 3


@pytest.mark.parametrize("kind", ["classes", "keys", "best classes"])
def test_what_competes_and_is_no_mixture_stays(kind: str) -> None:
    """A stack of matrices as long as the axis is there as well, but its matrices are not what is chosen among."""
    net = Net()
    x = net.linear(net.input(4, 8), 8, 6)
    stack = net.MatMul(net.unsqueeze(net.linear(net.input(4, 8, name="z"), 8, 5), 0), net.weight(6, 5, 7))
    if kind == "classes":
        y = net.linear(net.Softmax(x, axis=-1), 6, 3)
    elif kind == "keys":
        y = net.MatMul(
            net.Softmax(net.MatMul(x, net.weight(6, 6)), axis=-1), net.linear(net.input(6, 8, name="k"), 8, 3)
        )
    else:
        values, numbers = net.TopK(x, np.array([2]), axis=-1, outputs=2)
        y = net.Add(values, net.Cast(numbers, to=1))
    net.output(y, net.reduce("Sum", stack, [0]))
    channels = analyse(Model(net.model()))
    assert "expert" not in {group.kind for group in channels.groups}
    words = {"best classes": "ranked", "classes": "the axis of a softmax", "keys": "'k' is an input"}
    assert any(words[kind] in lock.reason for lock in channels.locks)
