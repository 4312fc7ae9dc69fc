"""Every source of calibration data gives the same feeds, and data that do not fit end in one clear line."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import DataError
from onnxprune.statistics.data import read
from onnxprune.statistics.feeds import Feed, InputSpec
from onnxprune.statistics.image_options import ImageOptions
from onnxprune.statistics.sources import open_source, read_arrays

FLOAT = np.dtype(np.float32)
SPECS = [InputSpec("x", FLOAT, (None, 3, 4))]
VALUES = np.random.default_rng(0).normal(size=(10, 3, 4)).astype(np.float32)


def stacked(feeds: Iterator[Feed], name: str = "x") -> np.ndarray:
    return np.concatenate([feed[name] for feed in feeds])


class Reader:
    def __init__(self) -> None:
        self.left = list(VALUES)

    def get_next(self) -> Feed | None:
        return {"x": self.left.pop(0)[None]} if self.left else None


def write_sources(folder: Path) -> dict[str, object]:
    np.savez(folder / "named.npz", x=VALUES, _y=np.arange(10))
    np.savez(folder / "other.npz", whatever=VALUES)
    np.save(folder / "plain.npy", VALUES)
    np.savez(folder / "feeds.npz", _mode="feeds", x=VALUES[:, None])
    for kind in ("npz", "npy"):
        (folder / kind).mkdir()
    for i in range(10):
        np.savez(folder / "npz" / f"{i}.npz", x=VALUES[i : i + 1])
        np.save(folder / "npy" / f"{i}.npy", VALUES[i])
    (folder / "code.py").write_text(
        "import numpy as np\n"
        "def feeds():\n    for v in np.load(__file__.replace('code.py', 'plain.npy')):\n        yield {'x': v[None]}\n"
    )
    files = ["named.npz", "other.npz", "plain.npy", "feeds.npz", "npz", "npy", "code.py:feeds"]
    return {name: folder / name for name in files} | {
        "reader": Reader(),
        "list": [{"x": VALUES[:7]}, {"x": VALUES[7:]}],
        "generator": ({"x": v[None]} for v in VALUES),
        "dict": {"x": VALUES},
    }


def test_every_source_gives_the_same_samples_twice_and_in_order(tmp_path: Path) -> None:
    for name, source in write_sources(tmp_path).items():
        data = read(source, SPECS)
        assert data.samples == 10, name
        for _ in range(2):
            np.testing.assert_array_equal(stacked(iter(data)), VALUES, err_msg=name)


@pytest.mark.parametrize(("size", "lengths"), [(4, [4, 4, 2]), (10, [10]), (1, [1] * 10), (32, [10])])
def test_a_dynamic_batch_is_cut_and_joined_to_the_asked_size(size: int, lengths: list[int]) -> None:
    feeds = list(read([{"x": VALUES[:3]}, {"x": VALUES[3:]}], SPECS, batch=size))
    assert [len(feed["x"]) for feed in feeds] == lengths
    np.testing.assert_array_equal(stacked(iter(feeds)), VALUES)


def test_a_fixed_batch_is_filled_and_the_rest_left_out_with_a_warning() -> None:
    data = read([{"x": v[None]} for v in VALUES], [InputSpec("x", FLOAT, (4, 3, 4))], batch=3)
    assert [feed["x"].shape for feed in data] == [(4, 3, 4)] * 2
    assert any("fixed batch of 4: 2 of 10" in warning for warning in data.warnings)
    with pytest.raises(DataError, match="fixed batch of 16"):
        read({"x": VALUES}, [InputSpec("x", FLOAT, (16, 3, 4))])


def test_inputs_whose_first_axis_is_no_batch_are_fed_whole() -> None:
    specs = [InputSpec("x", FLOAT, (None, 4)), InputSpec("h", FLOAT, (1, 1, 2))]
    data = read({"x": VALUES, "h": np.ones((10, 1, 1, 2), np.float32)}, specs, batch=5)
    assert [(f["x"].shape, f["h"].shape) for f in data] == [((3, 4), (1, 1, 2))] * 10


def test_samples_limits_what_is_read_and_changes_the_hash() -> None:
    def endless() -> Iterator[Feed]:
        while True:
            yield {"x": VALUES[:2]}

    class Endless:
        def __iter__(self) -> Iterator[Feed]:
            return endless()

    assert len(stacked(iter(read(Endless(), SPECS, samples=5)))) == 5
    hashes = {read({"x": VALUES}, SPECS, samples=n).sha256 for n in (5, 6, None, 10)}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": VALUES, "z": VALUES}, "no array for the input 'x'"),
        ({"x": VALUES[:, :2]}, r"shape \[10, 2, 4\], the model wants 'x' float32\[\?, 3, 4\]"),
        ({"x": VALUES[:0]}, "no samples"),
        ({"x": np.where(VALUES > 1, np.nan, VALUES)}, "NaN"),
        ({"x": VALUES.astype(complex)}, "complex128"),
        ({"x": np.full((1, 3, 4), 1e300)}, "would not survive"),
        ({"x": np.full((1, 3, 4), 2**53 + 1)}, "would not survive"),
    ],
)
def test_data_that_do_not_fit_are_refused(arrays: Feed, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(arrays, SPECS)


def test_types_change_only_where_values_survive() -> None:
    assert next(iter(read({"x": np.zeros((1, 3, 4), np.uint8)}, SPECS)))["x"].dtype == np.float32
    assert next(iter(read({"x": VALUES.astype(np.float64)}, SPECS)))["x"].dtype == np.float32
    ids = [InputSpec("ids", np.dtype(np.int32), (None, 2))]
    assert next(iter(read({"ids": np.array([[1, 2]])}, ids)))["ids"].dtype == np.int32
    for values in (np.array([[1.0, 2.0]]), np.array([[1, 2**40]])):
        with pytest.raises(DataError, match="int32"):
            read({"ids": values}, ids)


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="different numbers of samples"):
        read({"x": VALUES, "m": VALUES[:3]}, [*SPECS, InputSpec("m", FLOAT, (None, 3, 4))])


def test_pickles_damaged_files_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez_compressed(tmp_path / "large.npz", x=np.zeros(1 << 20))
    monkeypatch.setattr("onnxprune.statistics.packed.LIMIT_BYTES", 1 << 20)
    for name in ("objects.npz", "broken.npz", "empty.npy", "large.npz"):
        with pytest.raises(DataError, match=name):
            read_arrays(tmp_path / name)


def test_only_the_rows_that_are_wanted_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    values = np.arange(5000 * 12, dtype=np.float32).reshape(5000, 3, 4)
    np.savez_compressed(path, x=values)
    monkeypatch.setattr("onnxprune.statistics.packed.LIMIT_BYTES", 4096)
    assert np.array_equal(next(iter(read(path, SPECS, samples=7)))["x"], values[:7])
    with pytest.raises(DataError, match="when unpacked"):
        read(path, SPECS)
    fixed = [InputSpec("x", FLOAT, (5000, 3, 4)), InputSpec("y", FLOAT, (2, 3, 4))]
    with pytest.raises(DataError, match="when unpacked"):  # the first axis counts no samples here
        read(path, fixed, samples=7)


@pytest.mark.parametrize("shape", ["(-1, 3, 4)", "(10**12, 3, 4)", "(9" + "9" * 5000 + ",)", "[3]", "(3,) + x"])
def test_headers_are_not_believed(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(64)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError):
        read(tmp_path / "x.npz", SPECS)


def test_a_single_number_is_no_sample() -> None:
    with pytest.raises(DataError, match="single number"):
        read({"x": np.float32(3)}, SPECS)


def test_a_path_that_leads_nowhere_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("def broken():\n    raise RuntimeError('boom')\ndef odd():\n    return [3]\n")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "missing.npz": "no such file",
        "empty": "no .npz",
        "code.py": "which function",
        "code.py:none": "no function 'none'",
        "code.py:broken": "RuntimeError: boom",
        "code.py:odd": "not a dict",
        "gone.py:f": "no such file",
    }.items():
        with pytest.raises(DataError, match=message):
            read(tmp_path / name, SPECS)


def test_constant_data_and_one_sample_are_warned_about() -> None:
    assert any("constant" in warning for warning in read({"x": np.ones((4, 3, 4), np.float32)}, SPECS).warnings)
    assert any("one sample" in warning for warning in read({"x": VALUES[:1]}, SPECS).warnings)
    assert read({"x": VALUES}, SPECS).warnings == ()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_are_resized_scaled_and_laid_out(tmp_path: Path, layout: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    for i in range(3):
        image.new("RGB", (5, 7), (0, 51 * i, 255)).save(tmp_path / f"{i}.png")
    shape = (None, 3, 2, 4) if layout == "NCHW" else (None, 2, 4, 3)
    options = ImageOptions(mean=(0.0, 0.2, 0.0), std=(1.0, 0.2, 0.5))
    x = stacked(iter(read(tmp_path, [InputSpec("x", FLOAT, shape)], images=options)))
    x = x if layout == "NCHW" else x.transpose(0, 3, 1, 2)
    assert x.shape == (3, 3, 2, 4)
    np.testing.assert_allclose(x[:, :, 1, 3], [[0, i - 1, 2] for i in range(3)], atol=1e-6)


def test_images_without_a_size_or_for_another_kind_of_input_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    for spec, message in [
        (InputSpec("x", FLOAT, (None, 3, None, None)), "--image-size"),
        (InputSpec("x", FLOAT, (None, 7)), "4-D"),
        (InputSpec("x", FLOAT, (None, 3, 8, 8)), "not a readable image|Pillow"),
    ]:
        with pytest.raises(DataError, match=message):
            read(tmp_path, [spec])


def test_a_source_is_opened_again_for_every_pass() -> None:
    source = open_source([{"x": VALUES}], SPECS, ImageOptions())
    assert len(list(source())) == len(list(source())) == 1


def test_arrays_with_and_without_an_axis_of_samples_go_together() -> None:
    """A state whose batch stands on axis 1, a rate that is one number: samples are counted on an axis of their own."""
    specs = [InputSpec("x", FLOAT, (None, 4)), InputSpec("h", FLOAT, (2, None, 3)), InputSpec("rate", FLOAT, ())]
    x, h = VALUES[:, 0], np.arange(60, dtype=np.float32).reshape(10, 2, 1, 3)
    for rate in (np.full(10, 8, np.float32), np.float32(8)):
        data = read({"x": x, "h": h, "rate": rate}, specs, samples=7)
        feeds = list(data)
        assert data.samples == len(feeds) == 7
        for index, feed in enumerate(feeds):
            np.testing.assert_array_equal(feed["x"], x[index : index + 1])
            np.testing.assert_array_equal(feed["h"], h[index])
            assert feed["rate"].shape == () and feed["rate"] == 8


def test_what_has_no_axis_of_samples_is_the_same_for_all() -> None:
    specs = [InputSpec("x", FLOAT, (None, 4)), InputSpec("h", FLOAT, (2, 1, 3)), InputSpec("k", FLOAT, (None,))]
    h, k = np.arange(6, dtype=np.float32).reshape(2, 1, 3), np.ones(3, np.float32)
    for feed in read({"x": VALUES, "h": h, "k": k}, specs):
        assert feed["x"].shape == (3, 4) and feed["k"].shape == (3,)
        np.testing.assert_array_equal(feed["h"], h)


def test_arrays_that_count_different_numbers_of_samples_are_refused() -> None:
    specs = [InputSpec("x", FLOAT, (None, 4)), InputSpec("h", FLOAT, (2, 1, 3)), InputSpec("s", FLOAT, (1,))]
    with pytest.raises(DataError, match="different numbers of samples"):
        read({"x": VALUES, "h": np.ones((9, 2, 1, 3), np.float32), "s": np.ones(1, np.float32)}, specs)
