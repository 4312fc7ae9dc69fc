"""The figures of parity agree with their definitions, whatever the outputs hold."""

import json

import numpy as np
import pytest

from onnxprune.evidence.kinds import Kind
from onnxprune.evidence.parity import Meter, Meters, Variety


def measure(reference: np.ndarray, other: np.ndarray) -> Meter:
    meter = Meter()
    meter.add(reference, other)
    return meter


def test_figures_over_streamed_samples_equal_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20, 10)).astype(np.float32)
    b = (a + 0.1 * rng.standard_normal((20, 10))).astype(np.float32)
    meter = Meter()
    for start in range(0, 20, 3):
        meter.add(a[start : start + 3], b[start : start + 3])
    result = meter.result()
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    assert result is not None
    assert result.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert result.sqnr_db == pytest.approx(10 * np.log10((x @ x) / ((x - y) @ (x - y))))
    assert result.max_abs == pytest.approx(np.abs(x - y).max())
    assert result.agreement == np.mean(a.argmax(1) == b.argmax(1))


def test_minus_infinity_in_the_same_place_is_equal() -> None:
    a = np.array([[1.0, 2.0, -np.inf]])
    result = measure(a, a.copy()).result()
    assert result is not None and result.is_finite
    assert (result.cosine, result.sqnr_db, result.max_abs) == (pytest.approx(1.0), 300.0, 0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_on_both_sides_are_never_equal(value: float) -> None:
    a = np.array([[1.0, 2.0], [1.0, value]])
    result = measure(a, a.copy()).result()
    assert result is not None and result.not_finite == (0.25, 0.25)
    assert (result.cosine, result.max_abs, result.agreement) == (0.0, None, 0.5)


def test_an_offset_that_all_samples_share_does_not_hide_what_varies() -> None:
    rng = np.random.default_rng(0)
    a, b = (100.0 + rng.standard_normal((64, 6)) for _ in range(2))
    result = measure(a, b).result()
    assert result is not None and result.centred_cosine is not None
    assert result.cosine > 0.999 and abs(result.centred_cosine) < 0.3
    mean = a.mean(0)
    x, y = (a - mean).ravel(), (b - mean).ravel()
    assert result.centred_cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_what_varies_is_found_by_features_where_samples_have_different_lengths() -> None:
    rng = np.random.default_rng(0)
    meter, offset = Meter(), np.array([50.0, -30.0, 10.0, 0.0])
    for length in (30, 50, 90):
        a = offset + rng.standard_normal((1, length, 4))
        meter.add(a, offset + rng.standard_normal(a.shape))
    result = meter.result()
    assert result is not None and result.centred_cosine is not None
    assert result.cosine > 0.99 and abs(result.centred_cosine) < 0.5


def test_one_sample_and_constant_outputs_have_no_figure_of_what_varies() -> None:
    assert measure(np.ones((1, 4)), np.ones((1, 4))).result().centred_cosine is None
    assert measure(np.ones((9, 4)), np.zeros((9, 4))).result().centred_cosine is None


def test_a_model_that_has_become_constant_is_unlike_what_varies() -> None:
    a = np.random.default_rng(0).standard_normal((32, 4))
    assert measure(a, np.tile(a.mean(0), (32, 1))).result().centred_cosine == 0.0


def test_log_odds_see_what_the_cosine_of_small_probabilities_does_not() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.001, 0.02, (40, 5)), rng.uniform(0.001, 0.02, (40, 5))
    a[:, 0] = b[:, 0] = rng.uniform(0.3, 0.9, 40)
    meter = Meter(Kind("values", squash="sigmoid"))
    meter.add(a, b)
    result = meter.result()
    assert result is not None and result.log_odds_cosine is not None and result.centred_cosine is not None
    assert result.centred_cosine > 0.99 and result.log_odds_cosine < 0.8


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_on_one_side_only_is_no_parity_at_all(value: float) -> None:
    result = measure(np.array([1.0, 2.0]), np.array([1.0, value])).result()
    assert result is not None
    assert (result.cosine, result.sqnr_db, result.max_abs) == (0.0, -300.0, None)
    assert measure(np.array([1.0, 2.0]), np.array([1.0, value])).relative_error() == np.inf


def test_zeros_against_zeros_are_equal_and_against_ones_are_not() -> None:
    same, other = measure(np.zeros(4), np.zeros(4)).result(), measure(np.zeros(4), np.ones(4)).result()
    assert same is not None and other is not None
    assert (same.cosine, same.sqnr_db) == (1.0, 300.0)
    assert (other.cosine, other.sqnr_db) == (0.0, -300.0)


def test_classes_of_a_map_are_on_axis_one_and_of_anything_else_on_the_last_axis() -> None:
    a = np.zeros((1, 2, 3, 3))
    b = a.copy()
    a[:, 1] = 1
    b[:, 1, :2] = 1
    assert measure(a, b).result().agreement == pytest.approx(6 / 9)
    assert measure(a[..., 0], b[..., 0]).result().agreement == 1.0


def test_integers_agree_where_they_are_equal() -> None:
    assert measure(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])).result().agreement == 0.75


def test_integers_that_are_numbers_have_no_agreement_but_a_cosine() -> None:
    a = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
    meters = Meters({"image": Kind("values")})
    meters.add({"image": a}, {"image": np.where(a < 255, a + 1, a).astype(np.uint8)})
    found = meters.results()["image"]
    assert found is not None and found.agreement is None and found.top1 is None
    assert found.cosine > 0.999 and found.centred_cosine is not None and found.centred_cosine > 0.999


def test_one_class_has_no_agreement() -> None:
    assert measure(np.ones((4, 1)), np.ones((4, 1))).result().agreement is None


def test_outputs_of_different_shapes_are_named_and_not_compared() -> None:
    meters = Meters()
    meters.add({"boxes": np.ones((3, 4))}, {"boxes": np.ones((2, 4))})
    assert meters.results() == {"boxes": None}
    assert meters.shapes() == {"boxes": ((3, 4), (2, 4))}


def test_figures_are_valid_json_whatever_happens() -> None:
    for other in (np.array([np.nan, 1.0]), np.array([1.0, 2.0]), np.zeros(2)):
        figures = measure(np.array([1.0, 2.0]), other).result().to_json()
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_an_output_that_is_empty_says_nothing() -> None:
    meters = Meters()
    meters.add({"boxes": np.ones((0, 4))}, {"boxes": np.ones((0, 4))})
    assert meters.results() == {"boxes": None} and meters.empty() == ["boxes"]


def test_outputs_that_do_not_depend_on_the_input_are_noticed() -> None:
    same, other, single = Variety(), Variety(), Variety()
    for value in (1.0, 1.0):
        same.add({"y": np.full(3, value)})
    for value in (1.0, 2.0):
        other.add({"y": np.full(3, value)})
    single.add({"y": np.ones(3)})
    assert same.is_missing and not other.is_missing and not single.is_missing
