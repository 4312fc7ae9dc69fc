"""Every graph of the zoo: prunes, runs at every optimization level, computes what the zeroed original computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

import onnxprune
from models import zoo
from tests import plain
from tests.oracle import LEVELS, is_dynamic, random_inputs, relative_error, session, share_left, zeroed
from tests.zoo import golden

SHARES = {"BERT": 0.6}  # its last hidden state is an output, so the residual width stays
SHARE = 0.37  # everything else
HEADS = "/m/head/{}_head/Concat_12_output_0"
INNER = {  # random weights detect nothing, so the outputs of the heads are compared instead
    "ssdlite320_mobilenet_v3_large": (HEADS.format("regression"), HEADS.format("classification"))
}


@dataclass
class Pair:
    """An original and what a prune of half its channels made of it."""

    name: str
    original: onnx.ModelProto
    result: onnxprune.PruneResult

    @property
    def pruned(self) -> onnx.ModelProto:
        return self.result.model.proto


@pytest.fixture(scope="module", params=zoo.names())
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    original = zoo.build(request.param)
    yield Pair(request.param, original, plain.prune(original, ratio=0.5, align=1))


def observed(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a copy with inner tensors as outputs, where that shows more."""
    if name not in INNER:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(inner) for inner in INNER[name])
    return copy


def test_runs_at_every_level_and_keeps_the_output_shapes(pair: Pair) -> None:
    batches = (2, 3) if is_dynamic(pair.original) else (1,)
    feeds = [random_inputs(pair.original, np.random.default_rng(batch), batch) for batch in batches]
    reference = session(pair.original)
    shapes = [[value.shape for value in reference.run(None, feed)] for feed in feeds]
    for number, level in enumerate(LEVELS):
        at = number % len(feeds)
        assert [value.shape for value in session(pair.pruned, level).run(None, feeds[at])] == shapes[at], level


def test_leaves_no_more_parameters_than_it_should(pair: Pair) -> None:
    assert share_left(pair.original, pair.pruned) <= SHARES.get(pair.name, SHARE)
    assert not pair.result.channels.state.defects


def test_an_exact_prune_equals_the_original_with_zeroed_slices(pair: Pair) -> None:
    chosen = {group.name for group in pair.result.channels.groups if group.exact}
    result = pair.result
    if not set(result.keep) <= chosen:
        result = plain.prune(pair.original, ratio=0.5, align=1, exact_only=True)
    feeds = random_inputs(pair.original, np.random.default_rng(3), 2)
    whole, reference, pruned = (
        session(observed(proto, pair.name), "basic").run(None, feeds)
        for proto in (pair.original, zeroed(pair.original, result.plan.removed), result.model.proto)
    )
    moved = max(relative_error(a, b) for a, b in zip(whole, reference, strict=True))
    assert moved > 1e-3, "the prune changes nothing that can be seen, so parity shows nothing"
    # float32 rounding through up to 200 layers is 1e-6; a wrong channel is above 1e-2
    assert max(relative_error(a, b) for a, b in zip(reference, pruned, strict=True)) < 1e-4


def test_the_groups_are_those_of_the_golden_table(pair: Pair) -> None:
    expected = json.loads(golden.path(pair.name).read_text())
    found = json.loads(golden.text(golden.table(pair.original)))
    assert found == expected, f"if this is meant: python -m tests.zoo.golden {pair.name}"
