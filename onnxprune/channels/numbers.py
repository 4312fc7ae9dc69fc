"""Which tensors hold numbers of positions on some axis, and where: followed through what only moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.edits import MOVES
from onnxprune.graph.fold import evaluate
from onnxprune.graph.trace import Trace
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Numbers:
    """Entries of a tensor that count positions of an axis. mask: (its traced shape, empty axes as 1) True for those."""

    ids: IntArray
    mask: BoolArray


def moved(node: Node, numbers: Mapping[str, Sequence[Numbers]], trace: Trace) -> dict[str, list[Numbers]]:
    """Return what the outputs of a node hold that only moves its inputs; nothing for any other node."""
    held = [index for index, key in enumerate(node.inputs) if key in numbers]
    if not held or node.domain or node.op_type not in MOVES or (node.op_type != "Concat" and held != [0]):
        return {}
    result: dict[str, list[Numbers]] = {}
    for index in held:
        for found in numbers[node.inputs[index]]:
            masks = _move(node, index, found.mask, trace)
            if masks is None:
                return {}
            for key, mask in zip(node.outputs, masks, strict=False):
                if key and mask.any():
                    result.setdefault(key, []).append(Numbers(found.ids, mask))
    return result


def _move(node: Node, held: int, mask: BoolArray, trace: Trace) -> list[BoolArray] | None:
    """Move the mask as the node moves the numbers; None where that cannot be told."""
    if node.op_type == "Cast":
        return [mask]
    inputs: list[Array | None] = []
    for index, key in enumerate(node.inputs):
        if index == held:
            inputs.append(mask.astype(np.int64))
        elif node.op_type == "Concat":
            inputs.append(np.zeros([max(size, 1) for size in trace.shapes.get(key, ())], dtype=np.int64))
        else:
            value = trace.first.values.get(key) if key else None
            if key and value is None:
                return None
            inputs.append(value)
    try:
        return [np.asarray(result, dtype=bool) for result in evaluate(node, inputs)]
    except Exception:  # whatever numpy or onnx.reference raise for sizes that do not fit: it is a reader like any other
        return None
