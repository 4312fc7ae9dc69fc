"""What a constant answer loses is the unit of labels: by hand, for every criterion."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from onnxprune.methods.finetuning.labels import Labels, fitted, fitted_sequences


def test_classes_lose_the_entropy_of_their_shares() -> None:
    labels = np.array([0, 0, 1, 2])
    by_hand = -(0.5 * log(0.5) + 2 * 0.25 * log(0.25))
    assert fitted(labels, (4, 3), None, "y").chance == pytest.approx(by_hand)
    assert fitted(np.eye(3)[labels], (4, 3), "cross-entropy", "y").chance == pytest.approx(by_hand)


def test_numbers_lose_their_variance_about_the_mean_of_each_output() -> None:
    values = np.array([[1.0, 10], [3, 10], [1, 14], [3, 14]])
    assert fitted(values, (4, 2), None, "y").chance == pytest.approx((1 + 4) / 2)


def test_shares_of_every_output_lose_their_binary_entropy() -> None:
    values = np.array([[1.0, 1], [0, 1], [1, 1], [0, 0]])
    by_hand = (log(2) - 0.75 * log(0.75) - 0.25 * log(0.25)) / 2
    assert fitted(values, (4, 2), "bce", "y").chance == pytest.approx(by_hand)


def test_sequences_lose_the_entropy_of_their_symbols_for_as_many_as_there_are() -> None:
    values = np.array([[1, 2, -1, -1], [1, 2, 1, 2]])
    assert fitted_sequences(values, (2, 9, 4), 9, 0, "y").chance == pytest.approx(log(2) * 6 / 8)


@pytest.mark.parametrize("criterion", ["cross-entropy", "mse"])
def test_labels_that_are_all_the_same_have_the_unit_one(criterion: str) -> None:
    assert Labels(np.zeros(5, np.int64), criterion, np.asarray).chance == 1.0
