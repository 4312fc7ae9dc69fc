"""Numbers of positions (ArgMax, TopK, NonMaxSuppression) on an axis that was cut: turned back into the old numbers.

A number stays new where it is moved about, and where it picks from an axis that lost the same positions. Anything else,
the caller of the model above all, gets the old number, through a table: `y = table[x]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels
from onnxprune.channels.boundary import Ranking
from onnxprune.channels.edits import MOVES
from onnxprune.errors import NothingToPruneError
from onnxprune.graph.editor import Editor
from onnxprune.graph.fold import evaluate
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray

INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Where a tensor holds numbers of one axis: a mask of its traced shape, and the table new -> old."""

    mask: BoolArray
    table: Array


def renumber(channels: Channels, mask: BoolArray, editor: Editor, *, at_source: bool = False) -> None:
    """Put tables where numbers of a cut axis leave for the world of old numbers.

    Args:
        channels: the analysis; its rankings say where numbers come from.
        mask: (ids,) True for every id that stays.
        editor: of a copy of the model; nodes are added to it.
        at_source: right behind the operator that makes the numbers, whoever reads them.

    Raises:
        NothingToPruneError: numbers go where no table can be put.
    """
    for ranking in channels.state.rankings:
        stays = mask[ranking.ids]
        if stays.all():
            continue
        table = np.flatnonzero(stays)
        start = _Numbers(_columns(channels, ranking), table)
        if at_source:
            _translate(channels, editor, ranking.output, start, None)
            continue
        for key, (numbers, needed) in _follow(channels, ranking, start).items():
            if needed or key in channels.view.outputs:
                _translate(channels, editor, key, numbers, needed)


def _columns(channels: Channels, ranking: Ranking) -> BoolArray:
    shape = channels.trace.shapes[ranking.output]
    marked = np.zeros([max(size, 1) for size in shape], dtype=bool)
    marked[... if ranking.column is None else (..., ranking.column)] = True
    return marked


def _follow(
    channels: Channels, ranking: Ranking, start: _Numbers
) -> dict[str, tuple[_Numbers, set[tuple[int, int]]]]:
    """Return every tensor that holds the numbers, with the node inputs that want them old."""
    found: dict[str, tuple[_Numbers, set[tuple[int, int]]]] = {ranking.output: (start, set())}
    for node in channels.view.nodes:
        if any(key in found for key in node.captured):
            raise NothingToPruneError(f"{node.label}: its body uses numbers of positions that are to go; keep them all.")
        held = [index for index, key in enumerate(node.inputs) if key in found]
        moved = _moved(channels, node, held, found) if held else None
        if moved is not None:
            for key, marked in zip(node.outputs, moved, strict=False):
                if key:
                    found[key] = (_Numbers(marked, start.table), set())
            continue
        for index in held:
            if (id(node), index) not in channels.state.number_uses:
                found[node.inputs[index]][1].add((id(node), index))
    return found


def _moved(
    channels: Channels, node: Node, held: list[int], found: dict[str, tuple[_Numbers, set[tuple[int, int]]]]
) -> list[BoolArray] | None:
    """Return where the outputs of a node that only moves its input hold the numbers; None for any other node."""
    if node.domain or node.op_type not in MOVES or (node.op_type != "Concat" and held != [0]):
        return None
    inputs: list[Array | None] = []
    for index, key in enumerate(node.inputs):
        if not key:
            inputs.append(None)
        elif index in held:
            inputs.append(found[key][0].mask.astype(np.int64))
        elif node.op_type == "Concat":
            inputs.append(np.zeros([max(s, 1) for s in channels.trace.shapes.get(key, ())], dtype=np.int64))
        else:
            inputs.append(channels.trace.first.values.get(key))
    if any(value is None and key for value, key in zip(inputs, node.inputs, strict=True)):
        return None
    if node.op_type == "Cast":
        return [np.asarray(inputs[0], dtype=bool)]
    try:
        return [np.asarray(result, dtype=bool) for result in evaluate(node, inputs)]
    except Exception:  # shapes of one traced size that do not move as they are: then it is a reader like any other
        return None


def _translate(
    channels: Channels, editor: Editor, key: str, numbers: _Numbers, wanted: set[tuple[int, int]] | None
) -> None:
    """Let the readers in `wanted` (None: all), and the outputs of the model, read old numbers."""
    producer = channels.view.producers[key]
    if producer.graph is not channels.model.proto.graph:
        raise NothingToPruneError(f"{producer.label}: numbers of positions that are to go are made inside a body.")
    proto = editor.node_proto(producer)
    place = list(producer.outputs).index(key)
    final, raw = proto.output[place], proto.output[place]
    readers = channels.view.readers.get(key, [])
    if wanted is None or key in channels.view.outputs:
        raw = editor.new_name(f"{final}_new_numbers")
        proto.output[place] = raw
        others = [] if wanted is None else [(n, index) for n, index in readers if (id(n), index) not in wanted]
    else:
        final = editor.new_name(f"{raw}_old_numbers")
        others = []
        for node, index in readers:
            if (id(node), index) in wanted:
                editor.node_proto(node).input[index] = final
    for node, index in others:
        editor.node_proto(node).input[index] = raw
    editor.put_after(producer, _table_nodes(channels, editor, key, raw, final, numbers))


def _table_nodes(
    channels: Channels, editor: Editor, key: str, raw: str, final: str, numbers: _Numbers
) -> list[onnx.NodeProto]:
    made: list[onnx.NodeProto] = []

    def node(op_type: str, inputs: list[str], last: bool = False, **attributes: int) -> str:
        output = final if last else editor.new_name(f"{raw}_{op_type.lower()}")
        made.append(onnx.helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    data_type = channels.trace.data_type(key) or onnx.TensorProto.INT64
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    table = editor.add_initializer(f"{raw}_table", numbers.table.astype(np.int64 if data_type not in INTEGERS else dtype))
    whole = bool(numbers.mask.all())
    current = raw
    if not whole:
        marked = _along_one_axis(numbers.mask)
        where = editor.add_initializer(f"{raw}_holds_numbers", marked)
        zero = editor.add_initializer(f"{raw}_zero", np.zeros((), dtype=dtype))
        current = node("Where", [where, raw, zero])
    if data_type not in INTEGERS:
        current = node("Cast", [current], to=onnx.TensorProto.INT64)
    last = whole and data_type in INTEGERS
    current = node("Gather", [table, current], last=last, axis=0)
    if data_type not in INTEGERS:
        current = node("Cast", [current], last=whole, to=data_type)
    if not whole:
        node("Where", [where, current, raw], last=True)
    return made


def _along_one_axis(mask: BoolArray) -> BoolArray:
    """Squeeze a mask to size 1 on every axis along which it does not change."""
    for axis in range(mask.ndim):
        first = np.take(mask, [0], axis=axis)
        if np.array_equal(mask, np.broadcast_to(first, mask.shape)):
            mask = first
    return mask
