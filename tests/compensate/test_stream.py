"""Samples for steps: each once a pass, held-out ones apart, labels beside theirs, variations that a network bears."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from onnxprune.compensate import stream as streams
from onnxprune.compensate.augment import bearable, can_mix, mixed, read_kinds, varied
from onnxprune.compensate.stream import LABELS, stream_of
from onnxprune.errors import UsageError
from onnxprune.methods.finetuning.labels import _one_hot
from onnxprune.statistics.data import read
from onnxprune.statistics.feeds import InputSpec
from onnxprune.statistics.split import places, read_in_all, split

SPEC = [InputSpec("x", np.dtype(np.float32), (None, 2))]
X = np.stack([np.arange(40), -np.arange(40)], 1).astype(np.float32)


def taken(feeds: list[dict[str, np.ndarray]]) -> list[int]:
    return [int(number) for feed in feeds for number in feed["x"][:, 0]]


@pytest.mark.parametrize("buffer", [1 << 28, 64])
def test_every_sample_comes_once_a_pass_with_its_label_and_none_that_is_held_out(
    buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BUFFER_BYTES", buffer)
    found = stream_of(read({"x": X}, SPEC), 10 * np.arange(40), samples=5, batch=5)
    held = set(taken(found.held))
    steps = [found.step(np.random.default_rng(0)) for _ in range(14)]
    for feed in (*found.held, *(feed for step in steps for feed in step)):
        np.testing.assert_array_equal(feed[LABELS], 10 * feed["x"][:, 0])
    numbers = [number for step in steps for number in taken(step)]
    first, second = numbers[:35], numbers[35:70]
    assert len(held) == 5 and sorted(first) == sorted(second) == sorted(set(range(40)) - held)
    assert first != second != sorted(second)


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_a_stream_goes_on_where_it_was(steps: int) -> None:
    whole, later = (stream_of(read({"x": X}, SPEC), None, samples=5, batch=5) for _ in range(2))
    for _ in range(steps):
        whole.step(np.random.default_rng(0))
    later.skip(steps)
    assert taken(whole.step(np.random.default_rng(0))) == taken(later.step(np.random.default_rng(0)))


def test_parts_know_which_samples_they_are() -> None:
    fit, judged = split(read({"x": X}, SPEC))
    assert judged is not None and read_in_all(fit) == 40
    for data in (fit, judged):
        numbers = np.concatenate([feed["x"][:, 0] for feed in data.batches(64)])
        np.testing.assert_array_equal(places(data), numbers)
    assert sorted([*places(fit), *places(judged)]) == list(range(40))


def test_a_mapped_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.statistics.data.PIECE_BYTES", 80)
    np.save(tmp_path / "x.npy", X)
    data = read(tmp_path / "x.npy", SPEC)
    assert [unit.samples for unit in data.stream] == [10] * 4 and data.samples == 40
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in data.batches(7)]), X)


def images(count: int = 24) -> np.ndarray:
    """Bright spots, left or right, high or low."""
    draw = np.random.default_rng(1)
    found = 0.01 * draw.standard_normal((count, 1, 24, 24)).astype(np.float32)
    for image in found:
        row, column = draw.integers(2, 20, 2)
        image[0, row : row + 3, column : column + 3] += draw.integers(1, 9)
    return found


def test_variations_that_change_what_a_network_says_are_not_taken() -> None:
    feed = {"x": images()}

    def brightness(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [feed["x"].sum((1, 2, 3))]

    def side(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [(feed["x"] * np.linspace(-1, 1, 24, dtype=np.float32)).sum((1, 2, 3))]

    assert bearable(brightness, feed) == ("flip", "shift")
    assert bearable(side, feed) == ("shift",)
    assert bearable(brightness, {"x": X}) == ()


def test_samples_are_mixed_where_mixtures_tell_something() -> None:
    feed = {"x": X}

    def plain(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [feed["x"] @ np.array([[1.0], [0.3]], np.float32)]

    def table(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Knows samples, and says the same of everything else."""
        return [np.where(np.isin(feed["x"][:, :1], X), feed["x"][:, :1], 0)]

    assert bearable(plain, feed, mixing=True) == ("mix",) and bearable(plain, feed) == ()
    assert bearable(table, feed, mixing=True) == ()
    low = np.float32(1e-6)
    assert bearable(lambda f: [*table(f), low * np.square(f["x"][:, :1] - 20)], feed, mixing=True) == ()
    odd = [np.zeros((), np.int64), np.ones((), np.float32), np.array(["a"]), np.zeros((40, 0), np.float32)]
    assert bearable(lambda f: [*plain(f), *odd], feed, mixing=True) == ("mix",)
    assert bearable(lambda f: odd, feed, mixing=True) == ()
    assert "mix" in bearable(lambda f: [f["x"].sum((1, 2, 3))], {"x": images()}, mixing=True)
    assert not can_mix({"ids": np.arange(8)}) and not can_mix({"x": X[:1]}) and not can_mix({"x": X, "y": X[:3]})


def test_mixtures_are_of_the_same_shares_in_all_arrays_and_half_stay() -> None:
    found = mixed({"x": X, "labels": 2 * X[:, :1]}, np.random.default_rng(0))
    np.testing.assert_allclose(found["labels"], 2 * found["x"][:, :1], rtol=1e-5)
    stayed = (found["x"] == X).all(axis=1)
    assert 10 < stayed.sum() < 30 and found["x"].dtype == X.dtype
    assert X.min() <= found["x"].min() and found["x"].max() <= X.max()


def test_labels_are_mixed_with_their_samples() -> None:
    ready = partial(_one_hot, classes=40)
    found = stream_of(read({"x": X}, SPEC), np.arange(40), samples=10, batch=10)
    found.kinds, found.ready = ("mix",), ready
    for feed in found.step(np.random.default_rng(0)):
        np.testing.assert_allclose(feed[LABELS] @ np.arange(40), feed["x"][:, 0], rtol=1e-5)
        np.testing.assert_array_equal(ready(feed[LABELS]), feed[LABELS])


def test_images_of_one_sample_are_varied_alike_and_others_left() -> None:
    feed = {"a": images(), "b": images(), "v": X[:24]}
    found = varied(feed, ("flip", "shift"), np.random.default_rng(0))
    np.testing.assert_array_equal(found["a"], found["b"])
    np.testing.assert_array_equal(found["v"], feed["v"])
    assert (found["a"] != feed["a"]).any() and found["a"].shape == feed["a"].shape


def test_variations_are_named() -> None:
    assert read_kinds("auto") is None and read_kinds("none") == () and read_kinds("flip,shift") == ("flip", "shift")
    with pytest.raises(UsageError, match="augment 'mirror'"):
        read_kinds("flip,mirror")
