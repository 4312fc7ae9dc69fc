"""Writing models: nothing is lost, nothing is half written, no input is harmed."""

from __future__ import annotations

import dataclasses
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import zoo
from onnxprune.errors import OnnxpruneError, OutputError
from onnxprune.graph import data_file
from onnxprune.graph.model import Model, load
from onnxprune.graph.provenance import with_provenance, without_provenance
from onnxprune.graph.save import check_output, save
from onnxprune.types import Array
from tests.graph.small import external, small_model, tensor


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def arrays(path: Path) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def run(path: Path) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.ones((2, 64), np.float32)})[0])


HEAVY = {"alexnet", "convnext_tiny", "nfnet_l0", "resnext50_32x4d", "vgg16_bn", "vit_b_16"}
"""More than 100 MB each: they would take as long as all others together."""


@pytest.mark.parametrize("name", [name for name in zoo.names() if name not in HEAVY])
def test_a_graph_of_the_zoo_comes_out_as_it_went_in(tmp_path: Path, name: str) -> None:
    proto = zoo.build(name)
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    save(load(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == proto
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.parametrize("source", zoo.trained(), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_trained_network_comes_out_bit_for_bit(tmp_path: Path, source: Path) -> None:
    save(load(source), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(source)
    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()


def test_fields_that_onnx_does_not_know_survive(tmp_path: Path) -> None:
    unknown = b"\xba\x3e\x05hello"  # field 999 of the model
    content = small_model().SerializeToString() + unknown
    save(load(content), tmp_path / "out.onnx")
    assert unknown in (tmp_path / "out.onnx").read_bytes()


@pytest.mark.parametrize("one_file", [True, False])
def test_external_weights_stay_external_in_one_file(tmp_path: Path, one_file: bool) -> None:
    source = external(tmp_path / "in", one_file)
    before = files(source.parent)
    save(load(source), tmp_path / "out.onnx")
    model, data = sorted(p.name for p in tmp_path.iterdir() if p.is_file())
    assert model == "out.onnx"
    assert data.startswith("out.onnx.")
    assert data.endswith(".data")
    for name, array in arrays(source).items():
        np.testing.assert_array_equal(arrays(tmp_path / "out.onnx")[name], array)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx"), run(source))
    assert files(source.parent) == before
    changed, old = load(tmp_path / "out.onnx").proto, load(source).proto
    for t in (*changed.graph.initializer, *old.graph.initializer):
        t.ClearField("external_data")
    assert changed == old


def test_tied_tensors_share_their_bytes(tmp_path: Path) -> None:
    source = external(tmp_path / "in")
    proto = onnx.load(source, load_external_data=False)
    twin = proto.graph.initializer.add()
    twin.CopyFrom(tensor(Model(proto), "w"))
    twin.name = "twin"
    source.write_bytes(proto.SerializeToString())
    save(load(source), tmp_path / "out.onnx")
    assert next(tmp_path.glob("*.data")).stat().st_size == 4 * (64 * 64 + 64)


def test_pending_content_is_made_when_written(tmp_path: Path) -> None:
    source = load(external(tmp_path / "in"))
    proto = onnx.ModelProto()
    proto.CopyFrom(source.proto)
    proto.graph.initializer[0].dims[:] = [64, 32]
    proto.graph.initializer[1].dims[:] = [32]
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 32
    new = np.arange(64 * 32, dtype=np.float32).reshape(32, 64).T  # not contiguous
    bias = source.array(tensor(source, "b"))[:32]
    made: list[str] = []

    def make(name: str, array: Array) -> Array:
        made.append(name)
        return array

    model = Model(proto, source.path, {"w": lambda: make("w", new), "b": lambda: make("b", bias)})
    assert made == []
    save(model, tmp_path / "out.onnx", source=source)
    np.testing.assert_array_equal(arrays(tmp_path / "out.onnx")["w"], new)
    np.testing.assert_array_equal(arrays(tmp_path / "out.onnx")["b"], bias)
    assert run(tmp_path / "out.onnx").shape == (2, 32)
    assert made == ["w", "b"]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.int4, np.float16])
def test_pending_content_of_narrow_types_is_packed(tmp_path: Path, dtype: type) -> None:
    content = (np.arange(4096) % 7).astype(dtype)
    proto = small_model(numpy_helper.from_array(content, "t"))
    proto.ir_version, proto.opset_import[0].version = 10, 21
    (tmp_path / "in").mkdir()
    onnx.save(proto, tmp_path / "in" / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    source = load(tmp_path / "in" / "m.onnx")
    save(dataclasses.replace(source, pending={"t": lambda: content[::-1]}), tmp_path / "out.onnx")
    written = load(tmp_path / "out.onnx")
    np.testing.assert_array_equal(written.array(tensor(written, "t")), content[::-1])


def test_a_wrong_pending_content_is_rejected(tmp_path: Path) -> None:
    source = load(external(tmp_path / "in"))
    with pytest.raises(OnnxpruneError, match=r"'w'.*16 bytes.*16384"):
        save(dataclasses.replace(source, pending={"w": lambda: np.zeros(4, np.float32)}), tmp_path / "out.onnx")
    assert files(tmp_path) == files_of(tmp_path / "in", "in/")


def test_pending_content_of_an_embedded_tensor_is_no_silent_loss(tmp_path: Path) -> None:
    for key in ("w", "nothing"):
        with pytest.raises(OnnxpruneError, match=f"'{key}'"):
            save(Model(small_model(), pending={key: lambda: np.zeros(4096)}), tmp_path / "out.onnx")
    assert files(tmp_path) == {}


def files_of(folder: Path, prefix: str) -> dict[str, bytes]:
    return {prefix + name: content for name, content in files(folder).items()}


def test_weights_too_large_to_embed_go_to_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_file, "EMBEDDED_LIMIT", 1000)
    save(load(small_model()), tmp_path / "out.onnx")
    assert load(tmp_path / "out.onnx").proto.graph.initializer[0].data_location == TensorProto.EXTERNAL
    np.testing.assert_array_equal(
        arrays(tmp_path / "out.onnx")["w"], load(small_model()).array(small_model().graph.initializer[0])
    )


def test_large_tensors_are_aligned_to_pages(tmp_path: Path) -> None:
    proto = small_model(numpy_helper.from_array(np.ones(1 << 19, np.float32), "large"))
    (tmp_path / "in").mkdir()
    onnx.save(proto, tmp_path / "in" / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    save(load(tmp_path / "in" / "m.onnx"), tmp_path / "out.onnx")
    stored = tensor(load(tmp_path / "out.onnx"), "large")
    assert int({e.key: e.value for e in stored.external_data}["offset"]) == 1 << 16
    assert arrays(tmp_path / "out.onnx")["large"].all()


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    source = load(external(tmp_path / "in"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(source, tmp_path / name / "out.onnx")
    (tmp_path / "b" / "out.onnx").write_bytes(b"something older")
    save(source, tmp_path / "b" / "out.onnx")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_output_is_replaced_with_its_data(tmp_path: Path) -> None:
    source = load(external(tmp_path / "in"))
    save(source, tmp_path / "out.onnx")
    (tmp_path / "out.onnx.mine.data").write_bytes(b"not part of any model")
    first = set(tmp_path.glob("*.data"))
    save(dataclasses.replace(source, pending={"b": lambda: np.zeros(64, np.float32)}), tmp_path / "out.onnx")
    second = set(tmp_path.glob("*.data"))
    assert len(first) == len(second) == 2
    assert len(first & second) == 1
    assert not arrays(tmp_path / "out.onnx")["b"].any()


class RejectedError(Exception):
    pass


@pytest.mark.parametrize("error", [RejectedError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["embedded", "external"])
def test_a_failed_check_leaves_the_old_output(tmp_path: Path, error: type[BaseException], kind: str) -> None:
    source = load(external(tmp_path / "in")) if kind == "external" else load(small_model())
    save(source, tmp_path / "out.onnx")
    before = files(tmp_path)
    seen: list[Array] = []

    def check(path: Path) -> None:
        seen.append(run(path))
        raise error

    pending = {"b": lambda: np.zeros(64, np.float32)} if kind == "external" else {}
    for model in (source, dataclasses.replace(source, pending=pending)):
        with pytest.raises(error):
            save(model, tmp_path / "out.onnx", check=check)
        with pytest.raises(error):
            save(model, tmp_path / "new.onnx", check=check)
    assert len(seen) == 4
    assert files(tmp_path) == before


@pytest.mark.parametrize("kind", ["embedded", "external"])
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_ctrl_c_at_any_moment_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, moment: str
) -> None:
    source = load(external(tmp_path / "in")) if kind == "external" else load(small_model())
    before = files(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if moment == "fsync":
        monkeypatch.setattr(os, "fsync", interrupt)
    else:
        monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(source, tmp_path / "out.onnx")
    assert files(tmp_path) == before


def test_ctrl_c_after_the_rename_keeps_the_new_output_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load(external(tmp_path / "in"))
    rename = Path.replace

    def late(path: Path, target: Path) -> None:
        rename(path, target)
        if target.name == "out.onnx":
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", late)
    with pytest.raises(KeyboardInterrupt):
        save(source, tmp_path / "out.onnx")
    np.testing.assert_array_equal(arrays(tmp_path / "out.onnx")["w"], arrays(tmp_path / "in" / "m.onnx")["w"])


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["embedded", "external"])
def test_a_file_that_cannot_be_finished_leaves_the_old_output(tmp_path: Path, kind: str) -> None:
    source = load(external(tmp_path / "in")) if kind == "external" else load(small_model())
    (tmp_path / "out.onnx").write_bytes(b"old")
    before = files(tmp_path)
    with limited_files(10_000), pytest.raises(OutputError, match="cannot be written") as caught:
        save(source, tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        save(load(small_model()), tmp_path / "out.onnx")
    assert files(tmp_path) == {}


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    source = external(tmp_path)
    (tmp_path / "hard.onnx").hardlink_to(source)
    (tmp_path / "soft.onnx").symlink_to(source)
    (tmp_path / "calib.npz").write_bytes(b"data")
    before = files(tmp_path)
    model = load(source)
    for name in ("m.onnx", "hard.onnx", "soft.onnx", "m.data"):
        with pytest.raises(OutputError, match="is an input"):
            save(model, tmp_path / name)
    with pytest.raises(OutputError, match="is an input"):
        save(load(small_model()), tmp_path / "m.onnx", source=model)
    with pytest.raises(OutputError, match="is an input"):
        save(load(small_model()), tmp_path / "calib.npz", inputs=[tmp_path / "calib.npz"])
    assert files(tmp_path) == before


def test_no_clobber_keeps_an_existing_output(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"old")
    with pytest.raises(OutputError, match="exists"):
        save(load(small_model()), tmp_path / "out.onnx", clobber=False)
    assert (tmp_path / "out.onnx").read_bytes() == b"old"
    save(load(small_model()), tmp_path / "new.onnx", clobber=False)
    assert run(tmp_path / "new.onnx").shape == (2, 64)


def test_places_that_cannot_be_written_are_refused_before_any_work(tmp_path: Path) -> None:
    for target, expected in (
        (tmp_path, "is a folder"),
        (tmp_path / "missing" / "out.onnx", "does not exist"),
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / ("x" * 300), "cannot be written"),
    ):
        with pytest.raises(OutputError, match=expected) as caught:
            check_output(target)
        assert "\n" not in str(caught.value)


def test_an_invalid_result_is_not_written(tmp_path: Path) -> None:
    source = load(small_model())
    broken = small_model()
    broken.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 63
    with pytest.raises(OnnxpruneError, match="shapes of the result") as caught:
        save(Model(broken), tmp_path / "out.onnx", source=source)
    assert caught.value.exit_code == 1
    broken.graph.node[0].op_type = "Nope"
    with pytest.raises(OnnxpruneError, match="not valid"):
        save(Model(broken), tmp_path / "out.onnx", source=source)
    assert files(tmp_path) == {}


def test_what_shape_inference_finds_in_the_source_is_no_error(tmp_path: Path) -> None:
    source = small_model()
    source.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 63
    path = tmp_path / "in.onnx"
    path.write_bytes(source.SerializeToString())
    save(load(path), tmp_path / "out.onnx")
    save(load(source), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == source


def test_provenance_touches_no_other_key(tmp_path: Path) -> None:
    proto = small_model()
    helper.set_model_props(proto, {"names": "{0: 'cat'}", "onnxprune.mine": "stays", "stride": "32"})
    once = with_provenance(proto, "abc", {"ratio": 0.4, "align": None, "name": "ä"})
    twice = with_provenance(once, "def", {"ratio": 0.5})
    keys = ["names", "onnxprune.mine", "stride", "onnxprune.version", "onnxprune.options", "onnxprune.source_sha256"]
    assert [p.key for p in once.metadata_props] == [p.key for p in twice.metadata_props] == keys
    assert once.metadata_props[4].value == '{"align":null,"name":"ä","ratio":0.4}'
    assert twice.metadata_props[5].value == "def"
    assert without_provenance(twice) == proto
    assert len(proto.metadata_props) == 3
    save(load(twice), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == twice
