"""A text recogniser with recurrent layers written out step by step: one weight that many nodes read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from tests.networks import FLOAT, model, weights

WIDTHS = (32,) * 4 + (64,) * 6 + (96,) * 6 + (128,) * 4 + (160,) * 4
"""Channels of the convolutions; the height is halved where the width changes."""


def crnn(
    widths: Sequence[int] = WIDTHS,
    hidden: int = 256,
    steps: int = 20,
    layers: int = 2,
    *,
    height: int = 32,
    joined: bool = True,
    classes: int = 96,
    seed: int = 0,
) -> onnx.ModelProto:
    """Return x (batch, 1, height, 4 * steps) -> scores (batch, steps, classes).

    Args:
        widths: one convolution each.
        hidden: of the LSTM of each direction; its steps share their weights.
        joined: a step is one Gemm of its input beside its state; else one Gemm for each.
    """
    built = _Parts(seed)
    built.features(widths, height)
    sequence = [built.column(step) for step in range(steps)]
    width = widths[-1]
    for layer in range(layers):
        forward = built.lstm(f"l{layer}f", sequence, width, hidden, joined)
        backward = built.lstm(f"l{layer}b", sequence[::-1], width, hidden, joined)[::-1]
        sequence = [built.add("Concat", pair, axis=1) for pair in zip(forward, backward, strict=True)]
        width = 2 * hidden
    head = built.weight("head", (width, classes)), built.weight("head_bias", (classes,))
    scores = [built.add("Unsqueeze", (built.add("Gemm", (h, *head)), built.index(1))) for h in sequence]
    built.nodes.append(helper.make_node("Concat", scores, ["scores"], "scores", axis=1))
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["batch", 1, height, 4 * steps])]
    outputs = [helper.make_tensor_value_info("scores", FLOAT, ["batch", steps, classes])]
    return model(built.nodes, inputs, outputs, built.initializers)


class _Parts:
    """Nodes and initializers in the making."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._seed, self._columns = seed, ""
        self._names: set[str] = set()

    def add(self, op_type: str, inputs: Sequence[str], **attributes: object) -> str:
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name, **attributes))
        return name

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        """Return a weight of the name, made when it is asked for first."""
        if name not in self._names:
            self._names.add(name)
            (tensor,) = weights(self._seed + len(self._names), **{name: shape})
            self.initializers.append(tensor)
        return name

    def index(self, value: int) -> str:
        name = f"index_{value}"
        if name not in self._names:
            self._names.add(name)
            self.initializers.append(onnx.numpy_helper.from_array(np.array([value], np.int64), name))
        return name

    def features(self, widths: Sequence[int], height: int) -> None:
        """Convolutions: (batch, 1, height, 4 * steps) -> (batch, channels, steps)."""
        x, before, shrunk = "x", 1, 0
        for number, width in enumerate(widths):
            strides = [1, 1]
            if number == 0 or (width != before and height > 1):
                strides = [2, 2 if shrunk < 2 else 1]
                shrunk, height = shrunk + 1, -(-height // 2)
            kernel = self.weight(f"conv{number}", (width, before, 3, 3)), self.weight(f"conv{number}_bias", (width,))
            y = self.add("Relu", [self.add("Conv", (x, *kernel), pads=[1, 1, 1, 1], strides=strides)])
            x = self.add("Add", (x, y)) if width == before else y
            before = width
        self._columns = self.add("ReduceMean", [x], axes=[2], keepdims=0)

    def column(self, step: int) -> str:
        """Return (batch, channels) of one step."""
        sliced = self.add("Slice", (self._columns, self.index(step), self.index(step + 1), self.index(2)))
        return self.add("Squeeze", (sliced, self.index(2)))

    def _shape(self, width: int) -> str:
        """Return the shape (batch, width)."""
        batch = self.add("Slice", (self.add("Shape", ["x"]), self.index(0), self.index(1)))
        return self.add("Concat", (batch, self.index(width)), axis=0)

    def lstm(self, name: str, sequence: Sequence[str], width: int, hidden: int, joined: bool) -> list[str]:
        """Return the states of one direction."""
        bias = self.weight(f"{name}_bias", (4 * hidden,))
        first = self.weight(f"{name}_first", (1, hidden))
        states, cell = [self.add("Expand", (first, self._shape(hidden)))], ""
        for x in sequence:
            h = states[-1]
            if joined:
                weight = self.weight(f"{name}_w", (width + hidden, 4 * hidden))
                gates = self.add("Gemm", (self.add("Concat", (x, h), axis=1), weight, bias))
            else:
                own = self.add("Gemm", (x, self.weight(f"{name}_w", (width, 4 * hidden)), bias))
                gates = self.add("Add", (own, self.add("MatMul", (h, self.weight(f"{name}_r", (hidden, 4 * hidden))))))
            parts = [f"{gates}_{gate}" for gate in "iofc"]
            self.nodes.append(helper.make_node("Split", [gates], parts, f"split_{gates}", axis=1))
            opened = [self.add("Sigmoid", [part]) for part in parts[:3]]
            fresh = self.add("Mul", (opened[0], self.add("Tanh", [parts[3]])))
            cell = self.add("Add", (fresh, self.add("Mul", (opened[2], cell)))) if cell else fresh
            states.append(self.add("Mul", (opened[1], self.add("Tanh", [cell]))))
        return states[1:]
