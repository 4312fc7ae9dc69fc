"""Stored weights of the model that is refitted: where a node's constant comes from, its values, and new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnxprune.compensate.computed import Computed
from onnxprune.compensate.spill import Spill
from onnxprune.graph import initializers
from onnxprune.graph.bodies import reads
from onnxprune.graph.follow import UNSEEN
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external
from onnxprune.types import Array

FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
)
SHAPES = ("Shape", "Size")
COPIED_BYTES = 1 << 14
"""A shared constant up to this size is copied when one of its users gets other values (biases); larger ones stay."""


@dataclass(frozen=True)
class _Origin:
    """A stored tensor and what stands between it and the reader: axes of transposes, names used on the way."""

    tensor: onnx.TensorProto
    perms: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]


class Weights:
    """The constants of one graph, read through Identity and Transpose, and replaced in place.

    The model's proto is edited: give a copy.
    """

    def __init__(self, model: Model) -> None:
        self._pending = dict(model.pending)
        self.model = Model(model.proto, model.path, self._pending)
        graph = model.proto.graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output if name}
        # new values change no shape, so who asks for that alone is no user
        self._uses = Counter(name for node in graph.node if node.op_type not in SHAPES for name in reads(node))
        self._uses.update(value.name for value in graph.output)
        self._computed = Computed(self.model, self._makers)
        self._spill = Spill()
        self._inputs = {value.name for value in graph.input} - self._stored.keys()

    def value(self, name: str) -> Array | None:
        """Return the values of a floating-point constant, or None if the tensor is none."""
        origin = self._origin(name)
        if origin is None:
            return self._computed.value(name)
        array = self._content(origin.tensor)
        for perm in origin.perms:
            array = array.transpose(perm)
        return array

    def like(self, name: str) -> Array | None:
        """Return an array of the type and shape of a floating-point constant, whose numbers take no memory.

        None if the tensor is none.
        """
        origin = self._origin(name)
        if origin is None:
            return self._computed.value(name)
        kind = onnx.helper.tensor_dtype_to_np_dtype(origin.tensor.data_type)
        array: Array = np.broadcast_to(np.zeros((), kind), tuple(origin.tensor.dims))
        for perm in origin.perms:
            array = array.transpose(perm)
        return array

    def source(self, name: str) -> str:
        """Return the name of the stored tensor behind a constant, "" if the tensor is none."""
        origin = self._origin(name)
        return origin.names[-1] if origin is not None else ""

    def sources(self, name: str) -> set[str]:
        """Return the names of the stored tensors behind a constant."""
        origin = self._origin(name)
        return {origin.names[-1]} if origin is not None else self._computed.sources(name)

    def is_own(self, name: str) -> bool:
        """Tell whether only one node reads the constant, so that it can be changed where it stands."""
        origin = self._origin(name)
        if origin is None:
            return self._uses[name] == 1 and self._computed.value(name) is not None
        return all(self._uses[n] == 1 for n in origin.names) and not self._inputs & set(origin.names)

    def can_change(self, name: str) -> bool:
        """Tell whether one user of the constant can get other values."""
        value = self.like(name)
        return value is not None and (self.is_own(name) or value.nbytes <= COPIED_BYTES)

    def count_uses(self, source: str) -> int:
        """Return how many inputs and outputs take their values from a stored tensor, whatever stands in between."""
        return self._takers[source]

    @cached_property
    def _takers(self) -> Counter[str]:
        graph = self.model.proto.graph
        nodes = (node for node in graph.node if node.op_type not in SHAPES and not self._passes(node))
        taken = [name for node in nodes for name in (*node.input, *(set(reads(node)) - set(node.input)))]
        return Counter(self.source(name) for name in (*taken, *(value.name for value in graph.output)) if name)

    def _passes(self, node: onnx.NodeProto) -> bool:
        if node.output[0].startswith(UNSEEN):  # stands for a reader in a branch that is not followed
            return False
        return node.op_type in ("Identity", "Transpose") and self._origin(node.output[0]) is not None

    def change_all(self, name: str, array: Array) -> None:
        """Give the stored tensor behind a constant new values, for all its users."""
        origin = self._origin(name)
        old = self.like(name)
        if origin is None or old is None:
            raise ValueError(f"{name} is no constant")
        array = np.asarray(array, old.dtype).reshape(old.shape)
        for perm in reversed(origin.perms):
            array = array.transpose(np.argsort(perm))
        self._store(origin.tensor, array)

    def change_together(self, places: Sequence[tuple[onnx.NodeProto, int]], array: Array) -> None:
        """Give the same new values to inputs of several nodes: where they stand, if nobody else uses them."""
        names = [node.input[index] for node, index in places]
        sources = {self.source(name) for name in names}
        if len(sources) == 1 and self.count_uses(sources.pop()) == len(places):
            self.change_all(names[0], array)
            return
        old = self.like(names[0])
        if old is None:
            raise ValueError(f"{names[0]} is no constant")
        added = self.add(f"{names[0]}.together", np.asarray(array, old.dtype).reshape(old.shape))
        for node, index in places:
            node.input[index] = added
        self._uses[added] = len(places)

    def change(self, node: onnx.NodeProto, index: int, array: Array) -> None:
        """Give input `index` of a node new values, in the stored type and shape; a shared constant is copied."""
        name = node.input[index]
        origin = self._origin(name)
        old = self.like(name)
        if old is None:
            raise ValueError(f"{name} is no constant")
        array = np.asarray(array, old.dtype).reshape(old.shape)
        if origin is not None and self.is_own(name):
            self.change_all(name, array)
        else:
            node.input[index] = self.add(f"{name}.{node.name or node.output[0]}", array)

    def replace(self, name: str, array: Array) -> None:
        """Give a stored constant new values for all its users."""
        origin = self._origin(name)
        if origin is None or origin.perms:
            raise ValueError(f"{name} is not stored")
        self._store(origin.tensor, array)

    def add(self, name: str, array: Array) -> str:
        """Add a new initializer and return its name."""
        while name in self._stored or name in self._makers or name in self._inputs:
            name += "_"
        self._stored[name] = initializers.add(self.model.proto, name, array)
        self._uses[name] = 1
        return name

    def room(self, name: str) -> Array:
        """Return an array to write the new values of a constant into: in a file where it is large and stored in one.

        It has the type and shape of `like`; what is written counts once it is handed to `change`.
        """
        origin, like = self._origin(name), self.like(name)
        if like is None:
            raise ValueError(f"{name} is no constant")
        if origin is None or origin.perms or not is_external(origin.tensor):
            return np.empty(like.shape, like.dtype)
        return self._spill.room(like)

    def _store(self, tensor: onnx.TensorProto, array: Array) -> None:
        array = np.asarray(array, onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), order="C")
        if is_external(tensor):
            self._pending[tensor.name] = self._spill.put(array)
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    def _content(self, tensor: onnx.TensorProto) -> Array:
        return self.model.content(tensor.name, tensor)

    def _origin(self, name: str) -> _Origin | None:
        perms: list[tuple[int, ...]] = []
        names = [name]
        while name not in self._stored:
            node = self._makers.get(name)
            if node is None or node.domain not in ("", "ai.onnx"):
                return None
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                return (
                    _Origin(node.attribute[0].t, tuple(reversed(perms)), tuple(names))
                    if _is_float(node.attribute[0].t)
                    else None
                )
            if node.op_type == "Transpose":
                perm = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())
                if not perm:
                    return None
                perms.append(perm)
            elif node.op_type != "Identity":
                return None
            name = node.input[0]
            names.append(name)
        tensor = self._stored[name]
        return _Origin(tensor, tuple(reversed(perms)), tuple(names)) if _is_float(tensor) else None


def _is_float(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in FLOATS
