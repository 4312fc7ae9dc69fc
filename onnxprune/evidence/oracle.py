"""The masked original: the same graph with the removed slices set to zero.

For groups that are exact this alone must equal the pruned model. Where an operator normalises over a pruned axis, it is
given the kept positions only, and its result is spread out again with zeros, so that the comparison holds there too.
"""

from __future__ import annotations

import heapq

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels
from onnxprune.channels.constants import kept_positions
from onnxprune.channels.edits import AttributeList, AttributeSize, AttributeValue, EntrySize
from onnxprune.channels.groups import Keep
from onnxprune.channels.numbering import renumber
from onnxprune.channels.plan import Positions
from onnxprune.evidence.held import Kept
from onnxprune.evidence.masked import MaskedOriginal
from onnxprune.graph.editor import Editor
from onnxprune.graph.tensors import is_external, set_array
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray, IntArray


def masked_model(channels: Channels, keep: Keep) -> MaskedOriginal:
    """Return the original with every slice zeroed that `keep` removes (1 where a constant divides).

    The weights of the result are embedded: it is for models that fit into memory.

    Raises:
        UsageError: a mask names no group.
    """
    mask = channels.mask(keep)
    editor = Editor(channels.view)
    plan = channels.plan(keep)
    _embed(channels, editor)
    _zero(channels, editor, plan.removed)
    for node in channels.state.normalised:
        _compress(channels, editor, node, mask)
    renumber(channels, mask, editor, at_source=True)
    return MaskedOriginal(editor.finish(), channels.model.path, kept=_kept_of(channels, mask))


def _kept_of(channels: Channels, mask: BoolArray) -> Kept:
    """Return what tells for a tensor which positions of its axes the pruned model keeps."""

    def kept(name: str) -> list[IntArray | None] | None:
        axes = channels.state.axes.get(channels.view.root(name), channels.state.axes.get(name))
        return kept_positions(axes, mask) if axes is not None else None

    return kept


def _embed(channels: Channels, editor: Editor) -> None:
    for key, parameter in editor.view.parameters.items():
        if is_external(parameter.tensor):
            content = np.array(channels.model.array(channels.view.parameters[key].tensor))
            parameter.tensor.ClearField("external_data")
            parameter.tensor.ClearField("data_location")
            set_array(parameter.tensor, content)


def _zero(channels: Channels, editor: Editor, removed: Positions) -> None:
    divisors = _divisors(channels)
    for key, axes in removed.items():
        if key in channels.state.zero_tables:
            continue
        kept = _self_divided_axes(channels, key)
        parameter = editor.view.parameters[key]
        array = np.array(channels.model.array(channels.view.parameters[key].tensor))
        for axis, positions in axes.items():
            if axis in kept:
                continue
            index: list[slice | list[int]] = [slice(None)] * array.ndim
            index[axis] = positions
            array[tuple(index)] = _neutral(channels, key, array, axis, positions, (key, axis) in divisors)
        set_array(parameter.tensor, array)


def _divisors(channels: Channels) -> set[tuple[str, int]]:
    """Parameter axes that divide: zero there would make the masked original infinite."""
    found = {slot for slot, role in channels.state.roles.items() if role == "divides"}
    for (node, index, axis), role in channels.state.use_roles.items():
        if role == "divides":
            found.add((channels.state.uses[node, index].root, axis))
    return found


def _self_divided_axes(channels: Channels, key: str) -> set[int]:
    """Return the axes along which a weight is divided by a norm of its own (weight norm): 0 / 0 shows nothing there."""
    view, trace = channels.view, channels.trace
    dims = view.parameters[key].dims
    alone = {key}
    found: set[int] = set()
    waiting = view.reader_numbers(key)
    while waiting:
        node = view.nodes[heapq.heappop(waiting)]
        if alone.issuperset(node.outputs) or all(k in trace.first.values for k in node.outputs if k):
            continue  # seen, or of its shape alone
        if any(k not in alone for k in node.inputs if k and k not in view.parameters and k not in trace.values):
            continue
        if node.op_type == "Div" and node.inputs[1] in alone:
            norm = trace.shapes.get(node.inputs[1], ())
            found |= {axis for axis in range(len(dims)) if len(norm) != len(dims) or norm[axis] > 1}
        alone.update(node.outputs)
        for output in filter(None, node.outputs):
            for number in view.reader_numbers(output):
                heapq.heappush(waiting, number)
    return found


def _neutral(channels: Channels, key: str, array: Array, axis: int, positions: list[int], divides: bool) -> Array:
    """What stands for nothing: 1 for a divisor, the zero point for a quantized weight, otherwise 0."""
    if divides:
        return np.ones((), dtype=array.dtype)
    table, own = channels.state.zero_points.get(key, ("", 0))
    stored = channels.view.parameters.get(table)
    if stored is None:
        return np.zeros((), dtype=array.dtype)
    return np.take(_spread(channels.model.array(stored.tensor), array, own), positions, axis=axis)


def _spread(zero_point: Array, array: Array, own: int) -> Array:
    """Shape a zero point (per tensor, per axis or per block) as the tensor that it describes."""
    if zero_point.ndim == 1 and zero_point.size > 1:
        zero_point = zero_point.reshape([-1 if axis == own % array.ndim else 1 for axis in range(array.ndim)])
    elif zero_point.ndim <= 1:
        zero_point = zero_point.reshape([1] * array.ndim)
    for axis, (size, entries) in enumerate(zip(array.shape, zero_point.shape, strict=True)):
        if entries not in (1, size):
            zero_point = np.repeat(zero_point, -(-size // entries), axis=axis)[(slice(None),) * axis + (slice(size),)]
    return np.broadcast_to(zero_point, array.shape)


def _compress(channels: Channels, editor: Editor, node: Node, mask: BoolArray) -> None:
    """Let one node see only the kept positions of its inputs, and spread its outputs out again."""
    for index, key in enumerate(node.inputs):
        axes = _input_axes(channels, node, index) if key else None
        for axis, positions in enumerate(kept_positions(axes, mask) if axes is not None else []):
            if positions is not None:
                _gather_input(editor, node, index, axis, positions)
    for edit in channels.state.edits:
        if edit.node is node and isinstance(edit, AttributeSize | AttributeValue | AttributeList):
            edit.apply(editor.node_proto(node), mask)
        elif edit.node is node and isinstance(edit, EntrySize):
            _size_input(channels, editor, edit, mask)
    for number, key in enumerate(node.outputs):
        axes = channels.state.axes.get(key) if key else None
        kept = kept_positions(axes, mask) if axes is not None else []
        if axes is not None and any(k is not None for k in kept):
            _spread_output(editor, node, number, [len(ids) for ids in axes], kept)


def _size_input(channels: Channels, editor: Editor, edit: EntrySize, mask: BoolArray) -> None:
    key = edit.node.inputs[edit.input]
    value = channels.trace.values.get(key)
    if value is not None and not mask[edit.ids].all():
        sizes = np.array(value)
        sizes.reshape(-1)[edit.entry] = np.count_nonzero(mask[edit.ids])
        editor.node_proto(edit.node).input[edit.input] = editor.add_initializer(f"{key}_kept", sizes)


def _input_axes(channels: Channels, node: Node, index: int) -> list[IntArray] | None:
    slot = (id(node), index)
    state = channels.state
    if slot in state.uses:
        return list(state.uses[slot].axes)
    if slot in state.folded:
        return state.folded[slot][1]
    key = node.inputs[index]
    return state.axes.get(channels.view.root(key), state.axes.get(key))


def _gather_input(editor: Editor, node: Node, index: int, axis: int, positions: IntArray) -> None:
    proto = editor.node_proto(node)
    indices = editor.add_initializer(f"{proto.input[index]}_kept", positions.astype(np.int64))
    taken = editor.new_name(f"{indices}_taken")
    made = onnx.helper.make_node("Gather", [proto.input[index], indices], [taken], name=taken, axis=axis)
    editor.put_before(node, made)
    editor.node_proto(node).input[index] = taken


def _spread_output(editor: Editor, node: Node, number: int, sizes: list[int], kept: list[IntArray | None]) -> None:
    """Append a zero position to each cut axis and pick it wherever a position was removed."""
    proto = editor.node_proto(node)
    final = proto.output[number]
    current = editor.new_name(f"{final}_compressed")
    proto.output[number] = current
    cut = [(axis, positions) for axis, positions in enumerate(kept) if positions is not None]
    made: list[onnx.NodeProto] = []
    for step, (axis, positions) in enumerate(cut):
        padded = editor.new_name(f"{final}_padded{axis}")
        target = final if step == len(cut) - 1 else editor.new_name(f"{final}_spread{axis}")
        pads = [0] * (2 * len(sizes))
        pads[len(sizes) + axis] = 1
        made.append(_pad(editor, node, current, padded, pads))
        table = np.full(sizes[axis], len(positions), dtype=np.int64)
        table[positions] = np.arange(len(positions))
        indices = editor.add_initializer(f"{final}_places{axis}", table)
        made.append(onnx.helper.make_node("Gather", [padded, indices], [target], name=target, axis=axis))
        current = target
    editor.put_after(node, made)


def _pad(editor: Editor, node: Node, source: str, target: str, pads: list[int]) -> onnx.NodeProto:
    opset = editor.view.opsets.get("", node.version)
    if opset < 11:
        return onnx.helper.make_node("Pad", [source], [target], name=target, pads=pads)
    amounts = editor.add_initializer(f"{target}_pads", np.array(pads, dtype=np.int64))
    return onnx.helper.make_node("Pad", [source, amounts], [target], name=target)
