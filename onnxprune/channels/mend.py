"""Mend the sizes that nodes spell out: attributes, shape operands, bounds, indices, split sizes.

Shape arithmetic is evaluated again with the new shapes; where it would give something else than the analysis says,
the operand is replaced.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels
from onnxprune.channels.constants import Constants, kept_positions, take
from onnxprune.channels.edits import (
    AttributeList,
    AttributeSize,
    AttributeValue,
    EqualSplit,
    Indices,
    Selection,
    Shuffle,
)
from onnxprune.channels.operands import Spelled, operands, same, spell
from onnxprune.channels.refold import Refold
from onnxprune.errors import OnnxpruneError
from onnxprune.graph.editor import Editor
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray


class Mender:
    """Carries the edits of an analysis out on a copy of the model."""

    def __init__(self, channels: Channels, refold: Refold, editor: Editor, constants: Constants) -> None:
        self.refold = refold
        self.channels = channels
        self.mask = refold.mask
        self.editor = editor
        self.constants = constants

    def run(self) -> None:
        """Apply every edit.

        Raises:
            OnnxpruneError: sizes are computed in a way that cannot be mended.
        """
        for edit in self.channels.state.edits:
            if isinstance(edit, AttributeSize | AttributeValue | AttributeList):
                edit.apply(self.editor.node_proto(edit.node), self.mask)
            elif isinstance(edit, Indices):
                self._renumber(edit)
            elif isinstance(edit, Selection):
                self._select(edit)
            elif isinstance(edit, Shuffle):
                self._shuffle(edit)
            elif isinstance(edit, EqualSplit):
                self._spell_split(edit)
        for operand in operands(self.refold):
            self._spell(spell(self.refold, operand))
        self._data_operands()

    def _spell(self, spelled: Spelled) -> None:
        """Let a size operand hold what it must."""
        node, index = spelled.node, spelled.input
        if spelled.way == "stuck":
            raise OnnxpruneError(
                f"{node.label}: its sizes are computed in a way that cannot be mended; leave it out with --skip."
            )
        if spelled.way == "constant":
            self.constants.replace(node, index, spelled.value)
        elif spelled.way == "computed":
            self._scale(node, index, spelled)
            if not spelled.dynamic.all():
                self._merge(node, index, spelled.value, spelled.dynamic)

    def _scale(self, node: Node, index: int, spelled: Spelled) -> None:
        """Put `computed * kept / full` in front of one input, which divides without rest."""
        for operator, factors in (("Mul", spelled.kept), ("Div", spelled.full)):
            if (factors == 1).all():
                continue
            proto = self.editor.node_proto(node)
            name = self.editor.add_initializer(f"{proto.output[0]}_sizes", factors)
            scaled = self.editor.new_name(f"{name}_{operator.lower()}")
            made = onnx.helper.make_node(operator, [proto.input[index], name], [scaled], name=scaled)
            self.editor.put_before(node, made)
            self.editor.node_proto(node).input[index] = scaled

    def _merge(self, node: Node, index: int, value: Array, dynamic: BoolArray) -> None:
        """Put `Where(dynamic, computed, constant)` in front of one input."""
        proto = self.editor.node_proto(node)
        base = f"{proto.output[0]}_sizes"
        mask_name = self.editor.add_initializer(f"{base}_dynamic", dynamic)
        value_name = self.editor.add_initializer(base, value)
        merged = self.editor.new_name(f"{base}_merged")
        inputs = [mask_name, proto.input[index], value_name]
        self.editor.put_before(node, onnx.helper.make_node("Where", inputs, [merged], name=merged))
        self.editor.node_proto(node).input[index] = merged

    def _renumber(self, edit: Indices) -> None:
        mask = self.mask[edit.ids]
        if mask.all():
            return
        key = edit.node.inputs[edit.input]
        old = self.channels.trace.values.get(key)
        if old is None:
            old = self.channels.model.array(self.channels.view.parameters[self.channels.view.root(key)].tensor)
        rank = np.cumsum(mask) - 1
        positions = np.where(old < 0, old + len(mask), old)
        left = np.asarray(rank[positions[mask[positions]]] if positions.ndim else rank[positions])
        self.constants.replace(edit.node, edit.input, left.astype(old.dtype))

    def _select(self, edit: Selection) -> None:
        """Take the kept positions of a strided Slice by a Gather in front of it, and leave the slice open there."""
        mask = self.mask[edit.ids]
        if mask.all():
            return
        rank = (np.cumsum(mask) - 1)[edit.positions[mask[edit.positions]]].astype(np.int64)
        proto = self.editor.node_proto(edit.node)
        indices = self.editor.add_initializer(f"{proto.output[0]}_positions", rank)
        taken = self.editor.new_name(f"{indices}_taken")
        gather = onnx.helper.make_node("Gather", [proto.input[0], indices], [taken], name=taken, axis=edit.axis)
        self.editor.put_before(edit.node, gather)
        self.editor.node_proto(edit.node).input[0] = taken
        self._open_slice(edit)

    def _shuffle(self, edit: Shuffle) -> None:
        """Replace a run of nodes that permutes an axis by one Gather."""
        mask = self.mask[edit.ids]
        if mask.all():
            return
        rank = (np.cumsum(mask) - 1)[edit.positions[mask[edit.positions]]].astype(np.int64)
        first, last = self.editor.node_proto(edit.run[0]), self.editor.node_proto(edit.run[2])
        indices = self.editor.add_initializer(f"{last.output[0]}_positions", rank)
        gather = onnx.helper.make_node(
            "Gather", [first.input[0], indices], [last.output[0]], name=last.name, axis=edit.axis
        )
        self.editor.replace(edit.run, gather)

    def _open_slice(self, edit: Selection) -> None:
        """Let the slice take the whole axis."""
        node = edit.node
        rank = len(self.channels.trace.shapes[node.inputs[0]])
        values = self.channels.trace.first.values
        listed = {i: values[node.inputs[i]].copy() for i in (1, 2, 3, 4) if node.has_input(i)}
        axes = [int(a) % rank for a in listed[3]] if 3 in listed else list(range(len(listed[1])))
        entry = axes.index(edit.axis)
        for index, neutral in ((1, 0), (2, np.iinfo(np.int32).max), (4, 1)):
            if index in listed:
                listed[index][entry] = neutral
                self.constants.replace(node, index, listed[index])

    def _spell_split(self, edit: EqualSplit) -> None:
        sizes = [self.refold.count(ids) for ids in edit.parts]
        if sizes == [len(ids) for ids in edit.parts]:
            return
        proto = self.editor.node_proto(edit.node)
        if edit.node.version < 13:
            proto.attribute.append(onnx.helper.make_attribute("split", sizes))
            return
        for attribute in list(proto.attribute):
            if attribute.name == "num_outputs":
                proto.attribute.remove(attribute)
        name = self.editor.add_initializer(f"{proto.output[0]}_split", np.array(sizes, dtype=np.int64))
        del proto.input[1:]
        proto.input.append(name)

    def _data_operands(self) -> None:
        """Shape arithmetic that is used as data keeps its old value, cut to the kept positions."""
        for (_, index), (node, axes) in self.channels.state.folded.items():
            key = node.inputs[index]
            old = self.channels.trace.values.get(key)
            if old is None:
                continue
            expected = take(old, kept_positions(axes, self.mask))
            if not all(same(self.refold.value(key, run), expected) for run in (0, 1)):
                self.constants.replace(node, index, expected)
