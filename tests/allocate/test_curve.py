"""Curves follow what was measured, and do not believe scores where errors jump."""

import numpy as np
import pytest

from onnxprune.allocate.curve import like, measured_curve, shape_of
from onnxprune.allocate.measuring import SHARES

WIDTHS = list(range(64, 7, -4))
SCORES = np.cumsum(np.linspace(1e-3, 1.0, 64))


def asked(error, scores=SCORES, shares=SHARES):
    counts = []

    def measure(count):
        counts.append(count)
        return error(count)

    return measured_curve(WIDTHS, scores, shares, measure), counts


def test_measured_widths_keep_their_errors_and_errors_rise():
    curve, counts = asked(lambda count: (count / 64) ** 7)
    assert len(counts) == len(SHARES)
    for count in counts:
        assert curve.at(64 - count) == pytest.approx((count / 64) ** 7)
    assert curve.errors[0] == 0 and (np.diff(curve.errors) >= 0).all()


def test_a_curve_that_goes_as_the_scores_is_clear_after_three_widths():
    ordered = np.sort(SCORES)
    curve, counts = asked(lambda count: float(ordered[count - 1]))
    assert len(counts) == 3
    for width, error in zip(curve.widths[1:], curve.errors[1:], strict=True):
        assert error == pytest.approx(ordered[64 - width - 1], rel=0.35)


def test_a_curve_that_stays_at_nothing_needs_no_width_in_between():
    curve, counts = asked(lambda count: 0.0)
    assert len(counts) == 1 and curve.errors.max() < 1e-10


def test_between_nothing_and_a_large_error_widths_are_not_free():
    """Half of the channels cost nothing, what goes behind them does: ratios of scores would say 1e-5 in the middle."""
    curve, _ = asked(lambda count: 1e-12 if count <= 32 else (count - 32) / 32)
    assert curve.at(24) > 0.05
    assert curve.at(36) < 1e-6


def test_scores_without_numbers_give_the_square_of_the_share():
    shape = shape_of(np.full(8, np.inf), np.array([0, 4, 8]))
    np.testing.assert_allclose(shape, [0, 0.25, 1])


@pytest.mark.parametrize("widths", [[5], [64, 32]])
def test_few_widths_make_a_curve(widths):
    curve = measured_curve(widths, SCORES[: widths[0]], SHARES, lambda count: 0.5)
    assert curve.widths == widths and curve.errors[0] == 0 and curve.errors[-1] == (0.5 if len(widths) > 1 else 0)


def test_a_group_that_is_not_measured_is_like_the_others():
    curves = [asked(lambda count, f=factor: f * (count / 64) ** 2)[0] for factor in (1, 2, 30)]
    found = like([128, 64], curves)
    assert found.at(64) == pytest.approx(2 * 0.25, rel=0.2)
