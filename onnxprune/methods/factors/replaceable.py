"""The layers that low rank may replace, with what each choice of form and rank costs and loses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.graph.trace import Trace
from onnxprune.graph.view import View
from onnxprune.methods.factors.forms import FactorProblem, channel_basis, pca, ranks, strip_basis
from onnxprune.methods.linear import Linear, resolve
from onnxprune.operators.layouts import Convolution
from onnxprune.types import Array

GRID = 8
"""Ranks that are looked at where every one takes a fit."""
LARGE = 1 << 20
"""Weights from which single precision is used: half the memory and time, and far more exact than any rank."""
WIDEST_FIT = 2400
"""Features up to which fits with second moments are made."""


@dataclass(frozen=True)
class Option:
    """One way to write a layer: cost and error; `form` "" leaves it as it is."""

    form: str
    ranks: tuple[int, ...]
    params: int
    macs: int
    error: float


@dataclass(eq=False)
class Candidate:
    """A layer that may be replaced.

    positions: (input, strip, output) places at which a factor is computed, for the count of MACs.
    """

    layer: Linear
    problem: FactorProblem
    positions: tuple[int, int, int]
    align: int | None = None
    is_table: bool = False
    _pca: tuple[Array, Array, Array] | None = field(default=None, init=False)

    @property
    def base(self) -> Option:
        """The layer as it is."""
        size = self.problem.weight.size
        return Option("", (), size, 0 if self.is_table else size * self.positions[2], 0.0)

    @cached_property
    def options(self) -> list[Option]:
        """Everything that saves parameters without more MACs (a table costs some)."""
        base = self.base
        found = [*self._low_rank(), *self._tucker(), *self._spatial()]
        return [o for o in found if o.params < base.params and (o.macs <= base.macs or self.is_table)]

    def build(self, option: Option) -> list[Array]:
        """Return the matrices, the first to be applied first: (parts, features), .., (outs, parts)."""
        problem = self.problem
        if option.form == "low rank":
            first, second, _ = self._low()
            return [second[: option.ranks[0]], first[:, : option.ranks[0]]]
        if option.form == "spatial":
            basis = self._strips[: option.ranks[0]]
            return [basis, problem.through(basis, problem.by_column)[0]]
        basis = self._channels[: option.ranks[0]]
        fitted, moment, _ = problem.through(basis, problem.by_tap)
        last, core, _ = pca(fitted, moment)
        return [basis, core[: option.ranks[1]], last[:, : option.ranks[1]]]

    def _low(self) -> tuple[Array, Array, Array]:
        if self._pca is None:
            self._pca = pca(self.problem.weight, self.problem.gram)
        return self._pca

    @cached_property
    def _channels(self) -> Array:
        return channel_basis(self.problem)

    @cached_property
    def _strips(self) -> Array:
        return strip_basis(self.problem)

    def _low_rank(self) -> Iterator[Option]:
        outs, features = self.problem.weight.shape
        most = outs * features // (outs + features)
        choices = ranks(min(outs, features), self.align, most)
        errors = self._low()[2] if choices else ()
        for rank in choices:
            size = rank * (outs + features)
            macs = rank * features if self.is_table else size
            yield Option("low rank", (rank,), size, macs * self.positions[2], float(errors[rank]))

    def _tucker(self) -> Iterator[Option]:
        problem = self.problem
        channels, outs, taps = problem.channels, problem.outs, problem.taps
        if taps == 1 or not self._can_fit or min(channels, outs) < 4:
            return
        for share in np.arange(1, GRID) / GRID:
            first, last = (_aligned(share * size, size, self.align) for size in (channels, outs))
            sizes = (channels * first, first * taps * last, last * outs)
            if sum(sizes) >= problem.weight.size:
                continue
            fitted, moment, lost = problem.through(self._channels[:first], problem.by_tap)
            error = lost + (1 - lost) * float(pca(fitted, moment)[2][last])
            macs = sizes[0] * self.positions[0] + (sizes[1] + sizes[2]) * self.positions[2]
            yield Option("tucker", (first, last), sum(sizes), macs, error)

    def _spatial(self) -> Iterator[Option]:
        problem = self.problem
        if len(problem.kernel) != 2 or min(problem.kernel) < 2 or not self._can_fit:
            return
        height, width = problem.kernel
        sizes = (height * problem.channels, width * problem.outs)
        most = problem.weight.size // sum(sizes)
        choices = ranks(min(sizes), self.align, most)
        for rank in choices[:: max(1, len(choices) // GRID)]:
            error = problem.through(self._strips[:rank], problem.by_column)[2]
            macs = rank * (sizes[0] * self.positions[1] + sizes[1] * self.positions[2])
            yield Option("spatial", (rank,), rank * sum(sizes), macs, error)

    @property
    def _can_fit(self) -> bool:
        return self.problem.gram is None or self.problem.weight.shape[1] <= WIDEST_FIT


def obstacle(view: View, layer: Linear) -> str | None:
    """Return why low rank cannot replace a layer."""
    node, dims = layer.node, layer.dims
    if layer.is_recurrent and layer.index == 2:
        return "the recurrence stands inside the operator"
    if node.op_type == "ConvTranspose" or node.attribute("group", 1) != 1:
        return "transposed or grouped convolution"
    if node.op_type == "Gemm" and node.attribute("transA", 0):
        return "its input is transposed"
    if _readers(view, layer.key) > 1:
        return "its weight has several readers"
    groups, outs, features = layer.layout.matrix(np.broadcast_to(np.float32(0), dims)).shape
    return "it is too small" if groups * outs * features // (groups * outs + features) < 1 else None


def candidate(
    view: View, trace: Trace, layer: Linear, matrix: Array, gram: Array | None, align: int | None
) -> Candidate:
    """Return a layer with its matrix (groups, outs, features) as a candidate; directions share one first factor."""
    kernel = layer.layout.window.kernel if isinstance(layer.layout, Convolution) else ()
    weight = matrix.reshape(-1, matrix.shape[2])
    if weight.size > LARGE:
        weight = weight.astype(np.float32)
    node, shapes = layer.node, trace.shapes
    x = shapes.get(node.inputs[0 if layer.index else 1], ())
    y = shapes.get(next(name for name in node.outputs if name), ())
    if layer.is_recurrent:
        places = (int(np.prod(x[:2])),) * 3
    elif kernel and len(x) == len(y) == len(kernel) + 2:
        inside, outside = int(np.prod(x[2:])), int(np.prod(y[2:]))
        strip = y[2] * x[3] if len(y) == 4 else outside
        batch = x[0] if x else 1
        places = (batch * inside, batch * strip, batch * outside)
    else:
        places = (int(np.prod(y)) // max(1, len(weight)),) * 3
    return Candidate(layer, FactorProblem(weight, gram, kernel), places, align)


def tables(view: View, trace: Trace) -> list[Linear]:
    """Return the tables that Gather alone looks rows up in, as layers; their rows are outputs."""
    from onnxprune.methods.factors.lookup import LookupTable

    found = []
    for node in view.nodes:
        if node.domain or node.op_type != "Gather" or node.attribute("axis", 0) != 0:
            continue
        resolved = resolve(view, node.inputs[0])
        if resolved is None or resolved.perms or len(resolved.dims) != 2 or _readers(view, resolved.parameter.key) > 1:
            continue
        name = node.name or node.outputs[0]
        found.append(Linear(name, node, 0, resolved.parameter, (), resolved.dims, LookupTable()))
    return found


def _readers(view: View, key: str) -> int:
    """Count the nodes that use a stored tensor, Identity and Transpose looked through."""
    count, waiting = 0, [key]
    while waiting:
        name = waiting.pop()
        count += name in view.outputs
        for node, _ in view.readers.get(name, []):
            if node.op_type in ("Identity", "Transpose") and not node.domain:
                waiting.extend(node.outputs)
            else:
                count += 1
    return count + sum(key in node.captured for node in view.nodes)


def _aligned(wanted: float, full: int, align: int | None) -> int:
    step = align or (8 if full >= 64 else 4 if full >= 32 else 1)
    return min(full, max(step, round(wanted / step) * step))
