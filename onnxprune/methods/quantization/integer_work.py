"""What the two modes of 8-bit integers share: types for this machine, smoothing, bodies, a compact file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection

import onnx

from onnxprune.methods.quantization import inside, smooth
from onnxprune.methods.quantization.compact import compact
from onnxprune.methods.quantization.integer import Integers, odd_products
from onnxprune.methods.quantization.machine import IntegerTypes, integer_types
from onnxprune.methods.quantization.work import Work


class IntegerWork(Work):
    """A model on its way to 8-bit integers."""

    bodies = True

    def kept_float(self) -> set[str]:
        """Return the products with a stored vector."""
        return odd_products(self.proto.graph)

    def observe(self) -> None:
        """Choose the types, and move outliers into weights where that is asked for."""
        super().observe()
        default, options = integer_types(), self.options
        self.types = IntegerTypes(
            options.activation_type or default.activation, options.weight_type or default.weight, default.reduce_range
        )
        wanted = options.smooth and self.feeds
        self.smoothed = smooth.smooth(self.proto, self.feeds, self.fixed, self.threads) if wanted else 0

    @property
    def integers(self) -> Integers:
        """How numbers become integers."""
        symmetric = self.options.symmetric
        return Integers(
            self.types, self.options.per_channel, self.types.activation == "s8" if symmetric is None else symmetric
        )

    @abstractmethod
    def make_main(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the working copy with its main graph in integers."""

    def make(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the working copy with main graph and bodies in integers."""
        made = self.make_main(left)
        inside.quantize_bodies(made, self.integers, {*self.fixed, *left})
        compact(made, self.source.proto, self.proto)
        return made

    def settings(self) -> dict[str, object]:
        """Return the choices that were made."""
        settings = super().settings() | {"types": f"{self.activation}{self.types.weight}"}
        settings |= {"per_channel": self.options.per_channel, "reduce_range": self.types.reduce_range}
        return settings | ({"smoothed": self.smoothed} if self.smoothed else {})

    @property
    def activation(self) -> str:
        """The type of activations."""
        return self.types.activation
