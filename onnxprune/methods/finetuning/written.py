"""What steps made of the weights, written back into the compressed model: floats as they are, codes on their grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from onnxprune.compensate.distil import with_weights
from onnxprune.compensate.gradient import Gradient
from onnxprune.compensate.objective import HeldOut
from onnxprune.compensate.slopes import Judged
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external
from onnxprune.methods.finetuning.code_grid import MANY_ZEROS, CodeGrid
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array, BoolArray


@dataclass(frozen=True, eq=False)
class OnGrids(HeldOut):
    """A distance whose network reads weights rounded to their grids; steps change what is rounded."""

    grids: Mapping[str, CodeGrid]

    def mean(self, weights: Mapping[str, Array], feeds: Sequence[Feed], share: float = 1.0) -> list[Array]:
        """Return the gradient by every weight as it is read, averaged over feeds."""
        return super().mean(self._read(weights), feeds, share)

    def held_out(self, weights: Mapping[str, Array]) -> Judged:
        """Return the loss on held-out feeds."""
        return super().held_out(self._read(weights))

    def _read(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        grids = self.grids
        return {name: grids[name].rounded(value) if name in grids else value for name, value in weights.items()}


def kept_zeros(weights: Mapping[str, Array], grids: Mapping[str, CodeGrid]) -> dict[str, BoolArray]:
    """Return where weights of matrices and convolutions are zero, which must stay so; all or nothing is no pattern.

    Rounding to a grid makes zeros as well: there only many of them are a pattern.
    """
    found = {name: array == 0 for name, array in weights.items() if array.ndim > 1}
    least = {name: MANY_ZEROS if name in grids else 0.0 for name in found}
    return {name: zero for name, zero in found.items() if zero.any() and least[name] <= zero.mean() < 1}


def written(model: Model, gradient: Gradient, weights: Mapping[str, Array], grids: Mapping[str, CodeGrid]) -> Model:
    """Return a copy of the compressed model with the weights that changed."""
    plain = {name: value for name, value in weights.items() if name not in grids}
    result = with_weights(model, gradient, plain)
    pending = dict(result.pending)
    stored = {tensor.name: tensor for tensor in result.proto.graph.initializer}
    stored |= {n.output[0]: n.attribute[0].t for n in result.proto.graph.node if n.op_type == "Constant"}
    for name, grid in grids.items():
        value = weights.get(name)
        if value is None or not np.isfinite(value).all():
            continue
        codes = grid.codes(value)
        if np.array_equal(codes, grid.codes(gradient.weights[name])):
            continue
        array, tensor = grid.laid(codes), stored[grid.stored]
        if is_external(tensor):
            pending[tensor.name] = partial(np.asarray, array)
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return Model(result.proto, result.path, pending)
