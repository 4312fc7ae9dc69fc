"""Weights of products in blocks of 4 or 8 bits, activations in float: `weight-only`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import to_array
from onnxprune.graph.view import View
from onnxprune.methods.gather import KnownSums
from onnxprune.methods.linear import linear_layers
from onnxprune.methods.quantization import block_walk, normal_form, observe, rounding, weight_only
from onnxprune.methods.quantization.block_walk import BlockGrid, BlockLayer, Blocks
from onnxprune.methods.quantization.lift import split_gemms
from onnxprune.methods.quantization.work import Work
from onnxprune.methods.quantize_options import weight_bits
from onnxprune.methods.runtime import Runtime
from onnxprune.types import Array, FloatArray


class WeightOnly(Work):
    """Rounds each matrix once for all builds, to the data where there are some."""

    stored_only = True

    def operators(self) -> list[str]:
        """Return the operators that the mode quantizes."""
        return ["MatMul"]

    def kept_float(self) -> set[str]:
        """Return the products that are none with a stored matrix behind what is computed."""
        stored = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        return {node.name for node in self.proto.graph.node if not weight_only.is_product(node, stored)}

    def form(self, wanted: Callable[[str], bool], blocked: Collection[str]) -> None:
        """Write Gemm as product and sum."""
        normal_form.scale_biases(self.proto.graph, wanted)
        split_gemms(self.proto.graph, wanted)

    def observe(self) -> None:
        """Round what can be rounded to the data; find the second moment of what the other layers multiply."""
        super().observe()
        self.rounded: dict[str, Blocks] = {}
        self.grams: dict[str, FloatArray] = {}
        self.walked: dict[str, BlockLayer] = {}
        self.names = [layer.name for layer in self.layers]
        if self.options.rounding == "nearest":
            return
        if self.options.stats is not None:
            self.grams = self._known(self.options.stats)
        elif self.fits:
            alone = block_walk.alone(self.proto, self.names)
            self.grams = self._grams([name for name in self.names if name not in alone])
            try:
                self.walked = self._walked(alone)
            except ModelError as error:
                self.warnings.append(f"matrices are rounded one by one; the network cannot be run in parts: {error}")
                self.grams |= self._grams(sorted(alone))

    def _grams(self, names: Sequence[str]) -> dict[str, FloatArray]:
        """Return the second moment of what products multiply in the float model."""
        reads = {node.name: node.input[0] for node in self.proto.graph.node if node.name in names}
        found = observe.grams(self.proto, list(reads.values()), self.feeds, self.threads) if reads else {}
        return {name: found[tensor] for name, tensor in reads.items()}

    def _walked(self, alone: Collection[str]) -> dict[str, BlockLayer]:
        """Round the products that are alone with their matrices, in their order, on what those before them give."""
        stored = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        given: dict[str, Blocks] = {}
        for node in self.proto.graph.node:
            if node.name in self.names and node.name not in alone and node.input[1] not in given:
                given[node.input[1]] = self._round(node.name, to_array(stored[node.input[1]]).astype(np.float32))
        grid = BlockGrid(weight_bits(self.options, self.task.mode.name), self.options.block_size)
        return block_walk.walked(self.proto, alone, given, self.feeds, grid, self.threads)

    def _known(self, stats: Path) -> dict[str, FloatArray]:
        """Return node -> second moment of what it multiplies, out of statistics; a Gemm kept its name as a product."""
        view = View(self.source)
        known = KnownSums.of(stats, self.source).grams(view, Runtime(self.threads))
        keys = {layer.name: layer.key for layer in linear_layers(view)}
        nodes = {node.name: node.input[1] for node in self.proto.graph.node if node.op_type == "MatMul"}
        found = {name: known.get(key) or known.get(keys.get(name, "")) for name, key in nodes.items()}
        return {name: moments[0] for name, moments in found.items() if moments is not None}

    def make(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the working copy with MatMulNBits."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        bits = weight_bits(self.options, self.task.mode.name)
        block_walk.put_biases(copy, {name: layer for name, layer in self.walked.items() if name not in left})
        return weight_only.quantize_weights(copy, bits, self.options.block_size, left, self._round)

    def settings(self) -> dict[str, object]:
        """Return the choices that were made."""
        how = "gptq" if self.grams or self.walked else "nearest"
        return super().settings() | {"block_size": self.options.block_size, "rounding": how}

    def _round(self, name: str, matrix: Array) -> Blocks:
        """Round the matrix of a node, once for all builds."""
        if name in self.walked:
            return self.walked[name].blocks
        if name not in self.rounded:
            bits, gram = weight_bits(self.options, self.task.mode.name), self.grams.get(name)
            size = self.options.block_size
            fits = gram is not None and len(gram) == len(matrix)
            self.rounded[name] = (
                rounding.round_with_gram(matrix, gram, bits, size)
                if gram is not None and fits
                else weight_only.round_blocks(matrix, bits, size)
            )
        return self.rounded[name]
