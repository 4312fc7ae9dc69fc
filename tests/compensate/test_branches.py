"""Sums of branches, whichever stands first in the file: a branch waits for the other one before it is refitted."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import NodeProto, helper

from onnxprune.channels.analyse import analyse
from onnxprune.compensate.readers import find_readers
from onnxprune.compensate.stages import tensor_levels
from onnxprune.compensate.weights import Weights
from tests.compensate.small import network, prune, run

RNG = np.random.default_rng(11)
Part = tuple[list[NodeProto], dict[str, np.ndarray]]


def normal(*shape: int) -> np.ndarray:
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def conv(x: str, y: str, outs: int, ins: int, size: int = 1, weight: str = "") -> Part:
    pads = [size // 2] * 4
    return [helper.make_node("Conv", [x, weight or f"w_{y}"], [y], y, pads=pads)], (
        {} if weight else {f"w_{y}": normal(outs, ins, size, size)}
    )


def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: object) -> Part:
    return [helper.make_node(op_type, inputs, outputs, outputs[0], **attributes)], {}


def split_and_add() -> list[Part]:
    """Two halves of a Split; the one with more weights comes first and has the shorter way."""
    return [
        conv("h", "s", 16, 8),
        node("Relu", ["s"], ["r"]),
        node("Split", ["r"], ["left", "right"], axis=1),
        conv("left", "big", 8, 8, 3),
        conv("right", "small", 8, 8),
        node("Add", ["big", "small"], ["sum"]),
        conv("sum", "y", 4, 8),
    ]


def pyramid() -> list[Part]:
    """Levels that are upsampled and added to earlier ones, each read by one shared head."""
    return [
        conv("h", "c1", 12, 8, 3),
        node("Relu", ["c1"], ["p1"]),
        node("MaxPool", ["p1"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("p1", "side", 8, 12, 3),
        conv("half", "c2", 16, 12),
        node("Relu", ["c2"], ["p2"]),
        conv("p2", "top", 8, 16),
        ([], {"scales": np.array([1, 1, 2, 2], np.float32)}),
        node("Resize", ["top", "", "scales"], ["up"], mode="nearest"),
        node("Add", ["side", "up"], ["fused"]),
        ([], {"w_head": normal(4, 8, 1, 1)}),
        conv("fused", "low", 4, 8, weight="w_head"),
        conv("top", "high", 4, 8, weight="w_head"),
        node("Resize", ["high", "", "scales"], ["wide"], mode="nearest"),
        node("Sub", ["low", "wide"], ["y"]),
    ]


def deep_side() -> list[Part]:
    """A branch of one large layer, listed first, beside one of three layers whose last is the smallest."""
    return [
        conv("h", "wide", 8, 8, 5),
        conv("h", "a", 10, 8),
        node("Relu", ["a"], ["ra"]),
        conv("ra", "b", 12, 10),
        node("Relu", ["b"], ["rb"]),
        conv("rb", "c", 8, 12),
        node("Add", ["wide", "c"], ["sum"]),
        node("Relu", ["sum"], ["r"]),
        conv("r", "y", 4, 8),
    ]


def two_sums() -> list[Part]:
    """Sums of sums: each absorbing layer stands before the branch that it makes up for."""
    return [
        conv("h", "first", 8, 8, 3),
        conv("h", "second", 8, 8, 3),
        conv("h", "third", 8, 8),
        node("Sigmoid", ["third"], ["gate"]),
        conv("gate", "fourth", 8, 8),
        node("Add", ["second", "fourth"], ["inner"]),
        node("Add", ["first", "inner"], ["outer"]),
        node("Relu", ["outer"], ["r"]),
        conv("r", "y", 4, 8),
    ]


@pytest.mark.parametrize("build", [split_and_add, pyramid, deep_side, two_sums])
def test_branches_are_refitted_in_any_order_of_the_file(build: Callable[[], list[Part]]) -> None:
    parts = [conv("x", "c0", 8, 3, 3), node("Relu", ["c0"], ["h"]), *build()]
    nodes, weights = [n for part in parts for n in part[0]], {k: v for part in parts for k, v in part[1].items()}
    model = network(nodes, weights, ["n", 3, 8, 8], ["n", 4, 8, 8])
    feeds = [{"x": RNG.normal(size=(8, 3, 8, 8)).astype(np.float32)} for _ in range(6)]
    readers = find_readers(Weights(model))
    waits = {reader.node.output[0]: reader.waits for reader in readers}
    levels = tensor_levels(model.proto.graph, waits)
    assert any(reader.other for reader in readers)
    assert all(levels[y] > levels[name] for y, names in waits.items() for name in names)
    found = prune(model, {key: [1, 4] for key in range(len(analyse(model).groups))}, feeds)
    assert all(error.after <= error.before for error in found.errors) and any(error.used for error in found.errors)
    wanted, cut, refitted = (run(m, feeds)[0] for m in (model, found.cut, found.refitted))
    assert np.square(refitted - wanted).mean() < 0.85 * np.square(cut - wanted).mean()
