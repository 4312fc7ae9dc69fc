"""The loss of sequences of classes without places (CTC), as nodes of a graph.

With e[t, s] the probability that step t gives to state s, states being the label's classes with a blank between all:
a[0] = e[0] at the first two states; a[t] = (a[t - 1] A) e[t], where A lets a state stay, go on by one, or leap over a
blank between different classes; each a[t] is divided by its sum c[t]. loss = -sum over t log c[t] - log(a[last] f),
where f marks the last class and the blank behind it.
Source: Graves et al., 2006, Connectionist temporal classification, equations 6 to 8, with the rescaling of section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.compensate.terms import Term
from onnxprune.types import Array

TINY = 1e-30
"""Keeps logarithms finite where a network gives a label no chance at all."""
PART = "onnxprune.ctc."


def states(labels: Array, blank: int) -> Array:
    """Return (samples, 2 * longest + 1) classes of states: blanks around and between labels, -1 behind the last.

    Args:
        labels: (samples, longest), -1 behind the last of each.
    """
    count, longest = labels.shape
    found = np.full((count, 2 * longest + 1), -1, np.int64)
    found[:, 1::2] = labels
    lengths = (labels >= 0).sum(axis=1)
    found[:, 0::2] = np.where(np.arange(longest + 1) <= lengths[:, None], blank, -1)
    return found


def tables(labels: Array, classes: int, blank: int) -> Array:
    """Return (samples, classes + states + 1, states): class of each state, A, and f."""
    own = states(np.asarray(labels, np.int64), blank)
    count, size = own.shape
    real = own >= 0
    each = (own[:, None] == np.arange(classes)[:, None]) & real[:, None]
    place = np.arange(size)
    ahead = place - place[:, None]  # how far a state of a column is ahead of that of a row
    leap = np.zeros((count, size), bool)
    leap[:, 2:] = (own[:, 2:] != blank) & (own[:, 2:] != own[:, :-2])
    follows = (ahead == 0) | (ahead == 1) | ((ahead == 2) & leap[:, None])
    ends = 2 * (np.asarray(labels) >= 0).sum(axis=1)[:, None]
    last = (place == ends) | (place == ends - 1)
    parts = [each, follows & real[:, None], last[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def ctc_term(given: str, shape: Sequence[int], time_first: bool, labels: str, longest: int, weight: float) -> Term:
    """Return the loss, averaged over samples and divided by the longest label.

    Args:
        given: what the network gives, before a last Softmax. shape: (samples, steps, classes), or (steps, samples,
            classes) with `time_first`.
        labels: name of the input with the `tables`. longest: how long labels are at most.
    """
    samples, steps = (shape[1], shape[0]) if time_first else (shape[0], shape[1])
    classes, size = shape[2], 2 * longest + 1
    nodes: list[onnx.NodeProto] = []
    stored: dict[str, Array] = {
        "flat": np.array([-1], np.int64),
        "rows": np.array([classes, size, 1], np.int64),
        "steps": np.ones(steps, np.int64),
        "tiny": np.array(TINY, np.float32),
        "first": (np.arange(size) < 2).astype(np.float32).reshape(1, 1, -1),
        "last": np.array([2], np.int64),
        "factor": np.array(-weight / (samples * longest), np.float32),
    }

    def add(kind: str, inputs: Sequence[str], *outputs: str, axis: int | None = None) -> str:
        reads = [f"{PART}{name}" if name in stored or name in made else name for name in inputs]
        made.update(outputs)
        nodes.append(helper.make_node(kind, reads, [f"{PART}{name}" for name in outputs], axis=axis))
        return outputs[0]

    made: set[str] = set()
    x = given
    if time_first:
        x = f"{PART}turned"
        nodes.append(helper.make_node("Transpose", [given], [x], perm=[1, 0, 2]))
    add("Softmax", [x], "shares", axis=2)
    add("Split", [labels, "rows"], "each", "follows", "ends", axis=1)
    add("MatMul", ["shares", "each"], "chances")
    add("Split", ["chances", "steps"], *(f"e{step}" for step in range(steps)), axis=1)
    logs = []
    for step in range(steps):
        before = add("MatMul", [f"a{step - 1}", "follows"], f"b{step}") if step else "first"
        add("Mul", [before, f"e{step}"], f"u{step}")
        add("ReduceSum", [f"u{step}", "last"], f"s{step}")
        add("Add", [f"s{step}", "tiny"], f"c{step}")
        add("Div", [f"u{step}", f"c{step}"], f"a{step}")
        logs.append(add("Log", [f"c{step}"], f"l{step}"))
    add("Mul", [f"a{steps - 1}", "ends"], "ended")
    add("ReduceSum", ["ended", "last"], "chance")
    add("Add", ["chance", "tiny"], "some")
    logs.append(add("Log", ["some"], "rest"))
    add("Sum", logs, "whole")
    add("Reshape", ["whole", "flat"], "row")
    add("ReduceSum", ["row"], "sum")
    add("Mul", ["sum", "factor"], "term")
    value = helper.make_tensor_value_info(labels, onnx.TensorProto.FLOAT, [samples, classes + size + 1, size])
    tensors = [numpy_helper.from_array(array, f"{PART}{name}") for name, array in stored.items()]
    return Term(nodes, tensors, [value], f"{PART}term")
