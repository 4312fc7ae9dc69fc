"""What static mode builds: a model in its form, ranges, fitted weights, and the integers that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import onnx

from onnxprune.methods.quantization import between, equalize, fitted, integer, native, normal_form, ranges
from onnxprune.methods.quantization.fold_norms import fold_norms
from onnxprune.methods.quantization.integer_work import IntegerWork
from onnxprune.methods.quantization.lift import unshare_biases
from onnxprune.methods.quantization.work import Found


class StaticWork(IntegerWork):
    """A model whose ranges are known."""

    def operators(self) -> list[str]:
        """Return the operators that the mode quantizes."""
        return list(integer.STATIC_OPERATORS)

    def form(self, wanted: Callable[[str], bool], blocked: Collection[str]) -> None:
        """Write Gemm as a plain product and sum, and fold normalisations by constants into the layers before."""
        graph = self.proto.graph
        normal_form.scale_biases(graph, wanted)
        normal_form.plain_gemms(graph, wanted)
        unshare_biases(graph)
        fold_norms(graph)
        self.equalized = equalize.equalize(self.proto, {*blocked}) if self.options.equalize else 0

    def kept_float(self) -> set[str]:
        """Return what is no plain product, and what gains nothing from 8 bits or is hurt by them."""
        odd = super().kept_float() | normal_form.odd_gemms(self.proto.graph)
        return odd | between.kept_float(self.proto.graph, self.operators(), self.fixed | odd)

    def observe(self) -> None:
        """Find the ranges, and fit what the options ask for."""
        super().observe()
        self.fitted = fitted.NOTHING
        self._last: tuple[frozenset[str], fitted.Fitted, onnx.ModelProto] | None = None
        options, graph = self.options, self.proto.graph
        self.ranges = ranges.collect(
            self.proto,
            self.feeds,
            method=options.calibration,
            operators=self.operators(),
            percentile=options.percentile,
            same=integer.clamped(self.proto, self.operators(), self.fixed),
            only={n for node in graph.node if node.name not in self.fixed for n in (*node.input, *node.output)},
            threads=self.threads,
        )
        native.release()
        self.fit()

    def fit(self, *, needed: bool = False) -> bool:
        """Fit weights or biases to the data, once, as the options ask for.

        Args:
            needed: rounding to nearest has shown not to be good enough.

        Returns:
            whether anything changed.
        """
        if self.fitted is not fitted.NOTHING:
            return False
        self.fitted = fitted.fit(
            self.proto, lambda proto: self.as_qdq(proto, ()), self.options, self.feeds, self.threads, self.fits, needed
        )
        return self.fitted is not fitted.NOTHING

    def make_main(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the working copy with its main graph in integers."""
        return self._quantized(self.fitted.put(self.proto, left), left, self.options.format)

    def as_qdq(self, proto: onnx.ModelProto, left: Collection[str]) -> onnx.ModelProto:
        """Return a prepared model with QuantizeLinear and DequantizeLinear, all names as they are."""
        return self._quantized(proto, left, "qdq")

    def build(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the quantized model; the last one is kept, as it is measured, judged and handed on."""
        key = frozenset(left)
        if self._last is None or self._last[0] != key or self._last[1] is not self.fitted:
            self._last = key, self.fitted, super().build(left)
        return self._last[2]

    def readable(self, found: Found) -> onnx.ModelProto:
        """Return a model with the same values, in which they can be looked at."""
        if self.options.format == "qdq":
            return found.proto
        left = {*self.fixed, *(layer.name for layer in found.layers if not layer.quantized)}
        return self.as_qdq(self.fitted.put(self.proto, left), left)

    def settings(self) -> dict[str, object]:
        """Return the choices that were made."""
        settings = super().settings()
        settings |= {"format": self.options.format, "rounding": "gptq" if self.fitted.layers else "nearest"}
        settings |= {"calibration": self.options.calibration, "corrected_biases": len(self.fitted.biases)}
        return settings | ({"equalized": self.equalized} if self.equalized else {})

    def _quantized(self, proto: onnx.ModelProto, left: Collection[str], form: str) -> onnx.ModelProto:
        floats = {*self.fixed, *left}
        if floats - self.fixed:  # what lay between two layers now may lie between float ones
            floats |= between.kept_float(self.proto.graph, self.operators(), floats)
        how = replace(self.integers, form=form)
        return integer.quantize_static(proto, self.ranges, how, self.operators(), floats)
