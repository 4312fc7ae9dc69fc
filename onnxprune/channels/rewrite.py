"""Carry a choice of channels out: cut parameters, mend the sizes that are spelled out.

The rewrite edits a copy of the ModelProto in place, so that everything else stays as it was. Shape arithmetic is
evaluated again with the new shapes; where it would give something else than the analysis says, the constant behind it
is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels
from onnxprune.channels.edits import AttributeSize, EntrySize, EqualSplit, Indices, Selection
from onnxprune.channels.groups import Keep
from onnxprune.channels.refold import Refold
from onnxprune.errors import OnnxpruneError
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external, set_array
from onnxprune.graph.view import Node, Parameter, View
from onnxprune.types import Array, BoolArray, IntArray


def rewrite(channels: Channels, keep: Keep) -> Model:
    """Return the model without the channels that `keep` drops.

    Raises:
        UsageError: a mask names no group.
        OnnxpruneError: a size that is spelled out cannot be mended (a defect, the model would not run).
    """
    mask = channels.mask(keep)
    if mask.all():
        return channels.model
    return _Rewrite(channels, mask).run()


@dataclass(eq=False)
class _Rewrite:
    channels: Channels
    mask: BoolArray
    view: View = field(init=False)
    nodes: dict[int, Node] = field(init=False)
    pending: dict[str, Callable[[], Array]] = field(init=False)
    replaced: dict[str, dict[tuple[int, int], Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.channels.model
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        self.view = View(Model(proto, model.path))
        old = self.channels.view
        self.nodes = {id(a): b for a, b in zip(old.nodes, self.view.nodes, strict=True)}
        self.pending = dict(model.pending)

    def run(self) -> Model:
        refold = Refold(self.channels, self.mask)
        self._attributes()
        self._operands(refold)
        self._data_operands(refold)
        self._uses()
        self._flush()
        self._parameters()
        self._declared()
        return Model(self.view.model.proto, self.channels.model.path, self.pending)

    # --- parameters -------------------------------------------------------------------------------------------

    def _parameters(self) -> None:
        """Cut tensors that all users see alike."""
        for key, parameter in self.channels.view.parameters.items():
            if key in self.channels.state.axes:
                self._cut(parameter, self._kept(self.channels.state.axes[key]))
        for root, uses in self.channels.uses.items():
            if self.channels.is_cut_in_place(root, self.mask) and root not in self.replaced:
                self._cut(self.channels.view.parameters[root], self._kept(list(uses[0].axes)))

    def _kept(self, axes: list[IntArray]) -> list[IntArray | None]:
        """Kept positions per axis, None where the whole axis stays."""
        kept: list[IntArray | None] = []
        for ids in axes:
            mask = self.mask[ids]
            kept.append(None if mask.all() else np.flatnonzero(mask))
        return kept

    def _cut(self, parameter: Parameter, kept: list[IntArray | None]) -> None:
        if all(k is None for k in kept):
            return
        target = self.view.parameters[parameter.key].tensor
        model = self.channels.model
        if is_external(parameter.tensor):
            source = model.pending.get(parameter.key)
            read = source if source is not None else lambda: model.array(parameter.tensor)
            self.pending[parameter.key] = lambda: take(read(), kept)
            for axis, positions in enumerate(kept):
                if positions is not None:
                    target.dims[axis] = len(positions)
        else:
            set_array(target, take(model.array(parameter.tensor), kept))
        self._declare_input(parameter.key, tuple(target.dims))

    def _declare_input(self, key: str, dims: tuple[int, ...]) -> None:
        """An initializer that is also a graph input spells its shape there too."""
        for value in self.view.model.proto.graph.input:
            if value.name == key:
                for dim, size in zip(value.type.tensor_type.shape.dim, dims, strict=True):
                    dim.dim_value = size

    def _uses(self) -> None:
        """Small constants whose users lose different positions become one copy per variant."""
        for root, uses in self.channels.uses.items():
            if self.channels.is_cut_in_place(root, self.mask):
                continue
            array: Array | None = None
            for use in uses:
                kept = self._kept(list(use.axes))
                if any(k is not None for k in kept):
                    array = (
                        self.channels.model.array(self.channels.view.parameters[root].tensor)
                        if array is None
                        else array
                    )
                    self._replace(root, use.node, use.input, take(array, kept))

    # --- constants behind node inputs -------------------------------------------------------------------------

    def _replace(self, key: str, node: Node, index: int, value: Array) -> None:
        """Let one node input read another constant from now on."""
        self.replaced.setdefault(key, {})[id(node), index] = np.ascontiguousarray(value)

    def _flush(self) -> None:
        """Write replaced constants: in place where every reader wants the same, else as new initializers."""
        for key, wanted in self.replaced.items():
            values = list(wanted.values())
            parameter = self.view.parameters.get(key)
            readers = self.channels.reader_count(key)
            same = all(v.shape == values[0].shape and np.array_equal(v, values[0]) for v in values)
            if parameter is not None and key not in self.channels.state.fixed and same and len(values) == readers:
                set_array(parameter.tensor, values[0].astype(self._dtype(parameter)))
                continue
            made: dict[tuple[tuple[int, ...], bytes], str] = {}
            for (node, index), value in wanted.items():
                if parameter is not None:
                    value = value.astype(self._dtype(parameter))
                content = (value.shape, value.tobytes())
                if content not in made:
                    made[content] = self._new_initializer(f"{key}_onnxprune", value, parameter)
                self.nodes[node].proto.input[index] = made[content]

    def _dtype(self, parameter: Parameter) -> np.dtype[np.generic]:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(parameter.data_type))

    def _new_initializer(self, base: str, value: Array, like: Parameter | None) -> str:
        name = self._new_name(base)
        tensor = self.view.model.proto.graph.initializer.add()
        tensor.name = name
        if like is not None:
            tensor.data_type = like.data_type
        else:
            tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        set_array(tensor, value)
        return name

    def _new_name(self, base: str) -> str:
        taken = self.view.keys
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        return name

    # --- sizes that are spelled out ---------------------------------------------------------------------------

    def _count(self, ids: IntArray) -> int:
        return int(np.count_nonzero(self.mask[ids]))

    def _attributes(self) -> None:
        for edit in self.channels.state.edits:
            if isinstance(edit, AttributeSize):
                for attribute in self.nodes[id(edit.node)].proto.attribute:
                    if attribute.name == edit.name:
                        self._set_attribute(attribute, edit)

    def _set_attribute(self, attribute: onnx.AttributeProto, edit: AttributeSize) -> None:
        size = self._count(edit.ids)
        if size == len(edit.ids):
            return
        if edit.index is None:
            attribute.i = size
        else:
            attribute.ints[edit.index] = size

    def _operands(self, refold: Refold) -> None:
        """Integer operands: sizes, bounds and indices."""
        sizes: dict[tuple[int, int], list[EntrySize]] = {}
        for edit in self.channels.state.edits:
            if isinstance(edit, EntrySize):
                sizes.setdefault((id(edit.node), edit.input), []).append(edit)
            elif isinstance(edit, Indices):
                self._renumber(edit)
            elif isinstance(edit, Selection):
                self._select(edit)
            elif isinstance(edit, EqualSplit):
                self._spell_split(edit)
        for edits in sizes.values():
            self._spell_sizes(edits, refold)

    def _spell_sizes(self, edits: list[EntrySize], refold: Refold) -> None:
        """Let the entries of a size operand be what the analysis says, under both assignments."""
        node, index = edits[0].node, edits[0].input
        key = node.inputs[index]
        expected = [self._expected(edits, key, run, refold) for run in (0, 1)]
        found = [refold.value(key, run) for run in (0, 1)]
        if expected[0] is None or expected[1] is None:
            return
        if _same(found[0], expected[0]) and _same(found[1], expected[1]):
            return
        dynamic = np.atleast_1d(expected[0] != expected[1])
        if dynamic.any():
            self._spell_dynamic(node, index, (expected[0], expected[1]), found, refold)
        else:
            root = self.channels.view.root(key)
            self._replace(root if root in self.channels.view.parameters else key, node, index, expected[0])

    def _expected(self, edits: list[EntrySize], key: str, run: int, refold: Refold) -> Array | None:
        """What a size operand must hold; 0 and -1 in a shape follow by themselves."""
        old = refold.runs[run].values.get(key)
        if old is None:
            return None
        expected = np.array(old, copy=True)
        flat = expected.reshape(-1)
        signed = edits[0].node.op_type in ("Slice", "Pad", "Split")
        for edit in edits:
            if signed:
                flat[edit.entry] = self._count(edit.ids)
            elif flat[edit.entry] > 0:
                flat[edit.entry] = refold.scale(edit.ids, int(flat[edit.entry]))
        return expected

    def _spell_dynamic(
        self, node: Node, index: int, expected: tuple[Array, Array], found: list[Array | None], refold: Refold
    ) -> None:
        """Sizes of which some are dynamic: 0 or -1 say so in a Reshape, elsewhere they are merged in at run time."""
        if node.op_type == "Reshape" and not node.attribute("allowzero", 0):
            spelled = self._reshape_target(node, expected, refold)
            if spelled is not None:
                self._replace(node.inputs[index], node, index, spelled)
                return
        dynamic = np.asarray(expected[0] != expected[1])
        for run in (0, 1):
            value = found[run]
            if value is None or not np.array_equal(value[dynamic], expected[run][dynamic]):
                raise OnnxpruneError(
                    f"{node.label}: its sizes are computed in a way that cannot be mended; leave it out with --skip."
                )
        self._insert(node, index, "Where", expected[0], dynamic)

    def _insert(self, node: Node, index: int, operator: str, value: Array, dynamic: BoolArray) -> None:
        """Put `Where(dynamic, computed, constant)` in front of one input."""
        proto = self.nodes[id(node)].proto
        base = f"{proto.output[0]}_sizes"
        mask_name = self._new_initializer(f"{base}_dynamic", dynamic, None)
        value_name = self._new_initializer(base, value, None)
        merged = self._new_name(f"{base}_merged")
        self._put_before(
            self.nodes[id(node)],
            onnx.helper.make_node(operator, [mask_name, proto.input[index], value_name], [merged], name=merged),
        )
        self.nodes[id(node)].proto.input[index] = merged

    def _put_before(self, node: Node, made: onnx.NodeProto) -> None:
        """Insert a node; inserting moves the protos of a graph, so they are looked up again."""
        graph = node.graph
        place = next(i for i, proto in enumerate(graph.node) if proto.output[:] == node.proto.output[:])
        graph.node.insert(place, made)
        by_output = {tuple(proto.output): proto for proto in graph.node}
        for other in self.nodes.values():
            if other.graph is graph:
                object.__setattr__(other, "proto", by_output[tuple(other.proto.output)])

    def _reshape_target(self, node: Node, expected: tuple[Array, Array], refold: Refold) -> Array | None:
        """A target with 0 where the input has the same dynamic size and at most one -1."""
        source = [refold.shape(node.inputs[0], run) for run in (0, 1)]
        if source[0] is None or source[1] is None:
            return None
        spelled = expected[0].copy()
        for entry in np.flatnonzero(expected[0] != expected[1]):
            alike = entry < len(source[0]) and all(
                shape is not None and shape[entry] == value[entry]
                for shape, value in zip(source, expected, strict=True)
            )
            spelled[entry] = 0 if alike else -1
        return spelled if np.count_nonzero(spelled == -1) <= 1 else None

    def _renumber(self, edit: Indices) -> None:
        mask = self.mask[edit.ids]
        if mask.all():
            return
        key = edit.node.inputs[edit.input]
        root = self.channels.view.root(key)
        parameter = self.channels.view.parameters.get(root)
        values = self.channels.trace.values
        old = values[key] if key in values else self.channels.model.array(parameter.tensor) if parameter else None
        assert old is not None
        rank = np.cumsum(mask) - 1
        positions = np.where(old < 0, old + len(mask), old)
        self._replace(
            root if parameter else key, edit.node, edit.input, rank[positions[mask[positions]]].astype(old.dtype)
        )

    def _select(self, edit: Selection) -> None:
        """Take the kept positions of a strided Slice by a Gather in front of it, and leave the slice open there."""
        mask = self.mask[edit.ids]
        if mask.all():
            return
        rank = (np.cumsum(mask) - 1)[edit.positions[mask[edit.positions]]].astype(np.int64)
        node = self.nodes[id(edit.node)]
        indices = self._new_initializer(f"{node.outputs[0]}_positions", rank, None)
        taken = self._new_name(f"{indices}_taken")
        self._put_before(
            node, onnx.helper.make_node("Gather", [node.proto.input[0], indices], [taken], name=taken, axis=edit.axis)
        )
        node.proto.input[0] = taken
        self._open_slice(edit)

    def _open_slice(self, edit: Selection) -> None:
        old = edit.node
        rank = len(self.channels.trace.shapes[old.inputs[0]])
        values = self.channels.trace.first.values
        starts, ends = self._listed(old, "starts", 1), self._listed(old, "ends", 2)
        axes = self._listed(old, "axes", 3)
        listed = [a % rank for a in axes] if axes is not None else list(range(len(starts or [])))
        entry = listed.index(edit.axis)
        steps = self._listed(old, "steps", 4)
        for index, table, neutral in ((1, starts, 0), (2, ends, np.iinfo(np.int32).max), (4, steps, 1)):
            if table is None:
                continue
            table[entry] = neutral
            key = old.inputs[index]
            self._replace(self.channels.view.root(key), old, index, np.array(table, dtype=values[key].dtype))

    def _listed(self, node: Node, attribute: str, index: int) -> list[int] | None:
        if not node.has_input(index):
            return None
        value = self.channels.trace.first.values.get(node.inputs[index])
        return None if value is None else [int(v) for v in value]

    def _spell_split(self, edit: EqualSplit) -> None:
        sizes = [self._count(ids) for ids in edit.parts]
        old = [len(ids) for ids in edit.parts]
        if sizes == old:
            return
        node = self.nodes[id(edit.node)].proto
        if edit.node.version < 13:
            node.attribute.append(onnx.helper.make_attribute("split", sizes))
            return
        for attribute in list(node.attribute):
            if attribute.name == "num_outputs":
                node.attribute.remove(attribute)
        name = self._new_initializer(f"{node.output[0]}_split", np.array(sizes, dtype=np.int64), None)
        del node.input[1:]
        node.input.append(name)

    def _data_operands(self, refold: Refold) -> None:
        """Shape arithmetic that is used as data keeps its old value, cut to the kept positions."""
        for (_, index), (node, axes) in self.channels.state.folded.items():
            key = node.inputs[index]
            old = self.channels.trace.values.get(key)
            if old is None:
                continue
            kept = self._kept(axes)
            expected = take(old, kept)
            if not all(_same(refold.value(key, run), expected) for run in (0, 1)):
                self._replace(key, node, index, expected)

    def _declared(self) -> None:
        """Shapes that value_info and outputs spell out."""
        for key, proto in self.view.declared.items():
            axes = self.channels.state.axes.get(key)
            if axes is None or proto.WhichOneof("value") != "tensor_type":
                continue
            dims = proto.tensor_type.shape.dim
            if len(dims) != len(axes):
                continue
            for dim, ids in zip(dims, axes, strict=True):
                size = self._count(ids)
                if size != len(ids) and dim.HasField("dim_value"):
                    dim.dim_value = size


def _same(found: Array | None, expected: Array) -> bool:
    return found is not None and found.shape == expected.shape and bool(np.array_equal(found, expected))


def take(array: Array, kept: list[IntArray | None]) -> Array:
    """Keep positions of some axes."""
    for axis, positions in enumerate(kept):
        if positions is not None:
            array = np.take(array, positions, axis=axis)
    return array
