"""Masked parity of every operator of ONNX's backend suite, one axis of one input at a time."""

from __future__ import annotations

import os
from collections import Counter

from tests.backend.between import Place, places, sample, verdicts

PLACES = 100_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 150
"""All of them nightly (`HYPOTHESIS_PROFILE=nightly python -m pytest tests/backend`), else as many operators as fit."""


def test_every_operator_between_two_products_is_pruned_right_or_left_alone() -> None:
    chosen = sample(PLACES)
    found = dict(verdicts(chosen))
    wrong = {place: verdict for place, verdict in found.items() if verdict.startswith("wrong")}
    assert not wrong, wrong
    counts = Counter(found.values())
    assert counts["right"] > len(chosen) // 3, counts  # the test must have something to judge


def test_the_sample_meets_operators_of_every_kind() -> None:
    models = {place.model for place in sample(PLACES)}
    assert len(models) > min(PLACES, len({place.model for place in places()})) // 2


def test_every_float_axis_is_a_place() -> None:
    assert Place("test_transpose_default", 0, 2) in places("test_transpose_default")
