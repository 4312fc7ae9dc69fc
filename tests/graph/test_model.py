"""Reading models: every kind of source, external data, and input that is refused in one clear line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import zoo
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model, load
from tests.graph.small import external, relocate, small_model, tensor


def test_a_path_bytes_a_proto_and_a_graphsurgeon_graph_give_the_same_model(tmp_path: Path) -> None:
    proto = small_model()
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    assert load(path).proto == load(str(path)).proto == load(path.read_bytes()).proto == load(proto).proto == proto
    model = load(path)
    assert load(model) is model
    surgeon = load(onnx_graphsurgeon.import_onnx(proto))
    assert [n.op_type for n in surgeon.proto.graph.node] == ["Gemm"]
    assert surgeon.proto.ir_version == 8
    np.testing.assert_array_equal(surgeon.array(tensor(surgeon, "w")), model.array(tensor(model, "w")))


def test_a_graphsurgeon_graph_made_in_memory_gets_an_ir_version_that_runtimes_read() -> None:
    x = onnx_graphsurgeon.Variable("x", np.float32, (1, 4))
    y = onnx_graphsurgeon.Variable("y", np.float32, (1, 4))
    node = onnx_graphsurgeon.Node("Relu", inputs=[x], outputs=[y])
    graph = onnx_graphsurgeon.Graph([node], [x], [y], opset=17)
    assert load(graph).proto.ir_version == 8


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "m.onnx"
    onnx.save(small_model(), path)
    assert load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == load(path.read_bytes()).sha256


@pytest.mark.parametrize("one_file", [True, False])
def test_external_content_is_read_but_not_loaded(tmp_path: Path, one_file: bool) -> None:
    model = load(external(tmp_path, one_file))
    assert not any(t.raw_data for t in model.proto.graph.initializer)
    embedded = load(small_model())
    for name in ("w", "b"):
        np.testing.assert_array_equal(model.array(tensor(model, name)), embedded.array(tensor(embedded, name)))
    files = [p for p in tmp_path.iterdir() if p.name != "m.onnx"]
    assert len(files) == (1 if one_file else 2)
    assert model.size_bytes == model.proto.ByteSize() + 4 * (64 * 64 + 64)


@pytest.mark.parametrize(
    "dtype",
    [
        np.float32,
        np.float64,
        np.float16,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.int4,
        np.int64,
        np.bool_,
    ],
)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 2)])
def test_every_type_is_read_embedded_and_external(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    content = (np.arange(15).reshape(3, 5) % 7).astype(dtype)[: shape[0] if shape else None]
    content = content[0, 0] if shape == () else np.resize(content, shape).astype(dtype)
    content = np.asarray(content, dtype=dtype)
    stored = numpy_helper.from_array(content, "t")
    model = Model(onnx.ModelProto(), tmp_path / "m.onnx")
    assert model.array(stored).dtype == content.dtype
    np.testing.assert_array_equal(model.array(stored).astype(np.float64), content.astype(np.float64))

    (tmp_path / "t.data").write_bytes(b"\xff" * 16 + stored.raw_data)
    outside = TensorProto(name="t", dims=shape, data_type=stored.data_type, data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="t.data")
    outside.external_data.add(key="offset", value="16")
    np.testing.assert_array_equal(model.array(outside).astype(np.float64), content.astype(np.float64))


def test_what_is_read_cannot_be_written_into() -> None:
    model = load(small_model(helper.make_tensor("plain", TensorProto.FLOAT, [2], [1.0, 2.0])))
    for name in ("w", "plain"):
        with pytest.raises(ValueError, match="read-only"):
            model.array(tensor(model, name))[0] = 0


@pytest.mark.parametrize("dims", [[4096], [1], [2**62, 4], [3, -1]])
def test_content_that_does_not_fit_its_shape_is_named(dims: list[int]) -> None:
    with pytest.raises(ModelError, match=r"'odd'.*(does not fit|not negative)|not valid"):
        load(small_model(TensorProto(name="odd", dims=dims, data_type=TensorProto.FLOAT, raw_data=b"12345678")))


@pytest.mark.parametrize("name", ["GNN", "LSTM", "mobilevit_xxs", "shufflenet_v2_x1_0"])
def test_zoo_graphs_pass(name: str) -> None:
    assert load(zoo.build(name)).proto.graph.node


def test_trained_networks_of_all_exporters_pass() -> None:
    assert all(load(path).proto.graph.node for path in zoo.trained())


def test_old_files_whose_initializers_are_inputs_pass() -> None:
    proto = small_model()
    proto.ir_version, proto.opset_import[0].version = 3, 7
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 64]))
    proto.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [64]))
    assert load(proto).proto is proto


def test_nodes_of_unknown_domains_are_no_error() -> None:
    proto = small_model()
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Strange", "my.company"
    proto.opset_import.add(domain="my.company", version=3)
    assert load(proto).proto is proto


def _changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    proto = small_model()
    change(proto)
    return proto.SerializeToString()


BAD_FILES = {
    "empty": (b"", "is empty"),
    "text": (b"this is not a model\n" * 20, "not an ONNX model"),
    "zeros": (bytes(1000), "not an ONNX model"),
    "truncated": (small_model().SerializeToString()[:-900], "truncated"),
    "another proto": (small_model().graph.SerializeToString(), "not an ONNX model"),
    "no graph": (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
    "old opset": (_changed(lambda p: p.opset_import[0].MergeFrom(helper.make_opsetid("", 6))), "opset 6 is older"),
    "new opset": (_changed(lambda p: p.opset_import[0].MergeFrom(helper.make_opsetid("", 999))), "opset 999 is newer"),
    "old IR": (_changed(lambda p: setattr(p, "ir_version", 2)), "IR version 2 is older"),
    "new IR": (_changed(lambda p: setattr(p, "ir_version", 99)), "IR version 99 is newer"),
    "no opset": (_changed(lambda p: p.ClearField("opset_import")), "not valid ONNX"),
    "cycle": (_changed(lambda p: p.graph.node[0].input.__setitem__(0, "y")), "not valid ONNX"),
    "no folder": (_changed(lambda p: setattr(p.graph.initializer[0], "data_location", 1)), "names no data file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_line_that_names_the_file(tmp_path: Path, case: str) -> None:
    content, expected = BAD_FILES[case]
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=expected) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_missing_files_and_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        load("/dev/zero")
    with pytest.raises(ModelError, match="not int"):
        load(3)  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_model(), path)
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read"):
        load(path)


def test_missing_short_and_damaged_external_data_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    (path.parent / "m.data").write_bytes(bytes(100))
    with pytest.raises(ModelError, match=r"'w'.*ends 16284 bytes too early"):
        load(path)
    (path.parent / "m.data").unlink()
    with pytest.raises(ModelError, match=r"'w'.*'m\.data' is missing"):
        load(path)
    (path.parent / "m.data").mkdir()
    with pytest.raises(ModelError, match="not a regular file"):
        load(path)
    for field, value, expected in (
        ("length", "8", "has 8"),
        ("offset", "-1", "not a number"),
        ("length", "x", "not a"),
    ):
        path = external(tmp_path / f"{field}{value}")
        relocate(path, "w", **{field: value})
        with pytest.raises(ModelError, match=expected):
            load(path)


@pytest.mark.parametrize("where", ["../secret", "sub/../../secret", "{}/secret", "link", "folder/secret"])
def test_external_data_outside_the_folder_are_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    path = external(tmp_path / "model")
    (path.parent / "link").symlink_to(tmp_path / "secret")
    (path.parent / "folder").symlink_to(tmp_path)
    (path.parent / "sub").mkdir()
    relocate(path, "w", location=where.format(tmp_path))
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)


def test_external_data_without_a_path_are_refused(tmp_path: Path) -> None:
    proto = onnx.load(external(tmp_path), load_external_data=False)
    with pytest.raises(ModelError, match="came without a path"):
        load(proto)
