"""Shape arithmetic evaluated again with the shapes after pruning, under both assignments of dynamic sizes."""

from __future__ import annotations

import numpy as np

from onnxprune.channels.state import State
from onnxprune.graph.concrete_run import ConcreteRun, Shape
from onnxprune.graph.fold import evaluate, shape_value
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray, IntArray


class Refold:
    """New values of folded tensors. Index 0 is the first assignment of sizes, 1 the second."""

    def __init__(self, state: State, mask: BoolArray) -> None:
        self.state = state
        self.mask = mask
        self.runs: tuple[ConcreteRun, ConcreteRun] = (state.trace.first, state.trace.second)
        self.broken: dict[int, Node] = {}
        self.changed: tuple[dict[str, Array | None], dict[str, Array | None]] = ({}, {})
        for number in (0, 1):
            self._run(number)

    def value(self, key: str, run: int) -> Array | None:
        """Return what a folded tensor holds after pruning, None where it cannot be computed any more."""
        if key in self.changed[run]:
            return self.changed[run][key]
        return self.runs[run].values.get(key)

    def has_changed(self, key: str) -> bool:
        """Tell whether a folded tensor holds something else after pruning."""
        return key in self.changed[0] or key in self.changed[1]

    def sources(self, key: str) -> list[IntArray]:
        """Return the axes whose sizes a folded tensor is computed from, as far as they shrink."""
        found: list[IntArray] = []
        seen, open_keys = {key}, [key]
        while open_keys:
            node = self.state.view.producers.get(open_keys.pop())
            for name in node.inputs if node is not None else ():
                if node is not None and node.op_type in ("Shape", "Size"):
                    root = self.state.view.root(name)
                    axes = self.state.axes.get(name, self.state.axes.get(root, []))
                    found += [ids for ids in axes if not self.mask[ids].all()]
                elif name and name not in seen and self.has_changed(name):
                    seen.add(name)
                    open_keys.append(name)
        return found

    def shape(self, key: str, run: int) -> Shape | None:
        """Return the shape of any tensor after pruning, None where it is not known any more."""
        if key in self.changed[run]:
            value = self.changed[run][key]
            return value.shape if value is not None else None
        old = self.runs[run].shapes.get(key)
        axes = self.state.axes.get(key, self.state.axes.get(self.state.view.root(key)))
        if old is None or axes is None or len(axes) != len(old):
            return old
        return tuple(self.scale(ids, size) for ids, size in zip(axes, old, strict=True))

    def count(self, ids: IntArray) -> int:
        """Kept positions of an axis."""
        return int(np.count_nonzero(self.mask[ids]))

    def scale(self, ids: IntArray, size: int) -> int:
        """Kept positions of an axis that has `size` positions in one of the runs.

        A dynamic axis that loses channels is a product of a dynamic size and channels, so it shrinks in proportion.
        """
        kept = self.count(ids)
        return kept if size == len(ids) else size * kept // max(len(ids), 1)

    def _run(self, number: int) -> None:
        values = self.runs[number].values
        for node in self.state.view.nodes:
            if node.op_type == "Constant" or not node.outputs or node.outputs[0] not in values:
                continue
            if node.op_type in ("Shape", "Size") and not node.domain:
                shape = self.shape(node.inputs[0], number)
                if shape != self.runs[number].shapes[node.inputs[0]]:
                    self._note(node, [shape_value(node, shape) if shape is not None else None], number)
            elif any(key in self.changed[number] for key in node.inputs):
                self._note(node, self._evaluate(node, number), number)

    def _evaluate(self, node: Node, number: int) -> list[Array | None]:
        inputs = [self.value(key, number) if key else None for key in node.inputs]
        if any(value is None and key for value, key in zip(inputs, node.inputs, strict=True)):
            self.broken[id(node)] = node
            return [None] * len(node.outputs)
        try:
            return list(evaluate(node, inputs))
        except Exception:  # sizes that do not fit: whatever reads it gets a constant instead
            self.broken[id(node)] = node
            return [None] * len(node.outputs)

    def _note(self, node: Node, results: list[Array | None], number: int) -> None:
        for key, result in zip(node.outputs, results, strict=False):
            if key and not (result is not None and np.array_equal(result, self.runs[number].values[key])):
                self.changed[number][key] = result
