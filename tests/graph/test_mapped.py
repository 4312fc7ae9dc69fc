"""Large external tensors are views of one mapped file, and a vast model is run where its weights lie."""

from __future__ import annotations

import mmap
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.graph import mapped
from onnxprune.graph.model import Model, load
from onnxprune.graph.session import Session, open_session
from onnxprune.types import Array

SIDE = 768
"""A square of float16 of this side has more than a megabyte."""


def _files_of(array: Array) -> set[int]:
    """Return the identity of the mapped file behind an array."""
    found: object = array
    while isinstance(found, np.ndarray | memoryview):
        found = found.base if isinstance(found, np.ndarray) else found.obj
    return {id(found)} if isinstance(found, mmap.mmap) else set()


def _written(folder: Path, arrays: dict[str, Array], offset: int = 0) -> Model:
    """Return a model that multiplies by a float32 square, with all the arrays in one file."""
    tensors, content = [], bytes(offset)
    for name, array in arrays.items():
        tensor = numpy_helper.from_array(array, name)
        entries = (("location", "m.data"), ("offset", str(len(content))), ("length", str(len(tensor.raw_data))))
        content += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries:
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    node = helper.make_node("MatMul", ["x", next(iter(arrays))], ["y"])
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIDE])] for name in "xy"]
    graph = helper.make_graph([node], "g", *ends, tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (folder / "m.data").write_bytes(content)
    onnx.save(proto, folder / "m.onnx")
    return load(folder / "m.onnx")


def _square(kind: type) -> Array:
    return np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(kind)


def test_large_tensors_of_all_types_are_views_of_one_mapping(tmp_path: Path) -> None:
    kinds = (np.float32, np.float16, ml_dtypes.bfloat16, np.int64)
    arrays: dict[str, Array] = {kind.__name__: (8 * _square(np.float32)).astype(kind) for kind in kinds}
    model = _written(tmp_path, arrays)
    found = {tensor.name: model.array(tensor) for tensor in model.proto.graph.initializer}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name].view(np.uint8), array.view(np.uint8))
        assert not found[name].flags.writeable
    assert len(set.union(*map(_files_of, found.values()))) == 1


@pytest.mark.parametrize("case", ["small", "packed", "between two numbers"])
def test_what_cannot_be_a_view_is_read(tmp_path: Path, case: str) -> None:
    array = {
        "small": np.ones(8, np.float32),
        "packed": np.ones((2, SIDE * SIDE), ml_dtypes.int4),
        "between two numbers": _square(np.float32),
    }[case]
    model = _written(tmp_path, {"w": array}, offset=2 if case == "between two numbers" else 0)
    found = model.array(model.proto.graph.initializer[0])
    assert np.array_equal(found.astype(np.float32), array.astype(np.float32))
    assert not _files_of(found)


def test_a_file_that_is_replaced_is_mapped_anew(tmp_path: Path) -> None:
    one = _written(tmp_path, {"w": _square(np.float32)})
    before = one.array(one.proto.graph.initializer[0])
    (tmp_path / "other").write_bytes(bytes(before.nbytes))
    (tmp_path / "other").replace(tmp_path / "m.data")
    after = one.array(one.proto.graph.initializer[0])
    assert not after.any()
    assert before.any()


@pytest.mark.parametrize("given", ["file", "model", "graph"])
def test_a_vast_model_is_run_without_copies_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    model = _written(tmp_path, {"w": _square(np.float32)})
    x = np.ones((2, SIDE), np.float32)

    def opened(spinning: bool = False) -> Session:
        source = {"file": model.path, "model": model, "graph": model.proto}[given]
        assert source is not None
        return open_session(source, folder=tmp_path, threads=1, spinning=spinning)

    def copies(session: Session) -> bool:
        key = "session.disable_prepacking"
        try:
            return bool(session.native.get_session_options().get_session_config_entry(key) != "1")
        except RuntimeError:  # nothing was said of it
            return True

    expected = opened().run({"x": x})["y"]
    assert copies(opened())
    monkeypatch.setattr(mapped, "VAST_BYTES", 1 << 20)
    assert not copies(opened())
    assert copies(opened(spinning=True))
    np.testing.assert_allclose(opened().run({"x": x})["y"], expected, rtol=1e-5, atol=1e-3)
