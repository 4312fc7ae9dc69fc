"""A recipe, its data and its model come from elsewhere: none of them runs code or reads beside its folder unasked."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import read_recipe, run_recipe
from onnxprune.errors import DataError, ModelError, OnnxpruneError, UsageError
from tests import networks


class Trap:
    """Unpickling it leaves a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    networks.store(networks.convnet(), tmp_path / "net.onnx")
    (tmp_path / "trap.py").write_text("import os\nos.mkdir('executed')\ndef feeds():\n    return []\n")
    np.savez(tmp_path / "trap.npz", x=np.array([Trap()], dtype=object))
    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object))
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("data: trap.npz", DataError),
        ("data: trap.npy", DataError),
        ("data: trap.py", DataError),
        ("gates: {max_drop: 1, eval: trap.py}", UsageError),
        ("about: !!python/object/apply:os.mkdir [executed]", UsageError),
    ],
)
def test_nothing_is_executed_that_is_not_named_as_a_function(
    folder: Path, lines: str, error: type[OnnxpruneError]
) -> None:
    (folder / "r.yaml").write_text(f"model: net.onnx\nthreads: 1\n{lines}\nsteps: [prune]\n")
    with pytest.raises(error):
        run_recipe(folder / "r.yaml")
    assert not (folder / "executed").exists()


def test_a_function_that_is_named_is_run(folder: Path) -> None:
    (folder / "r.yaml").write_text("model: net.onnx\ndata: trap.py:feeds\nsteps: [prune]\n")
    with pytest.raises(DataError, match="no samples"):
        run_recipe(folder / "r.yaml")
    assert (folder / "executed").exists()


def test_reading_a_recipe_alone_runs_nothing(folder: Path) -> None:
    (folder / "r.yaml").write_text("data: trap.py:feeds\ngates: {max_drop: 1, eval: trap.py:feeds}\nsteps: [prune]\n")
    read_recipe(folder / "r.yaml")
    assert not (folder / "executed").exists()


def test_data_that_unpack_beyond_the_limit_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.statistics.packed.LIMIT_BYTES", 1 << 18)
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        stored = io.BytesIO()
        np.save(stored, np.zeros((1 << 12, 3, 12, 12), dtype=np.float32))
        archive.writestr("x.npy", stored.getvalue())
    assert (folder / "bomb.npz").stat().st_size < 1 << 16
    (folder / "r.yaml").write_text("model: net.onnx\ndata: bomb.npz\nsteps: [prune]\n")
    with pytest.raises(DataError, match="unpacked"):
        run_recipe(folder / "r.yaml")


def test_weights_outside_the_folder_of_the_model_are_refused(folder: Path) -> None:
    proto = onnx.load(folder / "net.onnx")
    tensor = proto.graph.initializer[0]
    (folder / "secret").write_bytes(tensor.raw_data or b"\0" * 4096)
    (folder / "inner").mkdir()
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (folder / "inner" / "net.onnx").write_bytes(proto.SerializeToString())
    (folder / "r.yaml").write_text("model: inner/net.onnx\nsteps: [prune]\n")
    with pytest.raises(ModelError, match="outside"):
        run_recipe(folder / "r.yaml")
