"""Numbers of positions (ArgMax, TopK, NonMaxSuppression) on an axis that was cut: turned back into the old numbers.

A number stays new where it is moved about, and where it picks from an axis that lost the same positions. Anything else,
the caller of the model above all, gets the old number, through a table: `y = table[x]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels
from onnxprune.channels.numbers import Numbers
from onnxprune.errors import NothingToPruneError
from onnxprune.graph.editor import Editor
from onnxprune.types import BoolArray, IntArray

INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def renumber(channels: Channels, mask: BoolArray, editor: Editor, *, at_source: bool = False) -> None:
    """Put tables where numbers of a cut axis leave for the world of old numbers.

    Args:
        channels: the analysis; its state says which tensors hold numbers.
        mask: (ids,) True for every id that stays.
        editor: of a copy of the model; nodes are added to it.
        at_source: right behind the operator that makes the numbers, whoever reads them.

    Raises:
        NothingToPruneError: numbers go where no table can be put.
    """
    state, view = channels.state, channels.view
    sources = {ranking.output for ranking in state.rankings}
    for key, held in state.numbers.items():
        cut = [numbers for numbers in held if not mask[numbers.ids].all()]
        if not cut or (at_source and key not in sources):
            continue
        if at_source:
            _translate(channels, editor, key, cut, mask, None)
            continue
        wanted = {
            (id(node), index)
            for node, index in view.readers.get(key, [])
            if (id(node), index) not in state.number_uses and not any(o in state.numbers for o in node.outputs)
        }
        _check_open(channels, key)
        if wanted or key in view.outputs:
            _translate(channels, editor, key, cut, mask, wanted)


def _check_open(channels: Channels, key: str) -> None:
    for node in channels.view.nodes:
        if key in node.captured or any(key in branch for branch in node.branches):
            raise NothingToPruneError(f"{node.label}: numbers of positions that are to go pass the border of its body.")


def _translate(
    channels: Channels,
    editor: Editor,
    key: str,
    held: Sequence[Numbers],
    mask: BoolArray,
    wanted: set[tuple[int, int]] | None,
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
    for number, numbers in enumerate(held):
        target = final if number == len(held) - 1 else editor.new_name(f"{final}_{number}")
        table = np.flatnonzero(mask[numbers.ids])
        editor.put_after(producer, _table_nodes(channels, editor, key, (raw, target), numbers.mask, table))
        raw = target


def _table_nodes(
    channels: Channels, editor: Editor, key: str, names: tuple[str, str], holds: BoolArray, table: IntArray
) -> list[onnx.NodeProto]:
    """Return y = table[x] where x holds numbers, x elsewhere."""
    raw, final = names
    made: list[onnx.NodeProto] = []

    def node(op_type: str, inputs: list[str], last: bool = False, **attributes: Any) -> str:
        output = final if last else editor.new_name(f"{raw}_{op_type.lower()}")
        made.append(onnx.helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    data_type = channels.trace.data_type(key) or onnx.TensorProto.INT64
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    stored = editor.add_initializer(f"{raw}_table", table.astype(dtype if data_type in INTEGERS else np.int64))
    whole = bool(holds.all())
    current = raw
    if not whole:
        marked = _along_one_axis(holds)
        where = editor.add_initializer(f"{raw}_holds_numbers", marked)
        zero = editor.add_initializer(f"{raw}_zero", np.zeros((), dtype=dtype))
        current = node("Where", [where, raw, zero])
    if data_type not in INTEGERS:
        current = node("Cast", [current], to=onnx.TensorProto.INT64)
    last = whole and data_type in INTEGERS
    current = node("Gather", [stored, current], last=last, axis=0)
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
