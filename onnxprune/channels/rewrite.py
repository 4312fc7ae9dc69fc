"""Carry a choice of channels out: cut parameters, mend what spells a size out, keep everything else as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx import TensorShapeProto

from onnxprune.channels.analyse import Channels
from onnxprune.channels.constants import Constants, kept_positions, take
from onnxprune.channels.groups import Keep
from onnxprune.channels.mend import Mender
from onnxprune.channels.numbering import renumber
from onnxprune.channels.refold import Refold
from onnxprune.graph.editor import Editor
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external, set_array
from onnxprune.graph.view import Parameter
from onnxprune.types import Array, BoolArray, IntArray


def rewrite(channels: Channels, keep: Keep) -> Model:
    """Return the model without the channels that `keep` drops.

    The copy is edited in place, so that names, order, metadata and untouched tensors come out as they went in.
    External parameters are cut when the file is written.

    Raises:
        UsageError: a mask names no group.
        OnnxpruneError: sizes are computed in a way that cannot be mended.
    """
    mask = channels.mask(keep)
    if mask.all():
        return channels.model
    return _Rewrite(channels, mask).run()


class _Rewrite:
    def __init__(self, channels: Channels, mask: BoolArray) -> None:
        self.channels = channels
        self.mask = mask
        self.editor = Editor(channels.view)
        self.constants = Constants(channels, self.editor)
        self.pending: dict[str, Callable[[], Array]] = dict(channels.model.pending)

    def run(self) -> Model:
        refold = Refold(self.channels.state, self.mask)
        Mender(self.channels, refold, self.editor, self.constants).run()
        self._copied_constants()
        self.constants.flush()
        self.editor.drop_unread(refold.broken.values())
        self._parameters()
        self._declared_shapes()
        if not self.channels.state.boundary.renumber:
            renumber(self.channels, self.mask, self.editor)
        return Model(self.editor.finish(), self.channels.model.path, self.pending)

    def _parameters(self) -> None:
        """Cut tensors that all users see alike."""
        for key, parameter in self.channels.view.parameters.items():
            if key in self.channels.state.axes:
                self._cut(parameter, kept_positions(self.channels.state.axes[key], self.mask))
        for root, uses in self.channels.uses.items():
            if root not in self.constants.wanted and self.channels.is_cut_in_place(root, self.mask):
                self._cut(self.channels.view.parameters[root], kept_positions(list(uses[0].axes), self.mask))

    def _cut(self, parameter: Parameter, kept: list[IntArray | None]) -> None:
        if all(k is None for k in kept):
            return
        model = self.channels.model
        target = self.editor.view.parameters[parameter.key].tensor
        if is_external(parameter.tensor):
            earlier = model.pending.get(parameter.key)
            self.pending[parameter.key] = lambda: take(earlier() if earlier else model.array(parameter.tensor), kept)
            for axis, positions in enumerate(kept):
                if positions is not None:
                    target.dims[axis] = len(positions)
        else:
            set_array(target, take(model.array(parameter.tensor), kept))
        for value in self.editor.proto.graph.input:
            if value.name == parameter.key:
                for dim, size in zip(value.type.tensor_type.shape.dim, target.dims, strict=True):
                    dim.dim_value = size

    def _copied_constants(self) -> None:
        """Small constants whose users lose different positions become one copy per variant."""
        for root, uses in self.channels.uses.items():
            if self.channels.is_cut_in_place(root, self.mask):
                continue
            for use in uses:
                kept = kept_positions(list(use.axes), self.mask)
                if any(k is not None for k in kept):
                    array = self.channels.model.array(self.channels.view.parameters[root].tensor)
                    self.constants.replace(use.node, use.input, take(array, kept))

    def _declared_shapes(self) -> None:
        """Shapes that are spelled out: of inputs and outputs, activations, and (by the newer exporter) parameters."""
        inputs = {key: value.type for key, value in self.editor.view.inputs.items()}
        for key, proto in (*inputs.items(), *self.editor.view.declarations):
            axes = self.channels.state.axes.get(key)
            if proto.WhichOneof("value") != "tensor_type":
                continue
            dims = proto.tensor_type.shape.dim
            parameter = self.editor.view.parameters.get(key)
            if parameter is not None and len(dims) == len(parameter.dims):
                for dim, size in zip(dims, parameter.dims, strict=True):
                    if dim.HasField("dim_value"):
                        dim.dim_value = size
            elif axes is not None and len(dims) == len(axes):
                self._declare(dims, axes)

    def _declare(self, dims: Iterable[TensorShapeProto.Dimension], axes: list[IntArray]) -> None:
        for dim, ids, kept in zip(dims, axes, kept_positions(axes, self.mask), strict=True):
            if kept is not None and dim.HasField("dim_value") and len(ids):
                dim.dim_value = len(kept)
