"""Packed weights made float again, so that what is cut can be refitted and packed anew: `float`."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnxprune.errors import NothingToPruneError
from onnxprune.methods.quantization import layers
from onnxprune.methods.quantization.layers import Layer
from onnxprune.methods.quantization.unpack import PACKED, is_packed, unpack
from onnxprune.methods.quantization.work import Found, Task, Work

NOTHING = "nothing is packed: the model has no stored weights in few bits that float mode makes numbers."


class Unpacked(Work):
    """Computes with the numbers that the packed weights stand for; activations and all other nodes stay as they are."""

    def __init__(self, task: Task) -> None:
        self.task, self.source, self.options, self.threads = task, task.source, task.options, task.threads
        self.proto, options = task.source.proto, task.options
        self.fixed = layers.chosen_by_name(self.proto, options.skip, options.only, options.op_block_list)
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        packed = [node for node in self.proto.graph.node if is_packed(node, stored) and node.name not in self.fixed]
        self.layers = [Layer(node.name, node.op_type, node.output[0], quantized=False) for node in packed]
        if not self.layers:
            raise NothingToPruneError(NOTHING)

    def operators(self) -> list[str]:
        """Return the operators whose weights are made numbers."""
        return [*PACKED, "DequantizeLinear"]

    def make(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the model with plain products and look-ups."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        unpack(copy, left, self.source.array)
        return copy

    def find(self) -> Found:
        """Return the model; nothing is measured, because it computes the same."""
        return Found(self.make(self.fixed), tuple(self.layers), self.settings())

    def watched(self, found: Found) -> tuple[Layer, ...]:
        """Return the layers."""
        return found.layers
