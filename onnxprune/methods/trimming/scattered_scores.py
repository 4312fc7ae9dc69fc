"""Scores over a vocabulary, computed for the kept tokens, spread to the old width so that the interface stays."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.errors import NothingToPruneError
from onnxprune.graph.initializers import add, free_name
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from onnxprune.methods.trimming.axes import AxisCut
from onnxprune.types import Array


def spread_scores(model: Model, cut: AxisCut, rank: int, data_type: int) -> onnx.ModelProto:
    """Return the model whose output has its old width again: y[.., t] = x[.., table[t]], the lowest number elsewhere.

    Args:
        model: already cut; its output `cut.tensor` is narrow.
        rank: axes of the output.
        data_type: `onnx.TensorProto` type of the output.

    Raises:
        NothingToPruneError: the output is made where no nodes can be added, or holds no floats.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    view = View(Model(proto, model.path))
    producer = next((node for node in proto.graph.node if cut.tensor in node.output), None)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    if producer is None or dtype.kind != "f":
        raise NothingToPruneError(f"output '{cut.tensor}' holds no scores that could be spread to the old width.")
    parts = ("kept", "padded", "pads", "lowest", "table")
    names = {part: free_name(f"{cut.tensor}_{part}", view.keys) for part in parts}
    for node in proto.graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name == cut.tensor:
                    field[index] = names["kept"]
    pads = np.zeros(2 * rank, dtype=np.int64)
    pads[rank + cut.axis] = 1
    table = np.where(cut.kept, np.cumsum(cut.kept) - 1, int(cut.kept.sum())).astype(np.int64)
    lowest = np.array(np.finfo(dtype).min, dtype=dtype)
    stored: list[tuple[str, Array]] = [(names["table"], table)]
    if view.opsets.get("", 1) >= 11:
        stored += [(names["pads"], pads), (names["lowest"], lowest)]
        pad = onnx.helper.make_node("Pad", [names["kept"], names["pads"], names["lowest"]], [names["padded"]])
    else:
        pad = onnx.helper.make_node("Pad", [names["kept"]], [names["padded"]], pads=pads.tolist(), value=float(lowest))
    pad.name = names["padded"]
    gather = onnx.helper.make_node(
        "Gather", [names["padded"], names["table"]], [cut.tensor], name=cut.tensor, axis=cut.axis
    )
    for name, array in stored:
        add(proto, name, array)
    proto.graph.node.extend([pad, gather])
    for value in proto.graph.output:
        if value.name == cut.tensor and len(value.type.tensor_type.shape.dim) == rank:
            value.type.tensor_type.shape.dim[cut.axis].dim_value = len(cut.kept)
    for value in [v for v in proto.graph.value_info if v.name == cut.tensor]:
        proto.graph.value_info.remove(value)
    return proto
