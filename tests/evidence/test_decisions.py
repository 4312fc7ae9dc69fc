"""Which samples changed their class, in which order, and the pictures of them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

from onnxprune.evidence.decisions import MOST, Decisions
from onnxprune.evidence.kinds import SCORES, VALUES, Kind
from onnxprune.report.decision_section import to_png

KINDS = {"y": Kind(SCORES, axis=1, squash="softmax"), "box": Kind(VALUES)}


def found(before: np.ndarray, after: np.ndarray, kinds: dict[str, Kind] = KINDS, batch: int = 4) -> list[tuple]:
    collected = Decisions(kinds)
    for start in range(0, len(before), batch):
        part = slice(start, start + batch)
        feed = {"x": np.zeros((len(before[part]), 3), np.float32)}
        collected.add(feed, {"y": before[part], "box": before[part]}, {"y": after[part], "box": -after[part]})
    return [(told.output, told.sample, told.before, told.after) for told in collected.results({"y", "box"})]


def test_what_changed_comes_first_where_the_original_was_most_sure() -> None:
    before = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [0.99, 0.01]])
    after = np.array([[0.4, 0.6], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9]])
    assert found(before, after) == [("y", 4, 0, 1), ("y", 0, 0, 1), ("y", 1, 0, 1)]
    assert found(before, before) == []


def test_no_more_are_kept_than_are_shown() -> None:
    chance = np.random.default_rng(0)
    before = chance.random((100, 2))
    after = before[:, ::-1]
    told = found(before, after)
    margins = np.abs(before[:, 0] - before[:, 1])
    assert len(told) == MOST
    sure = before.max(1)
    assert [sample for _, sample, _, _ in told] == np.argsort(-sure)[:MOST].tolist() and margins.all()


@pytest.mark.parametrize("shape", [(4, 2, 5), (4, 1), (3, 2)])
def test_what_is_no_decision_of_a_sample_is_left_out(shape: tuple[int, ...]) -> None:
    """A map has many decisions a sample; a single score, and an axis that is not that of samples, have none."""
    values = np.random.default_rng(0).random(shape)
    feed = {"x": np.zeros((4, 3), np.float32)}
    collected = Decisions(KINDS)
    collected.add(feed, {"y": values}, {"y": -values})
    assert collected.results({"y"}) == ()


@pytest.mark.parametrize("shape", [(2, 3, 96, 80), (2, 96, 80, 3), (2, 1, 96, 80)])
def test_images_get_small_pictures(shape: tuple[int, ...]) -> None:
    feed = {"state": np.zeros((2, 4), np.float32), "x": np.random.default_rng(0).random(shape).astype(np.float32)}
    collected = Decisions(KINDS)
    collected.add(feed, {"y": np.array([[1.0, 0], [1, 0]])}, {"y": np.array([[0.0, 1], [1, 0]])})
    (told,) = collected.results({"y"})
    assert told.picture is not None and told.picture.shape[:2] == (48, 40) and told.picture.dtype == np.uint8
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    colours = told.picture.ndim == 3
    data = to_png([row.tobytes() for row in told.picture], 40, colours=colours)
    opened = image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    assert np.array_equal(np.asarray(opened), told.picture)
