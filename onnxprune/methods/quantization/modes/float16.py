"""The graph in float16: `fp16`."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnxprune.methods.quantization import half, overflow
from onnxprune.methods.quantization.work import Work


class Float16(Work):
    """Keeps float32 what makes or reads numbers that float16 cannot hold."""

    def operators(self) -> list[str]:
        """Return the operators that the mode quantizes."""
        return sorted({node.op_type for node in self.proto.graph.node} - {*self.options.op_block_list})

    def observe(self) -> None:
        """Find the nodes that hold what float16 cannot."""
        super().observe()
        found = overflow.beyond_float16(self.proto, self.feeds, self.threads)
        self.stays = found.nodes
        self.fixed |= found.nodes
        self.warnings += found.told(len(self.proto.graph.node))

    @property
    def same_ports(self) -> bool:
        """Whether inputs and outputs have the types of the source."""
        return self.options.keep_io_types

    def make(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the working copy in float16."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        return half.to_float16(copy, self.options.keep_io_types, self.options.op_block_list, left)
