"""The trained networks: real exports of three exporters (torch, torch dynamo, Paddle), pruned by half."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from models import zoo
from onnxprune.evidence.oracle import masked_model
from tests import plain
from tests.oracle import parity, random_inputs, relative_error, run, share_left


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", zoo.trained(), ids=named)
def test_a_trained_network_loses_half_its_channels_and_nothing_else(path: Path) -> None:
    original = onnx.load(path)
    result = plain.prune(original, ratio=0.5, align=1)
    masked = masked_model(result.channels, result.keep).proto
    feeds = random_inputs(original, np.random.default_rng(1), 2, dynamic=64)
    pairs = zip(run(masked, feeds, "all"), run(result.model.proto, feeds, "all"), strict=True)
    assert max(relative_error(a, b) for a, b in pairs) < 1e-4
    assert share_left(original, result.model.proto) < (0.55 if "silero" in named(path) else 0.35)  # states stay


@pytest.mark.parametrize("path", [p for p in zoo.trained() if "ocr" not in str(p)], ids=named)
def test_an_exact_prune_of_a_trained_network_equals_the_zeroed_original(path: Path) -> None:
    original = onnx.load(path)
    result = plain.prune(original, ratio=0.5, align=1, exact_only=True, score="random")
    assert parity(original, result.model.proto, result.plan.removed) < 1e-4


@pytest.mark.parametrize("path", zoo.trained(), ids=named)
def test_ratio_zero_leaves_a_trained_network_as_it_is(path: Path) -> None:
    original = onnx.load(path)
    assert plain.prune(original, ratio=0).model.proto == original
