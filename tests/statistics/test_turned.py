"""Few images are used mirrored and turned as well; many, and what is no image, stay as they are."""

import numpy as np
import pytest

from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import InputSpec
from onnxprune.statistics.turning import FEW, turned_if_few

FLOAT = np.dtype(np.float32)


def data(count: int, *shape: int) -> Data:
    values = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    return read({"x": values}, [InputSpec("x", FLOAT, (None, *shape))])


@pytest.mark.parametrize(("shape", "rows", "columns"), [((3, 4, 6), 2, 3), ((5, 6, 1), 1, 2)])
def test_every_image_is_seen_in_four_positions(shape: tuple[int, ...], rows: int, columns: int) -> None:
    few = data(5, *shape)
    grown = turned_if_few(few)
    assert grown.samples == 20
    (before,) = [feed["x"] for feed in few]
    after = np.concatenate([feed["x"] for feed in grown])
    wanted = [before, np.flip(before, columns), np.flip(before, rows), np.flip(before, (rows, columns))]
    np.testing.assert_array_equal(after, np.concatenate(wanted))
    assert "5 images are few" in grown.warnings[-1]


def test_enough_images_and_other_inputs_stay() -> None:
    for same in (data(FEW, 1, 4, 4), data(5, 7, 4, 6), data(5, 16)):
        assert turned_if_few(same) is same


def test_a_copy_that_is_there_already_does_not_count_twice() -> None:
    (images,) = [feed["x"] for feed in data(5, 1, 4, 6)]
    both = np.concatenate([images, images[:, :, ::-1, ::-1]])
    given = read({"x": both}, [InputSpec("x", FLOAT, (None, 1, 4, 6))])
    grown = np.concatenate([feed["x"] for feed in turned_if_few(given)])
    assert len({image.tobytes() for image in grown}) == len(grown) == 20


def test_images_of_several_sizes_stay() -> None:
    feeds = [{"x": np.ones((1, 3, size, 8), np.float32)} for size in (4, 6)]
    mixed = read(feeds, [InputSpec("x", FLOAT, (None, 3, None, 8))])
    assert turned_if_few(mixed) is mixed
