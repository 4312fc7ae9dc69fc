"""Weights that several nodes share: siamese branches, heads over a pyramid, recurrent steps written out one by one.

One problem for all readers of a weight: their rows stand below one another. Where no reader depends on another one the
inputs come from the pruned network, as for any layer. Else (step t reads what step t - 1 gave) they are what the
original read, without what was removed, so that the error does not feed on itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import onnx

from onnxprune.compensate.problem import Problem
from onnxprune.compensate.readers import Consumers, Reader, plain_reader
from onnxprune.compensate.stages import dynamic_names
from onnxprune.compensate.weights import Weights
from onnxprune.graph.bodies import reads
from onnxprune.types import Array, FloatArray

Values = Callable[[Reader], Iterator[Array]]
"""What one reader reads or gives, batch by batch."""


@dataclass(frozen=True, eq=False)
class Shared:
    """All readers of one stored weight.

    biases: input of each member that holds the bias, None: there is none or it stays.
    chained: a member depends on another one.
    """

    members: tuple[Reader, ...]
    biases: tuple[int, ...] | None
    chained: bool

    @property
    def name(self) -> str:
        """How reports name it."""
        return f"{self.members[0].name} (and {len(self.members) - 1} with its weight)"

    @property
    def start(self) -> FloatArray:
        """(groups, outs, features + 1) weights that all have, the bias last."""
        first = self.members[0].effective
        return first if self.biases is not None else np.concatenate([first[:, :, :-1], 0 * first[:, :, -1:]], axis=2)

    def problem(self, inputs: Values, targets: Values, batches: int) -> Problem:
        """Return the problem of all members.

        Args:
            inputs, targets: of one member, batch by batch.
        """
        return Problem(
            self.members[0].layout,
            lambda: chain.from_iterable(inputs(member) for member in self.members),
            lambda: chain.from_iterable(targets(member) for member in self.members),
            self.start,
            free_bias=self.biases is not None,
            batches=batches,
            members=len(self.members),
        )

    def store(self, weights: Weights, effective: FloatArray) -> None:
        """Write new weights into the graph, once for all members."""
        first = self.members[0]
        weights.change_all(
            first.node.input[first.weight_index], first.layout.weight(effective[:, :, :-1], first.like.shape)
        )
        if self.biases is None or first.sink is None:
            return
        content = first.sink.content(effective[:, :, -1].reshape(-1))
        nodes = [(m.sink.node, index) for m, index in zip(self.members, self.biases, strict=True) if m.sink is not None]
        weights.change_together(nodes, content)


def find_shared(weights: Weights) -> list[Shared]:
    """Return the weights whose readers, all of them, are linear layers of one kind."""
    graph = weights.model.proto.graph
    dynamic, consumers = dynamic_names(graph), Consumers(graph)
    members: dict[str, list[Reader]] = {}
    for node in graph.node:
        reader = plain_reader(node, weights, consumers, dynamic)
        source = weights.source(node.input[reader.weight_index]) if reader is not None else ""
        if reader is not None and source:
            members.setdefault(source, []).append(reader)
    found = []
    for source, readers in members.items():
        if len(readers) > 1 and len(readers) == weights.count_uses(source) and _are_alike(readers):
            biases = _biases(readers)
            plain = [reader if biases is not None else _without_bias(reader) for reader in readers]
            if all(reader is not None for reader in plain):
                kept = tuple(reader for reader in plain if reader is not None)
                found.append(Shared(kept, biases, _is_chained(graph, kept)))
    return found


def _is_chained(graph: onnx.GraphProto, readers: Sequence[Reader]) -> bool:
    """Tell whether what one reader gives reaches another one."""
    reached = {reader.node.output[0] for reader in readers}
    for node in graph.node:
        if any(name in reached for name in reads(node)):
            reached.update(name for name in node.output if name)
    return any(reader.x in reached for reader in readers)


def _are_alike(readers: Sequence[Reader]) -> bool:
    first = readers[0]
    return all(r.layout == first.layout and r.like.shape == first.like.shape for r in readers)


def _biases(readers: Sequence[Reader]) -> tuple[int, ...] | None:
    """Return where the biases stand if all have one of the same values."""
    sinks = [reader.sink for reader in readers if reader.sink is not None]
    indices = tuple(sink.index for sink in sinks if sink.index is not None)
    if len(indices) < len(readers) or any(s.factor != sinks[0].factor for s in sinks):
        return None
    same = all(np.array_equal(sink.stored, sinks[0].stored) for sink in sinks)
    return indices if same else None


def _without_bias(reader: Reader) -> Reader | None:
    """Return the reader as the product alone; None if the node adds a bias of its own."""
    if reader.sink is None or (reader.sink.node is reader.node and reader.sink.index is None):
        return replace(reader, sink=None)
    return replace(reader, sink=None, y=reader.node.output[0]) if reader.sink.node is not reader.node else None
