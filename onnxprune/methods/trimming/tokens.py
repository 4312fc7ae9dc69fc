"""Rows of an embedding that an input looks up: those that stay, and what becomes of the others.

y = W[id]. With a table t of old to new numbers the model becomes y = W'[t[id]] with W' the kept rows, so callers and
tokenizers stay as they are. Kept ids give what they gave, bit for bit. Rows that do not stay are answered by another
row (`unk`, `nearest`), or by a copy in few bits with one scale a row, y = W'[t[id]] + q[r[id]] * s[r[id]], where one
of the two summands is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import onnx

from onnxprune.channels.edits import MOVES
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.initializers import add, add_external, free_name
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external
from onnxprune.graph.view import Node, Parameter, View
from onnxprune.methods.quantization.unpack import rows_of
from onnxprune.methods.trimming.table_rows import Pieces, TableRows, chosen, nearest
from onnxprune.methods.trimming.tiers import TIERS, Tier
from onnxprune.types import Array, BoolArray, IntArray

EMBEDDINGS = {
    ("", "Gather"): (1, 0),
    ("com.microsoft", "EmbedLayerNormalization"): (0, 2),
    ("com.microsoft", "GatherBlockQuantized"): (1, 0),
}
"""Operator -> its inputs with the ids and with the table of rows."""
BESIDE = {"GatherBlockQuantized": (2, 3)}
"""Operator -> its other inputs with one entry, or several, for each row."""
AXES = ("axis", "gather_axis")


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
            if parameter is not None and len(parameter.dims) == 2 and not any(node.attribute(a, 0) for a in AXES):
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


def cut_tokens(model: Model, name: str, kept: BoolArray, rare: str, renumber: bool) -> Model:
    """Return the model with the kept rows of the embedding that an input looks up.

    Args:
        name: of the input with the ids.
        kept: (rows,) True stays.
        rare: what stands for a row that does not stay: `unk=ID` (that kept row), "nearest" (the kept row with the
            largest cosine), or one of `TIERS` (a copy of its own in few bits).
        renumber: no table in the graph; the caller gives the new numbers, 0 to the number of kept rows - 1.

    Raises:
        UsageError: `rare` makes no sense here.
        NothingToPruneError: no embedding is looked up by the input.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    view = View(replace(model, proto=proto))
    made: dict[tuple[str, str], str] = {}
    before: dict[int, list[onnx.NodeProto]] = {}
    after: dict[int, list[onnx.NodeProto]] = {}
    writer = _Writer(proto, view)
    for lookup in find_lookups(view, name):
        if lookup.node.graph is not proto.graph:
            raise NothingToPruneError(f"{lookup.node.label}: it looks rows up inside a body; they stay.")
        rows = TableRows(model, lookup.parameter.key, lookup.parameter.tensor)
        tier = None if renumber else TIERS.get(rare)
        if tier is not None and (lookup.node.domain or not _is_float(lookup.parameter)):
            raise UsageError(
                f"{lookup.node.label}: rare rows cannot be kept in few bits there; choose unk=ID or nearest for them."
            )
        key = lookup.parameter.key
        if (key, "rows") not in made:
            made[key, "rows"] = writer.keep(f"{key}_rows", rows, kept, padded=tier is not None)
        lookup.node.proto.input[lookup.table] = made[key, "rows"]
        _cut_beside(view, model, lookup, kept, writer, made)
        if renumber:
            continue
        if ("", name) not in made:
            pieces = rows.pieces
            if rare == "nearest" and lookup.node.op_type in BESIDE:
                pieces = partial(_values, view, model, lookup)
            made["", name] = writer.store(f"{name}_table", _table(pieces, kept, rare).astype(np.int32))
        proto_node, ids = lookup.node.proto, lookup.node.proto.input[lookup.ids]
        number = writer.name(f"{proto_node.output[0]}_row")
        before[id(proto_node)] = [_node("Gather", [made["", name], ids], number)]
        proto_node.input[lookup.ids] = number
        if tier is not None:
            after[id(proto_node)] = _rare_tier(writer, lookup, rows, kept, made, ids, tier)
    _place(proto, before, after)
    return replace(model, proto=proto, pending={**model.pending, **writer.pending}, file_bytes=None)


def _cut_beside(
    view: View, model: Model, lookup: Lookup, kept: BoolArray, writer: _Writer, made: dict[tuple[str, str], str]
) -> None:
    """Take the rows that go out of scales and zero points too."""
    for index in BESIDE.get(lookup.node.op_type, ()):
        if not lookup.node.has_input(index):
            continue
        parameter = view.parameters.get(view.root(lookup.node.inputs[index]))
        if parameter is None or parameter.dims[:1] != (len(kept),):
            raise NothingToPruneError(f"{lookup.node.label}: its scales are not stored row by row; its rows stay.")
        if (parameter.key, "rows") not in made:
            made[parameter.key, "rows"] = writer.store(f"{parameter.key}_rows", model.array(parameter.tensor)[kept])
        lookup.node.proto.input[index] = made[parameter.key, "rows"]


def _values(view: View, model: Model, lookup: Lookup) -> Iterator[Array]:
    """Yield the numbers that packed rows stand for."""

    def read(index: int) -> Array | None:
        parameter = view.parameters.get(view.root(lookup.node.inputs[index])) if lookup.node.has_input(index) else None
        return model.array(parameter.tensor) if parameter is not None else None

    yield rows_of(lookup.node.proto, read)


def _is_float(parameter: Parameter) -> bool:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(parameter.data_type)
    return dtype.kind == "f" and dtype.itemsize <= 4


def _table(pieces: Pieces, kept: BoolArray, rare: str) -> IntArray:
    """Return (rows,) the new number of every old one."""
    table = np.cumsum(kept) - 1
    others = np.flatnonzero(~kept)
    if rare in TIERS:
        table[others] = int(kept.sum())
    elif rare == "nearest":
        table[others] = nearest(pieces, kept)
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


def _rare_tier(
    writer: _Writer,
    lookup: Lookup,
    rows: TableRows,
    kept: BoolArray,
    made: dict[tuple[str, str], str],
    ids: str,
    tier: Tier,
) -> list[onnx.NodeProto]:
    """Add the row of the small copy to what was looked up; row 0 of the copy is zero and stands for kept rows."""
    key = lookup.parameter.key
    if (key, "codes") not in made:
        made[key, "codes"], made[key, "scales"] = writer.encode(key, rows, kept, tier)
        made[key, "numbers"] = writer.store(f"{key}_rare_table", np.where(kept, 0, np.cumsum(~kept)).astype(np.int32))
    node, nodes = lookup.node.proto, list[onnx.NodeProto]()
    result = node.output[0]

    def op(kind: str, *inputs: str | Array, output: str = "", **attributes: object) -> str:
        names = [i if isinstance(i, str) else writer.store(f"{result}_{kind.lower()}_by", i) for i in inputs]
        name = output or writer.name(f"{result}_{kind.lower()}")
        nodes.append(_node(kind, names, name, **attributes))
        return name

    node.output[0] = writer.name(f"{result}_kept")
    place = op("Gather", made[key, "numbers"], ids)
    levels = tier.decode(op, op("Gather", made[key, "codes"], place), rows.tensor.dims[1])
    cast = op("Cast", levels, to=int(lookup.parameter.data_type))
    op("Add", node.output[0], op("Mul", cast, op("Gather", made[key, "scales"], place)), output=result)
    return nodes


class _Writer:
    """Adds initializers and takes names in one graph. What is as large as an external table is made when it is written.

    pending: name of an initializer -> makes its content.
    """

    def __init__(self, proto: onnx.ModelProto, view: View) -> None:
        self.proto, self.taken = proto, view.keys
        self.pending: dict[str, Callable[[], Array]] = {}

    def name(self, base: str) -> str:
        return free_name(base, self.taken)

    def store(self, base: str, value: Array) -> str:
        return str(add(self.proto, self.name(base), value).name)

    def keep(self, base: str, rows: TableRows, kept: BoolArray, padded: bool) -> str:
        """Store the rows that stay, and a row of zeros behind them where one is asked for."""
        dtype = onnx.helper.tensor_dtype_to_np_dtype(rows.tensor.data_type)
        if onnx.helper.np_dtype_to_tensor_dtype(dtype) != rows.tensor.data_type:
            raise NothingToPruneError(f"'{base}': rows of this type cannot be cut.")

        def make() -> Array:
            found = rows.picked(kept)
            return np.concatenate([found, np.zeros((1, *found.shape[1:]), found.dtype)]) if padded else found

        return self._later(base, rows.tensor, make, rows.tensor.data_type, int(kept.sum()) + padded)

    def encode(self, key: str, rows: TableRows, kept: BoolArray, tier: Tier) -> tuple[str, str]:
        """Store the rows that go in few bits, behind a row of zeros, and return the names of codes and scales."""

        zero = np.zeros((1, rows.tensor.dims[1]))
        pieces = (piece.astype(np.float64) for piece in chain([zero], chosen(rows.pieces, ~kept)))
        codes, scales = (np.concatenate(parts) for parts in zip(*map(tier.encode, pieces), strict=True))
        element = onnx.helper.np_dtype_to_tensor_dtype(codes.dtype)
        stored = self._later(f"{key}_rare", rows.tensor, lambda: codes, element, *codes.shape)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(rows.tensor.data_type)
        return stored, self.store(f"{key}_rare_scale", scales.astype(dtype))

    def _later(
        self, base: str, like: onnx.TensorProto, make: Callable[[], Array], data_type: int, count: int, width: int = 0
    ) -> str:
        """Store an array with as many rows (as wide as those of `like`): at once, or when the model is written."""
        if not is_external(like):
            return self.store(base, make())
        name = self.name(base)
        add_external(self.proto, name, like, (count, width or like.dims[1]), data_type)
        self.pending[name] = make
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
