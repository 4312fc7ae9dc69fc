"""What static mode fits to the data: weights and biases of small models, or the biases alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx

from onnxprune.methods.quantization import bias
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.methods.quantization import grid

LEAST_SAMPLES = 64
"""With fewer, weights are fitted only when asked: on fm_mbv2 32 images made the error larger, 128 a third smaller."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """New values by the name of the node.

    layers: weights on their grid, with biases. biases: what is added to the biases of the others.
    """

    layers: Mapping[str, grid.Rounded] = field(default_factory=dict)
    biases: Mapping[str, Array] = field(default_factory=dict)

    def put(self, proto: onnx.ModelProto, left: Collection[str]) -> onnx.ModelProto:
        """Return a prepared model with the new values, but for the nodes that stay float."""
        if not self.layers and not self.biases:
            return proto
        from onnxprune.methods.quantization import grid  # with the refit behind it: most runs need none of it

        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        grid.put(copy, self.layers, left)
        bias.add_to_biases(copy, {name: mean for name, mean in self.biases.items() if name not in left})
        return copy


NOTHING = Fitted()


def fit(
    proto: onnx.ModelProto,
    quantized: Callable[[onnx.ModelProto], onnx.ModelProto],
    options: QuantizeOptions,
    feeds: Sequence[dict[str, Array]],
    threads: int,
    real: bool,
    needed: bool = False,
) -> Fitted:
    """Return what the options ask for.

    Args:
        proto: prepared. quantized: returns a prepared model as QDQ.
        real: the feeds are inputs of the model, not made up.
        needed: rounding to nearest was not good enough, so weights are fitted where nothing else was asked for.
    """
    round_weights = options.rounding == "gptq" or (needed and options.rounding is None and can_fit(proto, feeds, real))
    if not round_weights and not options.correct_bias:
        return NOTHING
    from onnxprune.methods.quantization import grid

    made = quantized(proto)
    layers = grid.rounded(proto, made, feeds, threads) if round_weights else {}
    means = bias.mean_errors(proto, made, feeds, threads) if options.correct_bias else {}
    return Fitted(layers, {name: mean for name, mean in means.items() if name not in layers})


def can_fit(proto: onnx.ModelProto, feeds: Sequence[dict[str, Array]], real: bool) -> bool:
    """Tell whether weights are fitted without being asked to: enough samples, and a model that takes seconds."""
    from onnxprune.methods.quantization import grid

    samples = sum(max((array.shape[0] for array in feed.values() if array.ndim), default=1) for feed in feeds)
    return real and samples >= LEAST_SAMPLES and grid.is_small(proto)
