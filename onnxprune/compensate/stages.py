"""Run a network level by level over all batches, so that layers can change between levels at a cost linear in layers.

The level of a tensor is the number of readers (refitted layers) on the longest way to it. All nodes of a level run as
one small model; what later levels need waits on a shelf, everything else is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnxprune.compensate.shelf import Parcel, Shelf
from onnxprune.graph.bodies import reads
from onnxprune.graph.mapped import SMALLEST_BYTES
from onnxprune.graph.model import Model
from onnxprune.graph.session import Session
from onnxprune.graph.tensors import is_external, tensor_bytes
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array

Opener = Callable[[onnx.ModelProto], Session]
TAKES_ANY = frozenset("MatMul Gemm Gather Transpose Identity".split())
"""Operators that run on a weight that is an input as they do on a stored one; convolutions choose other kernels."""
FED_TYPES = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})


def static_names(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that do not depend on any input."""
    static = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    for node in graph.node:
        if not node.op_type.startswith("Random") and all(name in static for name in reads(node)):
            static.update(name for name in node.output if name)
    return static


def dynamic_names(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that depend on an input."""
    static = static_names(graph)
    made = {name for node in graph.node for name in node.output if name}
    return (made | {value.name for value in graph.input}) - static


def heavy_waits(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Return first output of a node that reads a large weight in a file -> what else it reads, as `tensor_levels` asks.

    So there are few such weights on a level.
    """
    large = {tensor.name for tensor in graph.initializer if _is_large(tensor)}
    static, waits = static_names(graph) if large else set(), dict[str, tuple[str, ...]]()
    for node in graph.node if large else ():
        if large.isdisjoint(reads(node)):
            continue
        if all(name in static for name in node.output if name):
            large.update(node.output)
        else:
            made = next(name for name in node.output if name)
            waits[made] = tuple(dict.fromkeys(name for name in reads(node) if name not in static))
    return {name: waiting for name, waiting in waits.items() if waiting}


def _is_large(tensor: onnx.TensorProto) -> bool:
    return is_external(tensor) and (tensor_bytes(tensor) or 0) >= SMALLEST_BYTES


def tensor_levels(
    graph: onnx.GraphProto, waits: Mapping[str, Iterable[str]], floors: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return the level of every tensor that depends on an input.

    Args:
        waits: output of a reader -> tensors that must be known before it is refitted; it stands one level above them.
            They may be made by nodes that stand behind it: another branch, whose sum it belongs to. No circle of waits.
        floors: output of a reader -> a level below which it does not stand.
    """
    floors = floors or {}
    static = static_names(graph)
    nodes = [node for node in graph.node if not all(name in static for name in node.output if name)]
    levels = {value.name: 0 for value in graph.input if value.name not in static}
    below = [(reads(node), [waits[name] for name in node.output if name in waits]) for node in nodes]
    for _ in range(len(nodes) + 1):
        before = dict(levels)
        for node, (inputs, waiting) in zip(nodes, below, strict=True):
            level = max((levels.get(name, 0) for name in inputs), default=0)
            for names in waiting:
                level = 1 + max(level, *(levels.get(name, 0) for name in names))
            level = max(level, *(floors.get(name, 0) for name in node.output), 0)
            levels.update((output, level) for output in node.output if output)
        if levels == before:
            break
    return levels


class Stages:
    """One network on its way through the levels.

    Args:
        shelf: where tensors wait; both networks may share one.
        model: where weights are read from.
        proto: the graph that runs; it may be edited at levels that have not run yet.
        levels: of `tensor_levels`.
        until: tensor -> the last level at which somebody outside reads it.
    """

    def __init__(
        self,
        model: Model,
        proto: onnx.ModelProto,
        levels: Mapping[str, int],
        until: Mapping[str, int],
        feeds: Iterable[Feed],
        opener: Opener,
        shelf: Shelf | None = None,
    ) -> None:
        self._model, self._levels, self._open = model, levels, opener
        self._header = onnx.ModelProto(ir_version=proto.ir_version)
        self._header.opset_import.extend(proto.opset_import)
        self._header.functions.extend(proto.functions)
        self._graph = proto.graph
        static = [n for n in proto.graph.node if not any(name in levels for name in n.output)]
        self._static = {name: (number, n) for number, n in enumerate(static) for name in n.output if name}
        self._sparse = {tensor.values.name: tensor for tensor in proto.graph.sparse_initializer}
        self._places: dict[str, int] = {}
        self._until = dict(until)
        self._nodes = self._select()
        self._shelf = shelf or Shelf()
        self._batches = [{n: Parcel(array) for n, array in feed.items() if n in self._until} for feed in feeds]

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(self._batches)

    @property
    def stays(self) -> dict[str, tuple[int, int]]:
        """Tensors that are kept -> the levels from which and until which they are."""
        return {name: (self._levels.get(name, 0), last) for name, last in self._until.items()}

    def values(self, name: str) -> Iterator[Array]:
        """Yield a kept tensor, batch by batch."""
        return (batch[name].open() for batch in self._batches)

    def advance(self, level: int) -> None:
        """Run all needed nodes of a level."""
        nodes = self._nodes.get(level, [])
        made = {name for node in nodes for name in node.output if name}
        outputs = sorted(name for name in made if name in self._until)
        inputs = sorted({name for node in nodes for name in reads(node) if name in self._levels and name not in made})
        session, weights = None, dict[str, Array]()
        for batch in self._batches if outputs else ():
            feed = {name: batch[name].open() for name in inputs}
            if session is None:
                proto, weights = self._submodel(nodes, inputs, outputs, feed)
                session = self._open(proto)
            values = session.values(outputs, feed | weights)
            batch.update((name, self._shelf.put(array)) for name, array in zip(outputs, values, strict=True))

    def release(self, level: int) -> None:
        """Forget the tensors that nobody reads above a level."""
        for batch in self._batches:
            for name in [name for name in batch if self._until[name] <= level]:
                del batch[name]

    def _select(self) -> dict[int, list[onnx.NodeProto]]:
        """Return the nodes to run at each level, and note until which level each tensor is needed."""
        needed, nodes = set(self._until), dict[int, list[onnx.NodeProto]]()
        inputs = {value.name for value in self._graph.input}
        for node in reversed(self._graph.node):
            level = max((self._levels.get(name, -1) for name in node.output if name), default=-1)
            if level < 0 or not any(name in needed for name in node.output):
                continue
            nodes.setdefault(level, []).append(node)
            for name in reads(node):
                needed.add(name)
                if self._levels.get(name, level) < level or name in inputs:
                    self._until[name] = max(self._until.get(name, -1), level)
        return {level: found[::-1] for level, found in nodes.items()}

    def _submodel(
        self, nodes: Sequence[onnx.NodeProto], inputs: Sequence[str], outputs: Sequence[str], sample: Feed
    ) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """Return the small model, and the large weights that it takes as inputs, so that nothing copies them."""
        graph, wanted = onnx.GraphProto(name="stage"), {name for node in nodes for name in reads(node)}
        graph.node.extend([*self._static_before(wanted), *nodes])
        places = self._stored()
        stored = [self._graph.initializer[place] for place in sorted(places[n] for n in wanted if n in places)]
        taken = given_as_inputs(graph, stored)
        weights = {name: np.ascontiguousarray(self._model.content(name, tensor)) for name, tensor in taken.items()}
        graph.initializer.extend(embedded(self._model, tensor) for tensor in stored if tensor.name not in taken)
        graph.sparse_initializer.extend(self._sparse[name] for name in sorted(wanted & self._sparse.keys()))
        for name, array in ({name: sample[name] for name in inputs} | weights).items():
            element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            shape = array.shape if name in weights else None
            graph.input.append(onnx.helper.make_tensor_value_info(name, element, shape))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        model = onnx.ModelProto()
        model.CopyFrom(self._header)
        model.graph.CopyFrom(graph)
        return model, weights

    def _static_before(self, wanted: set[str]) -> list[onnx.NodeProto]:
        """Return the nodes that make static tensors which are wanted, in order, and add to `wanted` what they read."""
        found: dict[int, onnx.NodeProto] = {}
        waiting = [name for name in wanted if name in self._static]
        while waiting:
            number, node = self._static[waiting.pop()]
            if number not in found:
                found[number] = node
                wanted.update(reads(node))
                waiting.extend(name for name in reads(node) if name in self._static)
        return [found[number] for number in sorted(found)]

    def _stored(self) -> dict[str, int]:
        """Return where each stored tensor stands; between two levels some may be added, none goes."""
        for place in range(len(self._places), len(self._graph.initializer)):
            self._places[self._graph.initializer[place].name] = place
        return self._places


def given_as_inputs(graph: onnx.GraphProto, stored: Iterable[onnx.TensorProto]) -> dict[str, onnx.TensorProto]:
    """Return the weights in files that are large, and whose readers take any tensor."""
    large = {tensor.name: tensor for tensor in stored if _is_large(tensor) and tensor.data_type in FED_TYPES}
    strange = [node for node in graph.node if node.op_type not in TAKES_ANY or node.domain not in ("", "ai.onnx")]
    for name in {name for node in strange for name in reads(node)}:
        large.pop(name, None)
    return large


def embedded(model: Model, tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return the tensor with its content inside, whether it is stored outside or still to be made."""
    if tensor.name in model.pending:
        return onnx.numpy_helper.from_array(model.pending[tensor.name](), tensor.name)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return onnx.numpy_helper.from_array(model.array(tensor), tensor.name)
    return tensor
