"""Classes that go: the outputs that stay equal the original's at the positions that stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.evidence.oracle import masked_model
from onnxprune.methods.trim import TrimOptions, trim
from tests.oracle import random_inputs, session
from tests.trimming import more_heads  # noqa: F401
from tests.trimming.heads import HEADS, Head

EXACT = 2e-6
"""Relative: weights are the same, sums are taken in another order by kernels of another width."""


def outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    opened = session(model, "all")
    return dict(zip([o.name for o in opened.get_outputs()], opened.run(None, feeds), strict=True))


def wanted(head: Head) -> dict[str, object]:
    first = head.model.graph.output[0].name
    return {key.replace("OUT", first): spec for key, spec in head.keep.items()}


def weights(model: onnx.ModelProto) -> int:
    constants = [a.t for n in model.graph.node for a in n.attribute if n.op_type == "Constant"]
    stored = [*model.graph.initializer, *constants]
    return sum(int(np.prod(t.dims)) for t in stored if t.data_type in (1, 3, 10))


def far(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return np.inf
    size = np.abs(one.astype(np.float64)).max(initial=1e-12)
    return float(np.abs(one.astype(np.float64) - other).max(initial=0) / size)


@pytest.mark.parametrize("name", HEADS)
def test_kept_classes_give_what_they_gave(name: str) -> None:
    head = HEADS[name]()
    feeds = random_inputs(head.model, np.random.default_rng(1), 2)
    result = trim(head.model, TrimOptions(keep=wanted(head)))
    onnx.checker.check_model(result.model.proto, full_check=True)
    before, after = outputs(head.model, feeds), outputs(result.model.proto, feeds)
    tolerance = 2e-3 if name == "half_precision" else EXACT
    for output, value in head.expected(before).items():
        assert far(value, after[output]) <= tolerance, output
    masked = outputs(masked_model(result.channels, {}).proto, feeds)
    for output, value in after.items():
        if value.shape == masked[output].shape:
            assert far(masked[output], value) <= tolerance, output
    assert head.grows or weights(result.model.proto) < weights(head.model)
