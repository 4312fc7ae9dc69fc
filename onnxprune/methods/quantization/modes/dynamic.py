"""Weights in 8 bits, activations as they come."""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx

from onnxprune.methods.quantization import integer, normal_form
from onnxprune.methods.quantization.integer_work import IntegerWork
from onnxprune.methods.quantization.lift import split_gemms


class Dynamic(IntegerWork):
    """Quantizes products and LSTM by onnxruntime's operators that find the range of an activation as it runs."""

    stored_only = True
    activation = "u8"

    def operators(self) -> list[str]:
        """Return the operators that the mode quantizes."""
        return list(integer.DYNAMIC_OPERATORS)

    def form(self, wanted: Callable[[str], bool], blocked: Collection[str]) -> None:
        """Write Gemm as product and sum."""
        normal_form.scale_biases(self.proto.graph, wanted)
        split_gemms(self.proto.graph, wanted)

    def make_main(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the working copy with its main graph in integers."""
        return integer.quantize_dynamic(self.proto, self.integers, self.operators(), left)
