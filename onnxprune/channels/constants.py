"""Constants behind node inputs: who wants another value, and whether that needs a copy."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels
from onnxprune.graph.editor import Editor
from onnxprune.graph.tensors import set_array
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray, IntArray


def kept_positions(axes: list[IntArray], mask: BoolArray) -> list[IntArray | None]:
    """Return the kept positions per axis, None where the whole axis stays."""
    kept: list[IntArray | None] = []
    for ids in axes:
        stays = mask[ids]
        kept.append(None if stays.all() else np.flatnonzero(stays))
    return kept


def take(array: Array, kept: list[IntArray | None]) -> Array:
    """Keep positions of some axes."""
    for axis, positions in enumerate(kept):
        if positions is not None:
            array = np.take(array, positions, axis=axis)
    return array


class Constants:
    """Collects new values for node inputs, then writes them: in place where every reader of a constant agrees."""

    def __init__(self, channels: Channels, editor: Editor) -> None:
        self.channels = channels
        self.editor = editor
        self.wanted: dict[str, list[tuple[Node, int, Array]]] = {}

    def replace(self, node: Node, index: int, value: Array) -> None:
        """Let one node input read another value from now on."""
        key = self.channels.view.root(node.inputs[index])
        if key not in self.channels.view.parameters:
            key = node.inputs[index]
        self.wanted.setdefault(key, []).append((node, index, np.array(value, order="C")))

    def flush(self) -> None:
        """Write all values that were asked for."""
        for key, slots in self.wanted.items():
            parameter = self.editor.view.parameters.get(key)
            if parameter is not None:
                dtype = onnx.helper.tensor_dtype_to_np_dtype(parameter.data_type)
                slots = [(node, index, value.astype(dtype)) for node, index, value in slots]
                if self._all_agree(key, slots):
                    set_array(parameter.tensor, slots[0][2])
                    continue
            self._copy(key, slots, parameter.data_type if parameter is not None else None)

    def _all_agree(self, key: str, slots: list[tuple[Node, int, Array]]) -> bool:
        first = slots[0][2]
        if key in self.channels.state.fixed or len(slots) != self.channels.reader_count(key):
            return False
        return all(value.shape == first.shape and np.array_equal(value, first) for _, _, value in slots)

    def _copy(self, key: str, slots: list[tuple[Node, int, Array]], data_type: int | None) -> None:
        made: dict[tuple[tuple[int, ...], bytes], str] = {}
        for node, index, value in slots:
            content = (value.shape, value.tobytes())
            if content not in made:
                made[content] = self.editor.add_initializer(f"{key}_cut", value, data_type)
            self.editor.node_proto(node).input[index] = made[content]
