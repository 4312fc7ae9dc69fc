"""ctc: the loss is that of all paths that read as the label, and its gradient is what differences say."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.compensate.ctc import ctc_term, tables
from onnxprune.graph.session import open_session
from tests import networks

DRAW = np.random.default_rng(4)


def read(path: tuple[int, ...], blank: int) -> list[int]:
    return [k for number, k in enumerate(path) if k != blank and (not number or path[number - 1] != k)]


def by_all_paths(x: np.ndarray, label: list[int], blank: int) -> float:
    """Return -log of the sum of the probabilities of all paths of (steps, classes) that read as a label."""
    shares = np.exp(x - x.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    steps, classes = x.shape
    paths = itertools.product(range(classes), repeat=steps)
    return -np.log(sum(np.prod([shares[t, k] for t, k in enumerate(p)]) for p in paths if read(p, blank) == label))


LABELS = {
    "different lengths": ([[1, 2, -1], [2, 2, 1]], 0, False),
    "nothing at all": ([[-1, -1], [1, 1]], 0, False),
    "blank at the end, steps first": ([[0, 1, 0], [1, -1, -1]], 2, True),
}


@pytest.mark.parametrize("name", LABELS)
def test_the_loss_is_that_of_all_paths(name: str) -> None:
    labels, blank, turned = LABELS[name]
    x = DRAW.standard_normal((2, 5, 3)).astype(np.float32) * 2
    shape = (5, 2, 3) if turned else (2, 5, 3)
    term = ctc_term("x", shape, turned, "y", len(labels[0]), 1.0)
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *term.inputs]
    given = [helper.make_tensor_value_info(term.name, TensorProto.FLOAT, [1])]
    session = open_session(networks.model(term.nodes, ports, given, term.stored), threads=1)
    feed = {"x": x.transpose(1, 0, 2) if turned else x, "y": tables(np.array(labels), 3, blank)}
    wanted = [by_all_paths(row, [k for k in label if k >= 0], blank) for row, label in zip(x, labels, strict=True)]
    # sums of floats in another order
    assert session.values([term.name], feed)[0][0] == pytest.approx(np.mean(wanted) / len(labels[0]), rel=1e-5)


def reader(steps_first: bool = False) -> onnx.ModelProto:
    """Return x (n, 8, 6) -> scores of (n, 8, 4) or (8, n, 4)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["s"]),
        helper.make_node("Transpose", ["s"], ["t"], perm=[1, 0, 2] if steps_first else [0, 1, 2]),
        helper.make_node("Softmax", ["t"], ["scores"], axis=-1),
    ]
    out = [8, "n", 4] if steps_first else ["n", 8, 4]
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 6])]
    given = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, out)]
    return networks.model(nodes, ports, given, networks.weights(w=(6, 12), v=(12, 4)))


def weaker(proto: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    for tensor in other.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(0.7), tensor.name))
    return other


@pytest.mark.parametrize("steps_first", [False, True])
def test_labels_without_places_pull(steps_first: bool) -> None:
    proto = reader(steps_first)
    x, labels = DRAW.standard_normal((64, 8, 6)).astype(np.float32), np.tile([2, -1, -1, -1], (64, 1))

    def loss(model: onnx.ModelProto) -> float:
        given = open_session(model, threads=1).values(["scores"], {"x": x})[0]
        rows = given.transpose(1, 0, 2) if steps_first else given
        term = ctc_term("p", (64, 8, 4), False, "y", 4, 1.0)
        ports = [helper.make_tensor_value_info("p", TensorProto.FLOAT, (64, 8, 4)), *term.inputs]
        ends = [helper.make_tensor_value_info(term.name, TensorProto.FLOAT, [1])]
        session = open_session(networks.model(term.nodes, ports, ends, term.stored), threads=1)
        return float(session.values([term.name], {"p": np.log(rows + 1e-9), "y": tables(labels, 4, 0)})[0][0])

    compressed = weaker(proto)
    found = onnxprune.finetune(
        proto, compressed, {"x": x}, labels=labels, criterion="ctc", label_weight=20.0, steps=40, rate=0.03
    )
    assert found.criterion == "ctc" and loss(found.model.proto) < 0.8 * loss(compressed)


REFUSED = {
    "another shape": (np.zeros(64, int), 0, r"labels of ctc are int64 of shape \[48\]"),
    "the blank": (np.full((64, 2), 0), 0, "label 0 of sample 0 is the blank"),
    "outside the classes": (np.full((64, 2), 4), 0, "label 4 of sample 0"),
    "behind the end": (np.tile([1, -1, 2], (64, 1)), 0, "behind a -1"),
    "too long": (np.tile([1, 1, 1, 1, 1], (64, 1)), 0, "sample 0 needs 9 steps, 'scores' has 8"),
    "no such blank from the last": (np.full((64, 2), 1), -9, "blank -9 is outside the 4 classes"),
    "no such blank": (np.full((64, 2), 1), 9, "blank 9 is outside the 4 classes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_labels_that_do_not_fit_are_refused_in_one_line(name: str) -> None:
    labels, blank, message = REFUSED[name]
    proto, x = reader(), DRAW.standard_normal((64, 8, 6)).astype(np.float32)
    with pytest.raises(onnxprune.DataError, match=message) as caught:
        onnxprune.finetune(proto, weaker(proto), {"x": x}, labels=labels, criterion="ctc", blank=blank, steps=2)
    assert "\n" not in str(caught.value)


def test_ctc_needs_steps_and_a_blank_needs_ctc() -> None:
    net = networks.convnet(width=16)
    x, labels = DRAW.standard_normal((32, 3, 12, 12)).astype(np.float32), np.ones((32, 2), int)
    with pytest.raises(onnxprune.DataError, match=r"ctc reads \(samples, steps, classes\)"):
        onnxprune.finetune(net, net, {"x": x}, labels=labels, criterion="ctc", steps=2)
    with pytest.raises(onnxprune.UsageError, match="blank is for labels of criterion ctc"):
        onnxprune.finetune(net, net, {"x": x}, labels=np.zeros(32, int), blank=1, steps=2)
