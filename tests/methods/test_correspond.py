"""Positions that are left of a tensor are found by their values, whatever was fitted since."""

import numpy as np
import pytest

from onnxprune.methods.finetuning.correspond import matched
from onnxprune.methods.finetuning.written import kept_zeros

DRAW = np.random.default_rng(5)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_positions_are_found_in_their_order(axis: int, noise: float) -> None:
    old = DRAW.standard_normal((64, 12, 12)).astype(np.float32)
    kept = np.sort(DRAW.choice(12, 7, replace=False))
    new = np.take(old, kept, axis=axis)
    found, likeness = matched(old, 3 * new + noise * 3 * DRAW.standard_normal(new.shape) + 1, axis)
    np.testing.assert_array_equal(found, kept)
    assert likeness > 0.6


def test_what_does_not_correspond_is_told_by_its_likeness() -> None:
    old, new = DRAW.standard_normal((64, 12, 40)), DRAW.standard_normal((64, 5, 40))
    assert matched(old, new, 1)[1] < 0.2


def test_zeros_of_matrices_are_kept_and_those_of_biases_are_not() -> None:
    whole, none = np.ones((3, 3)), np.zeros((3, 3))
    found = kept_zeros({"w": np.eye(3), "b": np.zeros(3), "whole": whole, "none": none}, {})
    assert list(found) == ["w"] and int(found["w"].sum()) == 6
