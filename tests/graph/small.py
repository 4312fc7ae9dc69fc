"""A small model, embedded and with external data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.graph.model import Model


def small_model(*extra: TensorProto) -> onnx.ModelProto:
    """x (N, 64) @ w (64, 64) + b, and tensors that nothing reads."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((64, 64)).astype(np.float32), "w"),
        numpy_helper.from_array(random.standard_normal(64).astype(np.float32), "b"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [*weights, *extra],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def external(folder: Path, one_file: bool = True) -> Path:
    """Write the small model with its weights in other files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "m.onnx"
    proto = small_model()
    onnx.save(
        proto,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        location="m.data" if one_file else None,
        size_threshold=0,
    )
    return path


def tensor(model: Model, name: str) -> TensorProto:
    return next(t for t in model.proto.graph.initializer if t.name == name)


def relocate(path: Path, name: str, **fields: str) -> None:
    """Change where a tensor says its content is."""
    proto = onnx.load(path, load_external_data=False)
    for entry in tensor(Model(proto), name).external_data:
        entry.value = fields.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
