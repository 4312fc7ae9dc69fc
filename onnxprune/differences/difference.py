"""What changed between two models: nodes, tensors, inputs and outputs, settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxprune.channels.plan import Plan
from onnxprune.differences.link import Link, linked, read_plan
from onnxprune.differences.nodes import Change, compare_nodes
from onnxprune.differences.overlay import node_data
from onnxprune.graph.model import Model, Source, load
from onnxprune.graph.view import Parameter, View
from onnxprune.types import Array


@dataclass(frozen=True, eq=False)
class Difference:
    """What changed from one model to another.

    link: how tensors were put together (see `Link`). made_from: the second one says that it was made from the first.
    nodes: "added", "removed" and "changed" -> what and where. tensors: "added", "removed", "changed", "renamed".
    interface: inputs and outputs of other names, types or shapes.
    settings: opsets, IR version, producer, metadata.
    views: both models.
    """

    link: Link
    made_from: bool
    nodes: Mapping[str, list[Change]]
    tensors: Mapping[str, list[Change]]
    interface: list[Change]
    settings: list[Change]
    views: tuple[View, View]

    @property
    def is_equal(self) -> bool:
        """Tell whether nothing changed."""
        parts = (*self.nodes.values(), *self.tensors.values(), self.interface, self.settings)
        return not any(parts)

    @property
    def removed(self) -> dict[str, dict[int, list[int]]]:
        """Tensor -> axis -> positions that are gone, as far as they are known."""
        return self.link.removed

    def to_model_explorer(self, overlay: str = "change") -> str:
        """Return node data for Google's Model Explorer, see `onnxprune.differences.overlay.node_data`."""
        return node_data(self, *self.views, overlay)

    def to_json(self) -> dict[str, object]:
        """Return everything as plain data."""
        return {
            "equal": self.is_equal,
            "link": self.link.how,
            "made_from": self.made_from,
            "nodes": dict(self.nodes),
            "tensors": dict(self.tensors),
            "interface": self.interface,
            "settings": self.settings,
        }


def diff(original: Source, other: Source, plan: Plan | str | Path | None = None) -> Difference:
    """Return what changed from the first model to the second.

    Positions that tensors lost are exact with the plan of the prune, and without it where values tell them (a prune
    without a refit); else names, shapes and contents are compared.

    Args:
        plan: of the prune that made the second model from the first, or the file of it.

    Raises:
        ModelError: a model cannot be read.
        UsageError: the plan is none, or of another model.
    """
    if isinstance(plan, str | Path):
        plan = read_plan(plan)
    before, after = View(load(original)), View(load(other))
    link = linked(before, after, plan)
    return Difference(
        link,
        _metadata(after.model).get("onnxprune.source_sha256") == before.model.sha256,
        compare_nodes(before, after),
        _tensors(before, after, link),
        _interface(before.model.proto.graph, after.model.proto.graph),
        _settings(before.model, after.model),
        (before, after),
    )


def _tensors(before: View, after: View, link: Link) -> dict[str, list[Change]]:
    old, new = before.parameters, after.parameters
    gone = {name: old[name] for name in old if name not in new}
    come = {name: new[name] for name in new if name not in old}
    renamed = _renamed(before.model, gone, after.model, come)
    taken = set(renamed.values())
    changes = (_changed(before, after, name, link) for name in old if name in new)
    return {
        "added": [_shape(parameter) for name, parameter in come.items() if name not in taken],
        "removed": [_shape(parameter) for name, parameter in gone.items() if name not in renamed],
        "renamed": [{"tensor": name, "after": other} for name, other in renamed.items()],
        "changed": [change for change in changes if change is not None],
    }


def _renamed(
    before: Model, gone: Mapping[str, Parameter], after: Model, come: Mapping[str, Parameter]
) -> dict[str, str]:
    """Return old name -> new name of tensors with the same content."""
    if not gone or not come:
        return {}
    known = {_digest(after, parameter): name for name, parameter in come.items()}
    pairs = ((name, known.pop(_digest(before, parameter), None)) for name, parameter in gone.items())
    return {name: other for name, other in pairs if other is not None}


def _digest(model: Model, parameter: Parameter) -> tuple[int, tuple[int, ...], str]:
    content = np.ascontiguousarray(model.array(parameter.tensor))
    data = content.tobytes() if content.dtype != object else repr(content.tolist()).encode()
    return parameter.data_type, parameter.dims, hashlib.sha256(data).hexdigest()


def _changed(before: View, after: View, name: str, link: Link) -> Change | None:
    """Return what became of a tensor; `changed` is the norm of the difference over that of what was kept."""
    old, new = before.parameters[name], after.parameters[name]
    place: Change = {"tensor": name, "before": list(old.dims), "after": list(new.dims)}
    if old.data_type != new.data_type:
        names = (onnx.TensorProto.DataType.Name(parameter.data_type) for parameter in (old, new))
        return {**place, "type": " → ".join(names), "removed": None, "changed": None}
    removed = link.removed.get(name, {})
    left = tuple(size - len(removed.get(axis, ())) for axis, size in enumerate(old.dims))
    if left != new.dims:
        return {**place, "removed": None, "changed": None}
    kept = before.model.array(old.tensor)
    for axis, positions in removed.items():
        kept = np.delete(kept, positions, axis)
    changed = _distance(kept, after.model.array(new.tensor))
    if not removed and not changed:
        return None
    return {**place, "removed": {str(axis): list(places) for axis, places in removed.items()}, "changed": changed}


def _distance(one: Array, other: Array) -> float:
    """Return the norm of the difference over the norm of the first; 0 only where every element is the same."""
    if one.dtype == object or one.dtype.kind in "SU":
        return float(not np.array_equal(one, other))
    if np.array_equal(one.view(np.uint8) if one.dtype.kind not in "fiub" else one, _like(one, other)):
        return 0.0
    with np.errstate(invalid="ignore"):  # signalling NaN
        first, second = (np.nan_to_num(np.asarray(array, dtype=np.float64)) for array in (one, other))
    scale = max(np.abs(first).max(), np.abs(second).max()) or 1.0  # squares of large values overflow
    distance, norm = float(np.linalg.norm(second / scale - first / scale)), float(np.linalg.norm(first / scale))
    return float(f"{distance / norm if norm else max(distance * scale, 1.0):.4g}") or 1e-300


def _like(one: Array, other: Array) -> Array:
    return other.view(np.uint8) if one.dtype.kind not in "fiub" else other


def _shape(parameter: Parameter) -> Change:
    kind = onnx.TensorProto.DataType.Name(parameter.data_type)
    return {"tensor": parameter.key, "shape": list(parameter.dims), "type": kind}


def _interface(before: onnx.GraphProto, after: onnx.GraphProto) -> list[Change]:
    changes = []
    for what in ("input", "output"):
        old, new = ({value.name: _type(value) for value in getattr(graph, what)} for graph in (before, after))
        for name in dict.fromkeys((*old, *new)):
            if old.get(name) != new.get(name):
                changes.append({"what": f"{what} '{name}'", "before": old.get(name), "after": new.get(name)})
        if list(old) != list(new) and old == new:
            changes.append({"what": f"order of {what}s", "before": ", ".join(old), "after": ", ".join(new)})
    return changes


def _type(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value"))
    sizes = [dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?") for dim in kind.shape.dim]
    return f"{onnx.TensorProto.DataType.Name(kind.elem_type)} [{', '.join(sizes)}]"


def _settings(before: Model, after: Model) -> list[Change]:
    old, new = _told(before), _told(after)
    names = dict.fromkeys((*old, *new))
    return [
        {"what": name, "before": old.get(name), "after": new.get(name)}
        for name in names
        if old.get(name) != new.get(name)
    ]


def _told(model: Model) -> dict[str, str]:
    proto = model.proto
    told = {f"opset {item.domain or 'ai.onnx'}": str(item.version) for item in proto.opset_import}
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        told[name.replace("_", " ")] = str(getattr(proto, name))
    told["graph"] = proto.graph.name
    told["functions"] = ", ".join(sorted(f"{function.domain}.{function.name}" for function in proto.functions))
    return told | {f"metadata '{key}'": value for key, value in _metadata(model).items()}


def _metadata(model: Model) -> dict[str, str]:
    return {item.key: item.value for item in model.proto.metadata_props}
