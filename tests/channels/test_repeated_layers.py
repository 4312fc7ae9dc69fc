"""Layers that repeat: what is remembered of one holds for the next, and nothing else changes."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from onnxprune.channels import space
from onnxprune.channels.analyse import analyse
from onnxprune.channels.space import connected, stars
from onnxprune.errors import OnnxpruneError
from onnxprune.graph.concrete_run import _Walker
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from tests import decoders
from tests.micro.build import Net


def test_shapes_are_those_that_every_node_gives_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    x = net.input("n", 6, 8)
    for rows, last in ((2, 12), (2, 12), (3, 8), (2, 12)):  # the same operators with other values and attributes
        y = net.reshape(net.Concat(x, x, axis=1), 0, rows, -1)
        x = net.slice(net.transpose(net.reshape(y, 0, last, -1), 0, 2, 1), 0, 6, axis=1 if last == 8 else 2)
        x = net.reshape(net.Gemm(net.reshape(x, -1, 4), net.weight(4, 4), transB=1), -1, 6, 8)
    net.output(x)
    for proto in (net.model(runs=False), decoders.written_out(3)):
        remembered = trace(View(Model(proto)))
        with monkeypatch.context() as patch:
            patch.setattr(_Walker, "_signature", lambda self, node: None)
            alone = trace(View(Model(proto)))
        assert remembered.shapes == alone.shapes and remembered.second.shapes == alone.second.shapes
        kinds = [{k: t.tensor_type.elem_type for k, t in found.first.types.items()} for found in (remembered, alone)]
        assert kinds[0] == kinds[1]


def test_components_are_those_of_single_ids() -> None:
    generator = np.random.default_rng(0)
    axes = [np.arange(20 * n, 20 * n + 20) for n in range(12)] + [generator.permutation(240)[:20] for _ in range(4)]
    for _ in range(20):
        ties = [(axes[a], axes[b]) for a, b in generator.integers(0, len(axes), (10, 2))]
        parents = list(range(240))

        def root(one: int, parents: list[int] = parents) -> int:
            return one if parents[one] == one else root(parents[one])

        for one, two in ((i, j) for a, b in ties for i, j in zip(a.tolist(), b.tolist(), strict=True)):
            low, high = sorted((root(one), root(two)))
            parents[high] = low
        expected = [root(one) for one in range(240)]
        assert connected(240, ties).tolist() == expected
        assert connected(240, stars(ties)).tolist() == expected
        half = connected(200, [t for t in ties[:5] if max(t[0].max(), t[1].max()) < 200])
        assert connected(240, ties, half).tolist() == expected


def test_a_long_chain_takes_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = [np.arange(4 * n, 4 * n + 4) for n in range(2000)]
    ties = stars([(axes[n + 1], axes[n]) for n in range(1999)])
    rounds = []
    monkeypatch.setattr(space.np, "array_equal", lambda a, b: rounds.append(0) or bool((a == b).all()))
    assert (connected(8000, ties) == np.arange(8000) % 4).all()
    assert len(rounds) <= 3


@pytest.mark.parametrize("is_on", [True, False])
def test_the_collector_is_as_it_was_before(is_on: bool) -> None:
    was_on = gc.isenabled()
    try:
        gc.enable() if is_on else gc.disable()
        analyse(Model(decoders.written_out(1)))
        assert gc.isenabled() == is_on
        with pytest.raises(OnnxpruneError):
            analyse(Model(decoders.written_out(1)), {"nothing": (1,)})
        assert gc.isenabled() == is_on
    finally:
        gc.enable() if was_on else gc.disable()
