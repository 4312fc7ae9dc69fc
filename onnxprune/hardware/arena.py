"""Where onnxruntime keeps activations while a model runs: its buffers, and the room that they take together.

What follows is its plan for one stream on the CPU with sizes that are known (source: onnxruntime,
core/framework/allocation_planner.cc and mem_pattern_planner.h): an output lies in the buffer of an input that it is a
view of, or that its kernel may write over; else in the first free buffer of the same shape and type, which then is not
given back in between; else in a buffer of its own. Buffers are laid out in the order in which they begin, each into the
tightest gap. Inputs and outputs of the model are not among them, nor is what a kernel needs for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.graph.trace import Trace
from onnxprune.graph.view import Node, View
from onnxprune.types import FloatArray

VIEWS = frozenset("Reshape Flatten Squeeze Unsqueeze Identity Dropout".split())
"""Operators whose output is their first input under another shape."""
OVERWRITING = frozenset(
    "Relu Sigmoid Tanh Clip LeakyRelu HardSwish HardSigmoid Elu Selu Softplus Softsign Celu ThresholdedRelu Softmax "
    "LogSoftmax Cast".split()
)
"""Operators that may write over their first input. Arithmetic of two operands may not."""
SUMMING = frozenset({"Conv", "FusedConv"})
"""Convolutions that add input 3 to what they give, and may write over it."""
ROUND = 256
"""Bytes that a buffer begins at a multiple of."""


@dataclass(frozen=True)
class Buffer:
    """One buffer: the tensors that lie in it, the first one first, and the steps in which it is there."""

    tensors: tuple[str, ...]
    first: int
    last: int


class _Plan:
    """The plan on its way: which buffer a tensor lies in, and what is left to read of each buffer."""

    def __init__(self, view: View, traced: Trace) -> None:
        self.traced, self.outputs = traced, {output.name for output in view.model.proto.graph.output}
        self.nodes = [node for node in view.nodes if not all(key in view.parameters for key in node.outputs if key)]
        self.uses = Counter(key for node in self.nodes for key in (*node.inputs, *node.captured) if key)
        self.uses.update(self.outputs)
        self.home: dict[str, int] = {}
        self.tensors: list[list[str]] = []
        self.spans: list[list[int]] = []
        self.left: list[int] = []
        self.free: list[int] = []

    def run(self) -> list[Buffer]:
        for step, node in enumerate(self.nodes):
            for number, key in enumerate(node.outputs):
                if key and key not in self.outputs and key in self.traced.shapes:
                    self._place(node, number, key, step)
            for key in (*node.inputs, *node.captured):
                self._read(key, step)
            for key in node.outputs:
                if key and not self.uses[key]:
                    self._release(key)
        spans = zip(self.tensors, self.spans, strict=True)
        return [Buffer(tuple(tensors), first, last) for tensors, (first, last) in spans]

    def _place(self, node: Node, number: int, key: str, step: int) -> None:
        home = self._input(node, key) if number == 0 else None
        if home is None and node.op_type in VIEWS and number == 0:
            return  # a view of an input of the model, or of a constant
        if home is None:
            kind = self._kind(key)
            home = next((free for free in self.free if self._kind(self.tensors[free][0]) == kind), None)
            if home is not None:
                self.free.remove(home)
        if home is None:
            home = len(self.tensors)
            self.tensors.append([])
            self.spans.append([step, step])
            self.left.append(0)
        self.home[key] = home
        self.tensors[home].append(key)
        self.left[home] += self.uses[key]
        self.spans[home][1] = step

    def _input(self, node: Node, key: str) -> int | None:
        """Return the buffer of an input that an output is put into."""
        if node.op_type in VIEWS:
            return self.home.get(node.inputs[0])
        place = 0 if node.op_type in OVERWRITING else 3 if node.op_type in SUMMING else None
        if place is None or not node.has_input(place):
            return None
        home = self.home.get(node.inputs[place])
        alike = self._size(node.inputs[place]) == self._size(key)
        return home if home is not None and self.left[home] == 1 and alike else None

    def _read(self, key: str, step: int) -> None:
        home = self.home.get(key) if key else None
        if home is not None:
            self.left[home] -= 1
            self.spans[home][1] = max(self.spans[home][1], step)
            if self.left[home] == 0:
                self.free.insert(0, home)

    def _release(self, key: str) -> None:
        home = self.home.get(key)
        if home is not None and self.left[home] == 0 and home not in self.free:
            self.free.insert(0, home)

    def _kind(self, key: str) -> tuple[object, int]:
        return self.traced.shapes[key], self.traced.data_type(key)

    def _size(self, key: str) -> tuple[object, int]:
        return self.traced.shapes.get(key), item_bytes(self.traced.data_type(key))


def buffers_of(view: View, traced: Trace) -> list[Buffer]:
    """Return the buffers of a graph that onnxruntime has optimized, in the order in which they begin."""
    return _Plan(view, traced).run()


def room(buffers: Sequence[Buffer], sizes: Sequence[int]) -> int:
    """Return the bytes that buffers take when each lies in the tightest gap at its time.

    Args:
        sizes: bytes of each.
    """
    order = sorted(range(len(buffers)), key=lambda number: buffers[number].first)
    placed: list[tuple[int, int, int]] = []  # offset, bytes, last step
    top = 0
    for number in order:
        size = -(-sizes[number] // ROUND) * ROUND
        placed = [block for block in placed if block[2] >= buffers[number].first]
        if size:
            offset = _gap(placed, size, top)
            placed.append((offset, size, buffers[number].last))
            placed.sort()
            top = max(top, offset + size)
    return top


def alive(buffers: Sequence[Buffer], sizes: Sequence[float]) -> FloatArray:
    """Return (steps,): bytes of the buffers that are there at each step."""
    changes = np.zeros(max((buffer.last for buffer in buffers), default=-1) + 2)
    for buffer, size in zip(buffers, sizes, strict=True):
        changes[buffer.first] += size
        changes[buffer.last + 1] -= size
    alive_then: FloatArray = np.cumsum(changes)[:-1]
    return alive_then


def bytes_of(traced: Trace) -> Callable[[Buffer], int]:
    """Return what tells the bytes of a buffer."""

    def size(buffer: Buffer) -> int:
        key = buffer.tensors[0]
        return int(np.prod(traced.shapes[key], dtype=np.int64)) * item_bytes(traced.data_type(key))

    return size


def item_bytes(data_type: int) -> int:
    """Return the bytes of one element; 4 where the type is unknown."""
    from onnx import helper

    try:
        return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except (KeyError, ValueError, TypeError):
        return 4


def _gap(placed: Sequence[tuple[int, int, int]], size: int, top: int) -> int:
    """Return the offset of the tightest gap below the top that holds a block, else that behind the last block."""
    end, best, waste = 0, None, top + 1
    for offset, length, _ in placed:
        if offset - end >= size and offset - end - size < waste:
            best, waste = end, offset - end - size
        end = max(end, offset + length)
    if top - end >= size and top - end - size < waste:
        best = end
    return end if best is None else best
