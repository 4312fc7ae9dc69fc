"""What a model is made of, for reports: opsets, operators, inputs and outputs."""

from __future__ import annotations

from collections import Counter

import onnx

from onnxprune.graph.view import View


def model_facts(view: View) -> dict[str, object]:
    """Return opsets, how often each operator occurs, and types and shapes of inputs and outputs, as JSON data."""
    proto = view.model.proto
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in view.nodes)
    return {
        "ir_version": int(proto.ir_version),
        "opsets": {item.domain or "ai.onnx": int(item.version) for item in proto.opset_import},
        "operators": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "inputs": {value.name: _type(value) for value in view.inputs.values()},
        "outputs": {value.name: _type(value) for value in proto.graph.output},
    }


def _type(value: onnx.ValueInfoProto) -> str:
    """Return float32 [1, 3, h, w]; what is not known is a question mark."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value") or "?")
    sizes = [dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?") for dim in kind.shape.dim]
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    return f"{name} [{', '.join(sizes)}]" if kind.HasField("shape") else f"{name} of unknown shape"
