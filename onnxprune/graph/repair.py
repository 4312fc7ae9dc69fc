"""What onnxruntime runs and ONNX's checker refuses, mended while a model is read; every mend leaves a note.

Only what has one meaning is mended: a name, an import, a shape that follows. Each mend looks first, so that a model
without such flaws is not copied.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from onnxprune.graph.bodies import graphs
from onnxprune.graph.repeats import drop_repeats, has_repeats
from onnxprune.graph.tensors import skeleton

OLDEST_OPSET = 7
"""Below it operators broadcast and normalise by other rules."""

Repair = Callable[[onnx.ModelProto], str | None]


def repaired(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a model that the checker can accept, the given one where nothing is to be mended, and what was mended."""
    if not any(is_needed(proto) for is_needed in _REPAIRS):
        return proto, ()
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    notes: list[str] = []
    for is_needed, repair in _REPAIRS.items():
        note = repair(copy) if is_needed(copy) else None
        if note:
            notes.append(note)
    return copy, tuple(notes)


def lenient(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without content for the checker, in which what runtimes accept beyond ONNX is made to look right.

    Operators of runtimes in ONNX's own domain (plugins, LayerNormalization below opset 17) get a domain of their own,
    and tensors without a shape get one.
    """
    copy = skeleton(proto, keep_dims=False)
    foreign = foreign_operators(proto)
    for graph in graphs(copy.graph):
        for value in (*graph.input, *graph.output):
            kind = value.type.WhichOneof("value")
            if kind is None:
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.shape.SetInParent()
        for node in graph.node:
            if not node.domain and node.op_type in foreign:
                node.domain = FOREIGN
    copy.opset_import.append(onnx.helper.make_opsetid(FOREIGN, 1))
    return copy


FOREIGN = "operators.of.a.runtime"


def foreign_operators(proto: onnx.ModelProto) -> set[str]:
    """Return the operators in ONNX's own domain that its operator set does not have."""
    version = _default_opset(proto)
    used = {node.op_type for graph in graphs(proto.graph) for node in graph.node if not node.domain}
    return {operator for operator in used if version and not _is_standard(operator, version)}


def _is_standard(op_type: str, version: int) -> bool:
    try:
        onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return False
    return True


def _default_opset(proto: onnx.ModelProto) -> int:
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def _missing_domains(proto: onnx.ModelProto) -> list[str]:
    if not proto.opset_import:  # no runtime takes such a file
        return []
    known = {"" if o.domain == "ai.onnx" else o.domain for o in proto.opset_import}
    used = dict.fromkeys(node.domain for graph in graphs(proto.graph) for node in graph.node)
    domains = ["" if domain == "ai.onnx" else domain for domain in used]
    return list(dict.fromkeys(domain for domain in ("", *domains) if domain not in known))


def _import_domains(proto: onnx.ModelProto) -> str | None:
    """Name the sets of operators that the nodes use; ONNX's own with the newest version of the file's IR version."""
    used = {node.domain for graph in graphs(proto.graph) for node in graph.node}
    missing = _missing_domains(proto)
    for domain in missing:
        proto.opset_import.append(onnx.helper.make_opsetid(domain, 1 if domain else _newest_opset(proto.ir_version)))
    named = [f"'{domain or 'ai.onnx'}'" for domain in missing if domain in used]
    return f"the file does not say which operator set it uses of {', '.join(named)}; it does now" if named else None


def _newest_opset(ir_version: int) -> int:
    fitting = [row[2] for row in onnx.helper.VERSION_TABLE if row[1] <= ir_version]
    return max([OLDEST_OPSET, *fitting])


def _unnamed(proto: onnx.ModelProto) -> bool:
    return any(not graph.name for graph in graphs(proto.graph))


def _name_graphs(proto: onnx.ModelProto) -> str | None:
    for number, graph in enumerate(graphs(proto.graph)):
        graph.name = graph.name or (f"body_{number}" if number else "graph")
    return "a graph in it has no name; it got one"


def _stores_beside_inputs(proto: onnx.ModelProto) -> bool:
    if proto.ir_version != 3:
        return False
    inputs = {value.name for value in proto.graph.input}
    return any(tensor.name not in inputs for tensor in proto.graph.initializer)


def _raise_ir(proto: onnx.ModelProto) -> str | None:
    found, proto.ir_version = proto.ir_version, 4
    return f"it stores weights that are no inputs, which IR version {found} does not know; the version is 4 now"


def _is_old(proto: onnx.ModelProto) -> bool:
    return 0 < _default_opset(proto) < OLDEST_OPSET


def _raise_opset(proto: onnx.ModelProto) -> str | None:
    """Raise the operator set; what the converter drops (metadata, documentation) is kept."""
    found = _default_opset(proto)
    try:
        raised = onnx.version_converter.convert_version(proto, OLDEST_OPSET)
    except Exception:  # the binding raises several unrelated types; the version is refused later, with a reason
        return None
    del proto.opset_import[:]
    proto.opset_import.extend(raised.opset_import)
    metadata = list(proto.graph.metadata_props)
    proto.graph.CopyFrom(raised.graph)
    if not proto.graph.metadata_props:
        proto.graph.metadata_props.extend(metadata)
    proto.ir_version = max(proto.ir_version, raised.ir_version)
    return f"its operators are of opset {found}; they were raised to {OLDEST_OPSET}"


def _shapeless(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [
        value
        for value in proto.graph.output
        if value.type.WhichOneof("value") in (None, "tensor_type") and not value.type.tensor_type.HasField("shape")
    ]


def _shape_outputs(proto: onnx.ModelProto) -> str | None:
    """Give outputs the shape that follows from the graph; those of which none follows stay as they are."""
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton(proto), data_prop=True)
    except Exception:  # the binding raises several unrelated types; the outputs then stay without a shape
        return None
    known = {value.name: value.type for value in inferred.graph.output}
    named = []
    for value in _shapeless(proto):
        found = known.get(value.name)
        if found is not None and found.HasField("tensor_type") and found.tensor_type.HasField("shape"):
            value.type.CopyFrom(found)
            named.append(f"'{value.name}'")
    return f"no shape was declared for the outputs {', '.join(named[:3])}; the inferred one is now" if named else None


_REPAIRS: dict[Callable[[onnx.ModelProto], object], Repair] = {
    has_repeats: drop_repeats,
    _missing_domains: _import_domains,
    _unnamed: _name_graphs,
    _stores_beside_inputs: _raise_ir,
    _is_old: _raise_opset,
    _shapeless: _shape_outputs,
}
"""Whether something is missing -> what mends it."""
