"""Every registered rule has a line that says which groups it gives; the lines are what they were."""

import pytest

import onnxprune
from onnxprune.channels.registry import RULES
from tests.channels import golden
from tests.channels.drawn import DRAWN, model

NEWER = 40
"""At most so many lines are of node models that the oldest onnx in use does not have."""


def test_every_rule_has_a_line() -> None:
    """Where one is missing: draw it in tests/channels/drawn.py, then python -m tests.channels.golden."""
    assert {".".join(filter(None, key)) for key in RULES} == set(golden.lines())


def test_the_groups_are_those_of_the_table() -> None:
    """A difference that is meant belongs into the review: python -m tests.channels.golden writes the table again."""
    moved, absent = [], 0
    for operator, (source, expected) in golden.lines().items():
        proto = golden.graph(source)
        if proto is None:
            absent += 1
        elif golden.groups(proto) != expected:
            moved.append(f"{operator} ({source}): {golden.groups(proto)} instead of {expected}")
    assert moved == []
    assert absent <= NEWER


def test_most_rules_have_something_to_prune() -> None:
    assert sum('"groups": []' not in found for _, found in golden.lines().values()) > len(RULES) * 2 // 3


RIGHT = ["BitwiseXor", "HannWindow", "MelWeightMatrix", "QLinearConcat", "QGemm", "DynamicQuantizeLSTM"]
"""A few of the drawings, of as many families; prune verifies against the original with the channels zeroed."""


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_drawn_is_pruned_right(name: str) -> None:
    key = next(key for key in DRAWN if key[1] == name)
    found = onnxprune.prune(model(key), ratio=0.5, align=1, compensate="none", run=onnxprune.Run(threads=1))
    assert len(found.keep) > 0
