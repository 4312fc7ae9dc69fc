"""Weights in bfloat16, cast when they are loaded: `bf16`."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnxprune.methods.quantization import half
from onnxprune.methods.quantization.work import Work


class BFloat16(Work):
    """Halves what is stored; the arithmetic stays float32."""

    stored_only = True

    def operators(self) -> list[str]:
        """Return the operators that the mode quantizes."""
        return sorted({node.op_type for node in self.proto.graph.node} - {*self.options.op_block_list})

    def make(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the working copy with weights in bfloat16."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        half.to_bfloat16(copy, self.options.op_block_list, left)
        return copy
