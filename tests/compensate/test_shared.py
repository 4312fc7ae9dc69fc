"""Weights with several readers are refitted as one, and stay one."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.channels.analyse import analyse
from onnxprune.compensate.shared import find_shared
from onnxprune.compensate.weights import Weights
from onnxprune.graph.model import Model
from tests.compensate.small import network, prune, run
from tests.crnn import crnn

RNG = np.random.default_rng(4)


def normal(*shape: int) -> np.ndarray:
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def node(op_type: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], output, **attributes)


def correlated(channels: int, *shape: int) -> np.ndarray:
    """Return samples whose channels are mixtures of few, so that a refit can make up for some."""
    few = RNG.normal(size=(64, 3, *shape))
    return np.einsum("nk...,kc->nc...", few, RNG.normal(size=(3, channels))).astype(np.float32)


def siamese() -> tuple[Model, np.ndarray]:
    """Two halves of the input through the same two layers with the same biases."""
    nodes = [helper.make_node("Split", ["x"], ["x0", "x1"], "split", axis=1)]
    for side in "01":
        nodes += [node("Gemm", f"x{side} w1 b1", f"h{side}", transB=1), node("Relu", f"h{side}", f"r{side}")]
        nodes.append(node("Gemm", f"r{side} w2 b2", f"e{side}", transB=1))
    nodes.append(node("Sub", "e0 e1", "y"))
    stored = {"w1": normal(16, 6), "b1": normal(16, 1)[:, 0], "w2": normal(5, 16), "b2": normal(5, 1)[:, 0]}
    return network(nodes, stored, ["n", 12], ["n", 5]), correlated(12)


def pyramid() -> tuple[Model, np.ndarray]:
    """One head of two convolutions over two sizes."""
    nodes = [node("Conv", "x w0", "p0", pads=[1] * 4), node("Relu", "p0", "q0")]
    nodes.append(node("MaxPool", "q0", "q1", kernel_shape=[2, 2], strides=[2, 2]))
    for side in "01":
        nodes += [node("Conv", f"q{side} w1 b1", f"c{side}", pads=[1] * 4), node("Relu", f"c{side}", f"d{side}")]
        nodes += [node("Conv", f"d{side} w2", f"e{side}"), node("GlobalMaxPool", f"e{side}", f"g{side}")]
    nodes.append(node("Concat", "g0 g1", "y", axis=1))
    stored = {"w0": normal(8, 4, 3, 3), "w1": normal(12, 8, 3, 3), "b1": normal(12, 1)[:, 0], "w2": normal(3, 12, 1, 1)}
    return network(nodes, stored, ["n", 4, 8, 8], ["n", 6, 1, 1]), correlated(4, 8, 8)


def steps() -> tuple[Model, np.ndarray]:
    """A recurrence of four steps: what a step gives is added to what the next one reads."""
    nodes = [node("MatMul", "x w0", "i0"), node("Tanh", "i0", "h0")]
    for step in range(4):
        nodes += [node("MatMul", f"h{step} w", f"m{step}"), node("Add", f"m{step} b", f"a{step}")]
        nodes += [node("Add", f"a{step} i0", f"s{step}"), node("Tanh", f"s{step}", f"h{step + 1}")]
    nodes.append(node("MatMul", "h4 w1", "y"))
    stored = {"w0": normal(6, 20), "w": 2 * normal(20, 20), "b": normal(20, 1)[:, 0], "w1": normal(20, 4)}
    return network(nodes, stored, ["n", 6], ["n", 4]), correlated(6)


def unrolled() -> tuple[Model, np.ndarray]:
    """A recogniser with two layers of two directions, one Gemm a step."""
    proto = crnn((8, 8), hidden=10, steps=4, layers=2, height=4, classes=6)
    return Model(proto), RNG.normal(size=(64, 1, 4, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("build", "chained"), [(siamese, 0), (pyramid, 0), (steps, 1), (unrolled, 4)], ids=lambda value: str(value)[:20]
)
def test_a_shared_weight_is_refitted_once_for_all_its_readers(
    build: Callable[[], tuple[Model, np.ndarray]], chained: int
) -> None:
    model, x = build()
    found = find_shared(Weights(model))
    assert found and sum(shared.chained for shared in found) == chained
    feeds = [{"x": part} for part in np.split(x, 8)]
    groups = analyse(model).groups
    keep = {number: list(range(group.size // 4)) for number, group in enumerate(groups)}
    pruned = prune(model, keep, feeds)
    # no reader has a copy of its own
    assert len(pruned.refitted.proto.graph.initializer) <= len(pruned.cut.proto.graph.initializer) + 1
    names = [error.name for error in pruned.errors if "with its weight" in error.name]
    assert len(names) == len(found) and any(e.used for e in pruned.errors if e.name in names)
    wanted, cut, refitted = (run(m, feeds)[0] for m in (model, pruned.cut, pruned.refitted))
    assert np.square(refitted - wanted).mean() < 0.5 * np.square(cut - wanted).mean()


def test_a_weight_that_something_else_reads_too_is_left_to_its_layers() -> None:
    """A table that is looked up and multiplied with: new values for the product would change the lookup."""
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a w", "b"), node("ReduceSum", "w", "s", keepdims=0)]
    model = network([*nodes, node("Add", "b s", "y")], {"w": normal(6, 6)}, ["n", 6], ["n", 6])
    assert not find_shared(Weights(model))


def test_readers_with_biases_of_their_own_keep_them() -> None:
    """Products that share the weight alone are fitted before the bias; a Gemm adds its own, so it is left alone."""
    stored = {"w": normal(6, 6), "b0": normal(6, 1)[:, 0], "b1": normal(6, 1)[:, 0]}
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b0", "a"), node("MatMul", "a w", "n"), node("Add", "n b1", "y")]
    (shared,) = find_shared(Weights(network(nodes, stored, ["n", 6], ["n", 6])))
    assert [member.y for member in shared.members] == ["m", "n"] and shared.biases is None
    nodes = [node("Gemm", "x w b0", "a"), node("Gemm", "a w b1", "y")]
    assert not find_shared(Weights(network(nodes, stored, ["n", 6], ["n", 6])))


def test_groups_that_shared_weights_read_are_pruned_by_default_with_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import plain

    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")
    model, x = unrolled()
    result = plain.prune(model, {"x": x}, ratio=0.3, align=1, compensate="lstsq")
    assert set(result.keep) == {group.name for group in result.channels.groups}
