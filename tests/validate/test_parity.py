"""The figures of parity agree with their definitions, whatever the outputs hold."""

import json

import numpy as np
import pytest

from onnxprune.validate.parity import Meter, Meters, Variety


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


def test_equal_outputs_are_identical_even_with_nan_and_infinity_in_the_same_place() -> None:
    a = np.array([[1.0, np.nan, np.inf, -np.inf]])
    result = measure(a, a.copy()).result()
    assert result is not None
    assert (result.cosine, result.sqnr_db, result.max_abs) == (1.0, 300.0, 0.0)


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
