"""Data that travel to another process: by their path where they have one, else as they are."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import DataError
from onnxprune.statistics import data as reading
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import InputSpec
from onnxprune.statistics.split import first, split

SPECS = [InputSpec("x", np.dtype(np.float32), (None, 3, 6, 6))]
VALUES = np.random.default_rng(0).standard_normal((40, 3, 6, 6)).astype(np.float32)


def npz(folder: Path) -> object:
    np.savez(folder / "data.npz", x=VALUES)
    return "data.npz"


def npy(folder: Path) -> object:
    np.save(folder / "data.npy", VALUES)
    return folder / "data.npy"


def shards(folder: Path) -> object:
    (folder / "shards").mkdir()
    for number in range(4):
        np.savez(folder / "shards" / f"{number}.npz", x=VALUES[10 * number : 10 * number + 10])
    return "shards"


def function(folder: Path) -> object:
    np.save(folder / "values.npy", VALUES)
    (folder / "load.py").write_text(
        "import numpy as np\nfrom pathlib import Path\n\n\ndef feeds():\n"
        "    yield {'x': np.load(Path(__file__).parent / 'values.npy')}\n"
    )
    return "load.py:feeds"


def images(folder: Path) -> object:
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    (folder / "images").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 255, (6, 6, 3)).astype(np.uint8)
        image.fromarray(pixels).save(folder / "images" / f"{number:02}.png")
    return "images"


def arrays(folder: Path) -> object:
    return {"x": VALUES}


def values(data: Data) -> np.ndarray:
    return np.concatenate([feed["x"] for feed in data.batches(8)])


@pytest.mark.parametrize("make", [npz, npy, shards, function, images, arrays])
def test_the_same_samples_arrive(make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = read(make(tmp_path), SPECS)  # type: ignore[operator]
    fit, held = split(data)
    assert held is not None
    parts = [data, fit, held, first(data, 7)]
    sent = [pickle.dumps(part) for part in parts]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # another process has another folder
    for part, content in zip(parts, sent, strict=True):
        again = pickle.loads(content)
        np.testing.assert_array_equal(values(again), values(part))
        assert (again.samples, again.sha256) == (part.samples, part.sha256)


def test_what_has_a_path_does_not_travel_itself(tmp_path: Path) -> None:
    data = read(npy(tmp_path), SPECS)
    assert len(pickle.dumps(data)) < 2000 < VALUES.nbytes


def test_a_stream_that_is_no_file_and_too_large_to_keep_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "KEPT_BYTES", 10)
    data = read([{"x": VALUES[:4]}, {"x": VALUES[4:8]}], SPECS)
    again = pickle.loads(pickle.dumps(data))
    with pytest.raises(DataError, match="give a path"):
        values(again)
