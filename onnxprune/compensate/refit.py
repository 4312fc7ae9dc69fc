"""Compensation of a pruned network: every reader is refitted in topological order, at a cost linear in layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import onnx

from onnxprune.compensate.foretold import Foretold, foretold, shapes_of
from onnxprune.compensate.lstsq import fit
from onnxprune.compensate.mixing import mix
from onnxprune.compensate.mixtures import Mixture
from onnxprune.compensate.output_parts import fit_parts, parts_of, some_outputs
from onnxprune.compensate.problem import Fit, LstsqOptions, Problem
from onnxprune.compensate.readers import Reader, find_readers
from onnxprune.compensate.recurrent_pair import RecurrentPair, find_recurrent, input_problem, state_problem, store
from onnxprune.compensate.shared import Shared, find_shared
from onnxprune.compensate.shelf import Shelf
from onnxprune.compensate.stages import Stages, heavy_waits, tensor_levels
from onnxprune.compensate.weights import Weights
from onnxprune.graph.mapped import is_vast
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array, IntArray

Item = TypeVar("Item")

MEMORY = 4 << 30
ACTIVATIONS = 0.25
"""Share of the memory for activations that wait; the rest is for the rows and sums of one layer."""

Positions = Mapping[str, Sequence[IntArray | None]]
"""Tensor -> kept positions of every axis, None where nothing is removed; a tensor that is missing keeps everything."""


@dataclass(frozen=True)
class LayerError:
    """Mean squared error of one reader's output on held-out samples, relative to the variance of the output.

    bounded: what was done less well to stay within the memory bound.
    """

    name: str
    op_type: str
    before: float
    after: float
    used: bool
    note: str = ""
    bounded: str = ""


@dataclass(frozen=True)
class RefitOptions:
    """What is refitted and how.

    absorb: the branch before an Add makes up for the error of the other branch.
    recurrent: LSTM, GRU and RNN are refitted too. shared: weights that several nodes read are refitted as one.
    mix: where only linear operators stand between writers and readers, mixtures of channels stay instead of channels.
    fresh: outputs of readers that stand where the original has something else: fitted though nothing changed before.
    only: outputs of the readers and recurrent layers that are refitted, None: all.
    memory: bytes that activations, rows and sums may take; the inputs themselves and onnxruntime come on top.
    """

    lstsq: LstsqOptions = field(default_factory=LstsqOptions)
    absorb: bool = True
    mix: bool = True
    recurrent: bool = False
    shared: bool = False
    fresh: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    threads: int | None = None
    memory: int = MEMORY


@dataclass(frozen=True, eq=False)
class Refit:
    """A refitted model.

    compared: tensors of both networks that tell how near they are: sums of branches, or outputs of readers.
    """

    model: Model
    errors: list[LayerError]
    cut: Cut
    compared: tuple[str, ...]


def refit(
    original: Model,
    pruned: Model,
    positions: Positions,
    feeds: Iterable[Feed],
    options: RefitOptions,
    progress: Callable[[str], None] = lambda text: None,
) -> Refit:
    """Return the pruned model with refitted readers, and the error of each before and after; tells level k of n."""
    proto = onnx.ModelProto()
    proto.CopyFrom(pruned.proto)
    weights = Weights(Model(proto, pruned.path, dict(pruned.pending)))
    given = list(feeds)
    sequence = Walk(original, weights, positions, given, options)
    if is_vast(original.proto):
        work = sequence.foretold(given)
        progress(f"refitting layers: {work}")
        work.require_room()
    errors = sequence.run(progress)
    return Refit(weights.model, errors, sequence.cut, sequence.compared())


@dataclass(frozen=True)
class Cut:
    """Takes tensors of the original to what the pruned network has of them."""

    positions: Positions
    mixtures: Mapping[str, Mixture]

    def kept(self, name: str, axis: int) -> IntArray | None:
        """Return the kept positions of one axis, None if all are."""
        axes = self.positions.get(name, ())
        return axes[axis] if axis < len(axes) else None

    def __call__(self, name: str, array: Array) -> Array:
        """Return the kept positions, or the mixture that took their place."""
        if name in self.mixtures:
            return self.mixtures[name].apply(array)
        for axis, kept in enumerate(self.positions.get(name, ())):
            if kept is not None:
                array = np.take(array, kept, axis=axis)
        return array


class Walk:
    """Both networks side by side, level by level; at each level `change` gives readers new weights."""

    def __init__(
        self, original: Model, weights: Weights, positions: Positions, feeds: list[Feed], options: RefitOptions
    ) -> None:
        self._weights, self._options = weights, options
        self._lstsq = replace(options.lstsq, memory=int(options.memory * (1 - ACTIVATIONS)))
        opener = partial(open_session, threads=options.threads)
        self.cut = Cut(positions, mix(original, weights, positions, feeds, opener, options.only) if options.mix else {})
        graph = weights.model.proto.graph
        made = {name for node in original.proto.graph.node for name in node.output}
        only = options.only if options.only is not None else made
        shared = find_shared(weights) if options.shared else []
        self._shared = [s for s in shared if all(m.y in made and m.node.output[0] in only for m in s.members)]
        taken = {member.node.output[0] for s in self._shared for member in s.members}
        found = self.suited(find_readers(weights))
        self.readers = [r for r in found if r.y in made and r.node.output[0] in only - taken]
        if not options.absorb:
            self.readers = [reader.alone() for reader in self.readers]
        waits: dict[str, tuple[str, ...]] = {reader.node.output[0]: reader.waits for reader in self.readers}
        waits = heavy_waits(graph) | waits
        self._source = Weights(original)
        gates = find_recurrent(weights, self._source, self.cut.kept) if options.recurrent else []
        self._recurrent = [layer for layer in gates if layer.y in made and layer.y in only]
        waits |= {layer.y: (layer.x,) for layer in self._recurrent}
        for together in self._shared:
            if not together.chained:
                inputs = tuple(member.x for member in together.members)
                waits |= {member.node.output[0]: inputs for member in together.members}
        old = tensor_levels(original.proto.graph, waits)
        # a chain is fitted on what the original read, before any of it runs in the pruned network
        self._shared_level = [max(old.get(n, 0) for m in s.members for n in (m.x, m.y)) for s in self._shared]
        floors = {m.node.output[0]: n for s, n in zip(self._shared, self._shared_level, strict=True) for m in s.members}
        new = tensor_levels(graph, waits, floors)
        self._old_levels = old
        self._level = {y: new[y] for y in (*(r.y for r in self.readers), *(layer.y for layer in self._recurrent))}
        until_new: dict[str, int] = {}
        until_old: dict[str, int] = {}
        for reader in self.readers:
            level = self._level[reader.y]
            for name in reader.waits:
                until_new[name] = max(until_new.get(name, 0), level)
            for name in (reader.y, reader.total, reader.x):
                if name in old:
                    until_old[name] = max(until_old.get(name, 0), level)
        for layer in self._recurrent:
            level = self._level[layer.y]
            until_new[layer.x] = max(until_new.get(layer.x, 0), level)
            for name in (layer.x, layer.sequence):
                if name in old:
                    until_old[name] = max(until_old.get(name, 0), level)
        for together, level in zip(self._shared, self._shared_level, strict=True):
            for member in together.members:
                for name in (member.x, member.y):
                    until_old[name] = max(until_old.get(name, 0), level)
                if not together.chained:
                    until_new[member.x] = max(until_new.get(member.x, 0), level)
        shelf = Shelf(int(options.memory * ACTIVATIONS))
        self._old = Stages(original, original.proto, old, until_old, feeds, opener, shelf)
        narrow = [{name: self.cut(name, array) for name, array in feed.items()} for feed in feeds]
        self._new = Stages(weights.model, weights.model.proto, new, until_new, narrow, opener, shelf)

    def suited(self, readers: list[Reader]) -> list[Reader]:
        """Return the readers that are changed, as they are seen."""
        return readers

    def foretold(self, feeds: Sequence[Feed]) -> Foretold:
        """Return what the walk will take."""
        memory, changed = int(self._options.memory * ACTIVATIONS), self._weights.model
        source, networks = self._source.model, (self._old, self._new)
        return foretold(source, networks, feeds, shapes_of(source, feeds), memory, changed)

    def compared(self) -> tuple[str, ...]:
        """Return the sums that readers write to, or some of their outputs where there are no sums."""
        totals = [reader.total for reader in self.readers if reader.total]
        return tuple(totals or [reader.y for reader in self.readers[:: max(1, len(self.readers) // 8)]])

    def run(self, progress: Callable[[str], None] = lambda text: None) -> list[LayerError]:
        """Walk through all levels and return the error of every reader before and after."""
        errors: list[LayerError] = []
        levels = max([*self._level.values(), *self._shared_level], default=0) + 1
        shared = _by_level(zip(self._shared, self._shared_level, strict=True))
        readers = _by_level((reader, self._level[reader.y]) for reader in self.readers)
        recurrent = _by_level((layer, self._level[layer.y]) for layer in self._recurrent)
        for level in range(levels):
            progress(f"refitting layers, level {level + 1} of {levels}")
            self._old.advance(level)
            errors.extend(self.change_shared(together) for together in shared.get(level, ()))
            errors.extend(self.change(reader) for reader in readers.get(level, ()))
            for layer in recurrent.get(level, ()):
                errors.extend(self.change_recurrent(layer))
            self._new.advance(level)
            self._old.release(level)
            self._new.release(level)
        return errors

    def change(self, reader: Reader) -> LayerError:
        """Give one reader the weights that come nearest to what the original gave."""
        if self._is_same(reader):
            return LayerError(reader.name, reader.node.op_type, 0.0, 0.0, False, "nothing changed before it")
        parts = parts_of(reader, self._lstsq)
        if len(parts) > 1:
            result = fit_parts(reader, parts, self._weights, self.problem, self._lstsq)
            return _layer_error(reader.name, reader.node.op_type, result)
        result = fit(self.problem(reader), self._lstsq)
        if result.used:
            reader.store(self._weights, result.weights)
        return _layer_error(reader.name, reader.node.op_type, result)

    def change_recurrent(self, layer: RecurrentPair) -> list[LayerError]:
        """Give the gates of a recurrent layer weights that come nearest to what they got in the original."""
        old, new = partial(self._old.values, layer.x), partial(self._new.values, layer.x)
        name, kind = layer.node.name or layer.y, layer.node.op_type
        errors: list[LayerError] = []
        nothing = Fit(np.zeros(0), 0.0, 0.0, 0.0)
        input_fit, state_fits = nothing, []
        if layer.x in self._old_levels and not _equal(old(), new()):
            input_fit = fit(input_problem(layer, self._source, old, new), self._lstsq)
            errors.append(_layer_error(f"{name} (W)", kind, input_fit))
        if layer.sequence and len(layer.states) != layer.full_states:
            states = partial(self._old.values, layer.sequence)
            for direction in range(len(layer.r)):
                state_fits.append(fit(state_problem(layer, self._source, direction, states), self._lstsq))
                errors.append(_layer_error(f"{name} (R {direction})", kind, state_fits[-1]))
        store(layer, self._weights, input_fit, state_fits)
        return errors or [LayerError(name, kind, 0.0, 0.0, False, "nothing changed before it")]

    def change_shared(self, shared: Shared) -> LayerError:
        """Give all readers of a weight the one that comes nearest to what the original gave."""
        kind = shared.members[0].node.op_type

        def inputs(member: Reader) -> Iterator[Array]:
            if not shared.chained:
                return self._new.values(member.x)
            return (self.cut(member.x, x) for x in self._old.values(member.x))

        def targets(member: Reader) -> Iterator[Array]:
            return (self.cut(member.y, y) for y in self._old.values(member.y))

        if all(_equal(inputs(member), self._old.values(member.x)) for member in shared.members):
            return LayerError(shared.name, kind, 0.0, 0.0, False, "nothing changed before it")
        result = fit(shared.problem(inputs, targets, self._old.count), self._lstsq)
        if result.used:
            shared.store(self._weights, result.weights)
        return _layer_error(shared.name, kind, result)

    def problem(self, reader: Reader, outs: slice | None = None) -> Problem:
        """Return inputs of the changed network, targets of the original, and the weights to start from.

        Args:
            outs: the outputs that the reader has, where it is a part of one.
        """
        absorbs = bool(reader.other) and self._fits(reader)

        def some(arrays: Iterator[Array]) -> Iterator[Array]:
            return arrays if outs is None else (some_outputs(reader, array, outs) for array in arrays)

        return Problem(
            reader.layout,
            lambda: self._new.values(reader.x),
            lambda: some(self._targets(reader, absorbs)),
            reader.effective,
            reader.clamp if absorbs or not reader.other else None,
            reader.sink is not None,
            (lambda: some(self._new.values(reader.other))) if absorbs else None,
            self._new.count,
        )

    def _is_same(self, reader: Reader) -> bool:
        if reader.x not in self._old_levels or reader.y in self._options.fresh:
            return False
        return _equal(self._old.values(reader.x), self._new.values(reader.x))

    def _fits(self, reader: Reader) -> bool:
        total = next(self._old.values(reader.total))
        other = next(self._new.values(reader.other))
        y = next(self._old.values(reader.y))
        return self.cut(reader.total, total).shape == other.shape and total.shape == y.shape

    def _targets(self, reader: Reader, absorbs: bool) -> Iterator[Array]:
        if not absorbs:
            for y in self._old.values(reader.y):
                yield self.cut(reader.y, y)
            return
        for total, other in zip(self._old.values(reader.total), self._new.values(reader.other), strict=True):
            yield self.cut(reader.total, total) - other


def _by_level(found: Iterable[tuple[Item, int]]) -> dict[int, list[Item]]:
    """Return what belongs to each level, in the given order."""
    table: dict[int, list[Item]] = {}
    for item, level in found:
        table.setdefault(level, []).append(item)
    return table


def _equal(a: Iterator[Array], b: Iterator[Array]) -> bool:
    return all(x.shape == y.shape and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _layer_error(name: str, op_type: str, result: Fit) -> LayerError:
    level = max(result.level, 1e-30)
    return LayerError(name, op_type, result.before / level, result.after / level, result.used, bounded=result.bounded)
