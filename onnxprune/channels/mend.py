"""Mend the sizes that nodes spell out: attributes, shape operands, bounds, indices, split sizes.

Shape arithmetic is evaluated again with the new shapes; where it would give something else than the analysis says,
the operand is replaced.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.channels.constants import Constants, kept_positions, take
from onnxprune.channels.edits import AttributeSize, AttributeValue, EntrySize, EqualSplit, Indices, Selection, Shuffle
from onnxprune.channels.refold import Refold
from onnxprune.errors import OnnxpruneError
from onnxprune.graph.editor import Editor
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray, IntArray

COUNTS_FROM_ZERO = frozenset({"Slice", "Pad", "Split"})
"""Operators whose size entries may be 0 or negative by meaning, not as placeholders."""


class Mender:
    """Carries the edits of an analysis out on a copy of the model."""

    def __init__(self, refold: Refold, editor: Editor, constants: Constants) -> None:
        self.refold = refold
        self.channels = refold.channels
        self.mask = refold.mask
        self.editor = editor
        self.constants = constants

    def run(self) -> None:
        """Apply every edit.

        Raises:
            OnnxpruneError: sizes are computed in a way that cannot be mended.
        """
        sizes: dict[tuple[int, int], list[EntrySize]] = {}
        for edit in self.channels.state.edits:
            if isinstance(edit, EntrySize):
                sizes.setdefault((id(edit.node), edit.input), []).append(edit)
            elif isinstance(edit, AttributeSize):
                self._attribute(edit)
            elif isinstance(edit, AttributeValue):
                self._attribute_value(edit)
            elif isinstance(edit, Indices):
                self._renumber(edit)
            elif isinstance(edit, Selection):
                self._select(edit)
            elif isinstance(edit, Shuffle):
                self._shuffle(edit)
            else:
                self._spell_split(edit)
        for edits in sizes.values():
            self._spell_sizes(edits)
        self._data_operands()

    def _count(self, ids: IntArray) -> int:
        return int(np.count_nonzero(self.mask[ids]))

    def _attribute(self, edit: AttributeSize) -> None:
        size = self._count(edit.ids)
        if size == len(edit.ids):
            return
        for attribute in self.editor.node_proto(edit.node).attribute:
            if attribute.name == edit.name and edit.index is None:
                attribute.i = size
            elif attribute.name == edit.name and edit.index is not None:
                attribute.ints[edit.index] = size

    def _attribute_value(self, edit: AttributeValue) -> None:
        if self._count(edit.ids) == len(edit.ids):
            return
        proto = self.editor.node_proto(edit.node)
        for attribute in list(proto.attribute):
            if attribute.name == edit.name:
                proto.attribute.remove(attribute)
        proto.attribute.append(onnx.helper.make_attribute(edit.name, edit.value))

    def _spell_sizes(self, edits: list[EntrySize]) -> None:
        """Let the entries of a size operand be what the analysis says, under both assignments."""
        node, index = edits[0].node, edits[0].input
        key = node.inputs[index]
        expected = [self._expected(edits, key, run) for run in (0, 1)]
        found = [self.refold.value(key, run) for run in (0, 1)]
        if expected[0] is None or expected[1] is None:
            return
        if _same(found[0], expected[0]) and _same(found[1], expected[1]):
            return
        if np.array_equal(expected[0], expected[1]):
            self.constants.replace(node, index, expected[0])
        else:
            self._spell_dynamic(node, index, (expected[0], expected[1]), found)

    def _expected(self, edits: list[EntrySize], key: str, run: int) -> Array | None:
        """What a size operand must hold; 0 and -1 in a shape follow by themselves."""
        old = self.refold.runs[run].values.get(key)
        if old is None:
            return None
        expected = np.array(old, copy=True)
        flat = expected.reshape(-1)
        for edit in edits:
            if edit.node.op_type in COUNTS_FROM_ZERO:
                flat[edit.entry] = self._count(edit.ids)
            elif flat[edit.entry] > 0:
                flat[edit.entry] = self.refold.scale(edit.ids, int(flat[edit.entry]))
        return expected

    def _spell_dynamic(self, node: Node, index: int, expected: tuple[Array, Array], found: list[Array | None]) -> None:
        """Sizes of which some are dynamic: 0 or -1 say so in a Reshape, elsewhere they are merged in at run time."""
        if node.op_type == "Reshape" and not node.attribute("allowzero", 0):
            spelled = self._reshape_target(node, expected)
            if spelled is not None:
                self.constants.replace(node, index, spelled)
                return
        dynamic = np.asarray(expected[0] != expected[1])
        for value, wanted in zip(found, expected, strict=True):
            if value is None or not np.array_equal(value[dynamic], wanted[dynamic]):
                raise OnnxpruneError(
                    f"{node.label}: its sizes are computed in a way that cannot be mended; leave it out with --skip."
                )
        self._merge(node, index, expected[0], dynamic)

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

    def _reshape_target(self, node: Node, expected: tuple[Array, Array]) -> Array | None:
        """A target with 0 where the input has the same dynamic size and at most one -1."""
        shapes = [self.refold.shape(node.inputs[0], run) for run in (0, 1)]
        spelled = expected[0].copy()
        for entry in np.flatnonzero(expected[0] != expected[1]):
            alike = all(
                shape is not None and entry < len(shape) and shape[entry] == value[entry]
                for shape, value in zip(shapes, expected, strict=True)
            )
            spelled[entry] = 0 if alike else -1
        return spelled if np.count_nonzero(spelled == -1) <= 1 else None

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
        self.constants.replace(edit.node, edit.input, rank[positions[mask[positions]]].astype(old.dtype))

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
        sizes = [self._count(ids) for ids in edit.parts]
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
            if not all(_same(self.refold.value(key, run), expected) for run in (0, 1)):
                self.constants.replace(node, index, expected)


def _same(found: Array | None, expected: Array) -> bool:
    return found is not None and found.shape == expected.shape and bool(np.array_equal(found, expected))
