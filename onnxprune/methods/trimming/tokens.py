"""Rows of an embedding that an input looks up: those that stay, and what becomes of the others.

y = W[id]. With a table t of old to new numbers the model becomes y = W'[t[id]] with W' the kept rows, so callers and
tokenizers stay as they are. Kept ids give what they gave, bit for bit. Rows that do not stay are answered by another
row (`unk`, `nearest`), or by a copy in 8 bits with one scale a row, y = W'[t[id]] + q[r[id]] * s[r[id]], where one of
the two summands is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.channels.edits import MOVES
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.view import Node, Parameter, View
from onnxprune.types import Array, BoolArray, IntArray

EMBEDDINGS = {("", "Gather"): (1, 0), ("com.microsoft", "EmbedLayerNormalization"): (0, 2)}
"""Operator -> its inputs with the ids and with the table of rows."""
CHUNK = 1024
"""Rows that are compared with all kept ones at a time."""


@dataclass(frozen=True)
class Lookup:
    """One node that looks rows up. ids, table: numbers of its inputs."""

    node: Node
    ids: int
    table: int
    parameter: Parameter


def find_lookups(view: View, name: str) -> list[Lookup]:
    """Return the nodes that look up rows by what an input holds.

    Raises:
        UsageError: there is no such input.
        NothingToPruneError: nothing looks up rows by it.
    """
    if name not in view.inputs:
        raise UsageError(f"the model has no input '{name}'; there are {', '.join(view.inputs)}.")
    holds = {name}
    found = []
    for node in view.nodes:
        key = (node.domain, node.op_type)
        if key in EMBEDDINGS and node.has_input(EMBEDDINGS[key][0]) and node.inputs[EMBEDDINGS[key][0]] in holds:
            ids, table = EMBEDDINGS[key]
            parameter = view.parameters.get(view.root(node.inputs[table]))
            if parameter is not None and len(parameter.dims) == 2 and not node.attribute("axis", 0):
                found.append(Lookup(node, ids, table, parameter))
                continue
        if not node.domain and node.op_type in MOVES and node.inputs and node.inputs[0] in holds:
            holds.update(key for key in node.outputs if key)
    if not found:
        raise NothingToPruneError(
            f"no embedding is looked up by input '{name}': a Gather of a stored matrix of rows was expected."
        )
    sizes = {lookup.parameter.dims[0] for lookup in found}
    if len(sizes) > 1:
        raise NothingToPruneError(f"input '{name}' looks up tables of {sorted(sizes)} rows; one size was expected.")
    return found


def cut_tokens(model: Model, name: str, kept: BoolArray, rare: str, renumber: bool) -> onnx.ModelProto:
    """Return the model with the kept rows of the embedding that an input looks up.

    Args:
        name: of the input with the ids.
        kept: (rows,) True stays.
        rare: what stands for a row that does not stay: `unk=ID` (that kept row), "nearest" (the kept row with the
            largest cosine), or "int8" (a copy of its own in 8 bits).
        renumber: no table in the graph; the caller gives the new numbers, 0 to the number of kept rows - 1.

    Raises:
        UsageError: `rare` makes no sense here.
        NothingToPruneError: no embedding is looked up by the input.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    view = View(Model(proto, model.path))
    made: dict[tuple[str, str], str] = {}
    before: dict[int, list[onnx.NodeProto]] = {}
    after: dict[int, list[onnx.NodeProto]] = {}
    writer = _Writer(proto, view)
    for lookup in find_lookups(view, name):
        if lookup.node.graph is not proto.graph:
            raise NothingToPruneError(f"{lookup.node.label}: it looks rows up inside a body; they stay.")
        rows = model.array(lookup.parameter.tensor)
        tiered = rare == "int8" and not renumber
        if tiered and (lookup.node.domain or not _is_float(rows)):
            raise UsageError(
                f"{lookup.node.label}: rare rows cannot be kept in 8 bits there; choose unk=ID or nearest for them."
            )
        key = lookup.parameter.key
        if (key, "rows") not in made:
            kept_rows = rows[kept]
            if tiered:
                kept_rows = np.concatenate([kept_rows, np.zeros((1, rows.shape[1]), dtype=rows.dtype)])
            made[key, "rows"] = writer.store(f"{key}_rows", kept_rows, lookup.parameter.data_type)
        lookup.node.proto.input[lookup.table] = made[key, "rows"]
        if renumber:
            continue
        if ("", name) not in made:
            made["", name] = writer.store(f"{name}_table", _table(rows, kept, rare).astype(np.int32))
        proto_node, ids = lookup.node.proto, lookup.node.proto.input[lookup.ids]
        number = writer.name(f"{proto_node.output[0]}_row")
        before[id(proto_node)] = [_node("Gather", [made["", name], ids], number)]
        proto_node.input[lookup.ids] = number
        if tiered:
            after[id(proto_node)] = _rare_tier(writer, lookup, rows, kept, made, ids)
    _place(proto, before, after)
    return proto


def _is_float(rows: Array) -> bool:
    return rows.dtype.kind == "f" and rows.dtype.itemsize <= 4


def _table(rows: Array, kept: BoolArray, rare: str) -> IntArray:
    """Return (rows,) the new number of every old one."""
    table = np.cumsum(kept) - 1
    others = np.flatnonzero(~kept)
    if rare == "int8":
        table[others] = int(kept.sum())
    elif rare == "nearest":
        table[others] = nearest(rows.astype(np.float32), kept)
    else:
        table[others] = table[unknown_id(rare, kept)]
    return np.asarray(table)


def unknown_id(rare: str, kept: BoolArray) -> int:
    """Return ID of `unk=ID`.

    Raises:
        UsageError: it is no kept row.
    """
    _, equals, text = rare.partition("=")
    if not equals or not text.isascii() or not text.isdigit() or int(text) >= len(kept) or not kept[int(text)]:
        raise UsageError(f"rare '{rare}': the ID of a token that stays was expected, as in unk=100.")
    return int(text)


def nearest(rows: Array, kept: BoolArray) -> IntArray:
    """Return (rows that go,) the number among the kept rows of the most similar one, by cosine."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    stay, go = unit[kept], unit[~kept]
    return np.concatenate([np.argmax(go[i : i + CHUNK] @ stay.T, axis=1) for i in range(0, max(len(go), 1), CHUNK)])


def _rare_tier(
    writer: _Writer, lookup: Lookup, rows: Array, kept: BoolArray, made: dict[tuple[str, str], str], ids: str
) -> list[onnx.NodeProto]:
    """Add the row of the 8-bit copy to what was looked up; row 0 of the copy is zero and stands for kept rows."""
    key = lookup.parameter.key
    if (key, "bytes") not in made:
        levels, scales = quantized_rows(rows[~kept].astype(np.float32))
        levels = np.concatenate([np.zeros((1, rows.shape[1]), dtype=np.int8), levels])
        scales = np.concatenate([np.zeros((1, 1), dtype=np.float32), scales]).astype(rows.dtype)
        numbers = np.where(kept, 0, np.cumsum(~kept)).astype(np.int32)
        made[key, "bytes"] = writer.store(f"{key}_rare", levels)
        made[key, "scales"] = writer.store(f"{key}_rare_scale", scales)
        made[key, "numbers"] = writer.store(f"{key}_rare_table", numbers)
    node = lookup.node.proto
    result = node.output[0]
    names = {part: writer.name(f"{result}_{part}") for part in ("kept", "place", "levels", "scale", "cast", "rare")}
    node.output[0] = names["kept"]
    data_type = int(lookup.parameter.data_type)
    return [
        _node("Gather", [made[key, "numbers"], ids], names["place"]),
        _node("Gather", [made[key, "bytes"], names["place"]], names["levels"]),
        _node("Gather", [made[key, "scales"], names["place"]], names["scale"]),
        _node("Cast", [names["levels"]], names["cast"], to=data_type),
        _node("Mul", [names["cast"], names["scale"]], names["rare"]),
        _node("Add", [names["kept"], names["rare"]], result),
    ]


def quantized_rows(rows: Array) -> tuple[Array, Array]:
    """Return (rows, width) int8 levels and (rows, 1) scales, symmetric, with the largest level at 127."""
    scales = np.max(np.abs(rows), axis=1, keepdims=True, initial=0.0) / 127
    levels = np.rint(rows / np.where(scales > 0, scales, 1)).astype(np.int8)
    return levels, scales.astype(np.float32)


class _Writer:
    """Adds initializers and takes names in one graph."""

    def __init__(self, proto: onnx.ModelProto, view: View) -> None:
        self.proto, self.taken = proto, view.keys

    def name(self, base: str) -> str:
        name, number = base, 0
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    def store(self, base: str, value: Array, data_type: int | None = None) -> str:
        name = self.name(base)
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        if data_type is not None and tensor.data_type != data_type:
            raise NothingToPruneError(f"'{base}': rows of this type cannot be cut.")
        self.proto.graph.initializer.append(tensor)
        return name


def _node(op_type: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, inputs, [output], name=output, **attributes)


def _place(
    proto: onnx.ModelProto, before: dict[int, list[onnx.NodeProto]], after: dict[int, list[onnx.NodeProto]]
) -> None:
    """Put nodes around those of the main graph."""
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in _ordered(proto, before, after)]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def _ordered(
    proto: onnx.ModelProto, before: dict[int, list[onnx.NodeProto]], after: dict[int, list[onnx.NodeProto]]
) -> Iterator[onnx.NodeProto]:
    table = {id(key): key for key in proto.graph.node}
    for node in table.values():
        yield from before.get(id(node), ())
        yield node
        yield from after.get(id(node), ())
