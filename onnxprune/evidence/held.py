"""Two models piece by piece: what every step reads is handed out of both, and the second gets the first one's values.

Behind a step both models then go on alike, so an error cannot hide behind a sort or a rounding, and a difference of
rounding size is not made into a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import DataError, ModelError
from onnxprune.evidence.border import taken
from onnxprune.evidence.disturb import disturbed
from onnxprune.evidence.jumps import Steps
from onnxprune.evidence.parity import Meters
from onnxprune.graph.bodies import bodies_of
from onnxprune.graph.model import Model
from onnxprune.graph.session import Feeds, Session, open_session
from onnxprune.types import Array, IntArray

Kept = Callable[[str], Sequence[IntArray | None] | None]
"""Tensor -> for every axis the positions that the pruned model keeps (None: all); None where no axis lost any."""

SUFFIX = "/held"
LARGE = 0.1
"""Share by which weights are moved to see whether an output depends on them."""


class CannotHoldError(Exception):
    """The pieces do not fit together: names or widths differ, or a type that numpy cannot hold."""


class Pieces:
    """Runs the masked original and the pruned model piece by piece. Use it as a context manager.

    Args:
        kept: the positions of tensors that the pruned model has.
        seen: further tensors that are compared, and not held.

    Raises:
        CannotHoldError: the pruned model lacks one of the steps or of the tensors.
    """

    def __init__(
        self,
        masked: Model,
        pruned: Model,
        steps: Steps,
        kept: Kept,
        threads: int,
        provider: str | None,
        seen: Sequence[str] = (),
    ) -> None:
        self._kept, self._threads, self._provider = kept, threads, provider
        try:
            self._watched = _watched(masked, tuple(dict.fromkeys([*steps.held, *seen])))
            self._original = open_session(self._watched, threads=threads, provider=provider)
            types = {port.name: port.dtype for port in self._original.outputs}
            unknown = [port.name for port in self._original.outputs if port.kind == "tensor(bfloat16)"]
            if unknown:
                raise CannotHoldError(f"'{unknown[0]}' is bfloat16")
            floats = {name: dtype for name, dtype in types.items() if dtype is not None and dtype.kind == "f"}
            held = {name: (steps.held[name], dtype) for name, dtype in floats.items() if name in steps.held}
            self._held = tuple(held)
            self.inner = tuple(name for name in floats if name in held or name in seen)
            """The tensors besides the outputs that are compared."""
            self._cut = _watched(_holding(masked, held), self.inner)
            cut = _watched(_holding(pruned, held), self.inner)
            self._pruned = open_session(cut, threads=threads, provider=provider)
        except ModelError as error:
            raise CannotHoldError(str(error)) from error

    def compare(self, meters: Meters, feeds: Feeds) -> None:
        """Take the outputs and what every step reads into the meters.

        Raises:
            CannotHoldError: the pruned model does not run on the values of the original.
        """
        first = self._original.run(feeds)
        inner = narrowed({name: first[name] for name in self.inner}, self._kept)
        held = {name: inner[name] for name in self._held}
        try:
            second = self._pruned.run(_fed(self._pruned, narrowed(feeds, self._kept), held))
        except DataError as error:
            raise CannotHoldError(str(error)) from error
        expected = {**narrowed(first, self._kept), **inner}
        if any(expected[name].shape != second[name].shape for name in self.inner if name in second):
            raise CannotHoldError("what a step reads has another shape in the pruned model")
        meters.add(expected, second)

    def add_noise(self, meters: Meters, feeds: Feeds) -> None:
        """Take in how the masked original, piece by piece, differs from itself run literally and with weights moved."""
        first = self._original.run(feeds)
        held = {name: first[name] for name in self._held}
        for session in self._twins:
            meters.add(first, session.run(_fed(session, feeds, held)))

    def looks(self, feeds: Feeds) -> bool:
        """Tell whether anything that is compared depends on the weights at all."""
        meters = Meters()
        try:
            moved = disturbed(self._watched, LARGE)
            with open_session(moved, threads=self._threads, provider=self._provider) as session:
                meters.add(self._original.run(feeds), session.run(feeds))
        except (ModelError, DataError):
            return True  # what a model with other weights does not survive depends on them
        return any(not error <= LARGE / 100 for error in meters.relative_errors().values())

    @cached_property
    def _twins(self) -> tuple[Session, ...]:
        return tuple(
            open_session(model, threads=self._threads, provider=self._provider, level=level)
            for model, level in ((self._cut, "none"), (disturbed(self._cut), "all"))
        )

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *_: object) -> None:
        for session in (self._original, self._pruned, *self.__dict__.get("_twins", ())):
            session.close()


def narrowed(arrays: Mapping[str, Array], kept: Kept) -> dict[str, Array]:
    """Return tensors of the original without the positions that the pruned model does not keep.

    Raises:
        CannotHoldError: channels lie on an axis of dynamic size (batch times heads), which was traced at another.
    """
    found = {}
    for name, array in arrays.items():
        axes = kept(name) or ()
        if any(p is not None and len(p) and p[-1] >= size for p, size in zip(axes, array.shape, strict=False)):
            raise CannotHoldError(f"'{name}' has channels on an axis of dynamic size")
        found[name] = taken(array, axes)
    return found


def _fed(session: Session, feeds: Feeds, held: Mapping[str, Array]) -> dict[str, Array]:
    names = {port.name for port in session.inputs}
    return {
        **{name: array for name, array in feeds.items() if name in names},
        **{name + SUFFIX: array for name, array in held.items()},
    }


def _copied(model: Model) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    return proto


def _watched(model: Model, names: Sequence[str]) -> Model:
    """Return a model that hands these tensors out besides its outputs."""
    proto = _copied(model)
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    return replace(model, proto=proto, file_bytes=None)


def _holding(model: Model, held: Mapping[str, tuple[Sequence[tuple[str, int]], np.dtype[np.generic]]]) -> Model:
    """Return a model whose steps read inputs of the graph instead of what it computes.

    Raises:
        CannotHoldError: it has no such step.
    """
    proto = _copied(model)
    nodes = _by_output(proto.graph)
    for name, (places, dtype) in held.items():
        for output, index in places:
            node = nodes.get(output)
            if node is None or index >= len(node.input) or node.input[index] != name:
                raise CannotHoldError(f"the step that makes '{output}' reads something else than '{name}'")
            node.input[index] = name + SUFFIX
        kind = helper.np_dtype_to_tensor_dtype(dtype)
        proto.graph.input.append(helper.make_tensor_value_info(name + SUFFIX, kind, None))
    return replace(model, proto=proto, file_bytes=None)


def _by_output(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Return the nodes of a graph and of the branches in it by their first output."""
    found = {}
    for node in graph.node:
        if node.output:
            found[node.output[0]] = node
        for body in bodies_of(node) if node.op_type == "If" else ():
            found.update(_by_output(body))
    return found
