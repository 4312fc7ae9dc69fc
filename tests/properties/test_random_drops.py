"""Dropping branches of random networks: equal to the original with their results times zero."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import NothingToPruneError
from onnxprune.evidence.dropped import masked_original
from tests import plain
from tests.methods.residual import branches_of, silenced
from tests.micro.build import Net
from tests.oracle import parity, random_inputs, relative_error, run
from tests.properties.graphs import ANY, IMAGE, TOKENS, VECTOR, Canvas, mixed, onward, start
from tests.properties.test_random_graphs import FEW

LEVELS = ("disabled", "basic")  # the higher ones compute products of dequantized weights in integers


@st.composite
def residual_networks(draw) -> onnx.ModelProto:
    """Draw a network of 2 to 5 residual blocks, of one or two random parts each, and a head."""
    net = Net(draw(st.sampled_from((13, 17, 21))), draw(st.sampled_from(("initializer", "constant"))), seed=1)
    canvas = Canvas(net, draw)
    stream = start(canvas)
    for _ in range(draw(st.integers(2, 5))):
        canvas.earlier.append(stream)
        inner = stream
        for _ in range(draw(st.integers(1, 2))):
            inner = canvas.pick(*(VECTOR, TOKENS, IMAGE)[len(inner.size)], *ANY)(canvas, inner)
        if inner.size != stream.size:
            stream = inner
            continue
        sides = [mixed(canvas, inner, stream.width), stream.name]
        stream = type(stream)(net.Add(*(sides if canvas.pick(True, False) else sides[::-1])), stream.width, stream.size)
    while stream.size:
        stream = onward(canvas, stream)
    net.output(net.gemm(net.Relu(net.gemm(stream.name, stream.width, 8)), 8, 3))
    return net.model()


def test_most_random_residual_graphs_have_branches_and_a_drop_equals_the_silenced_original() -> None:
    found: list[bool] = []

    @FEW
    @given(residual_networks(), st.integers(0, 99))
    def check(original: onnx.ModelProto, seed: int) -> None:
        rng = np.random.default_rng(seed)
        free = [branch for branch in branches_of(original) if branch.reason is None]
        found.append(bool(free))
        chosen = [branch for branch in free if rng.random() < 0.5]
        if not chosen:
            return
        result = plain.prune(original, drop=[branch.name for branch in chosen])
        onnx.checker.check_model(result.model.proto, full_check=True)
        # float32 through a dozen layers with products rounds to 1e-5; a branch that was left is above 1e-2
        assert parity(silenced(original, chosen), result.model.proto, {}, LEVELS) < 1e-3

    check()
    assert np.mean(found) >= 0.9


@FEW
@given(residual_networks(), st.integers(0, 99))
def test_channels_and_branches_together_equal_the_masked_original(original: onnx.ModelProto, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [branch.name for branch in branches_of(original) if branch.reason is None and rng.random() < 0.5]
    try:
        result = plain.prune(original, drop=names, ratio=0.5, align=1, score="random", seed=seed)
    except NothingToPruneError:
        return
    feeds = random_inputs(original, rng, 3)
    masked = masked_original(result.channels, result.keep, result.short).proto
    pairs = zip(run(masked, feeds), run(result.model.proto, feeds), strict=True)
    assert [v.shape for v in run(result.model.proto, feeds, "all")] == [v.shape for v in run(original, feeds)]
    assert max(relative_error(a, b) for a, b in pairs) < 1e-3
