"""Heads of other exporters: labels out of tables, numbers of what is not zero, shared matrices, loops in front."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.micro.build import Net
from tests.trimming.heads import CLASSES, KEPT, Arrays, Head, features, head, linear, renormalised, taken, yolo8

ML = "ai.onnx.ml"


def relabelled(numbers: np.ndarray) -> np.ndarray:
    """Old numbers of numbers that count what is kept."""
    return np.asarray(KEPT)[numbers]


@head
def array_of_labels() -> Head:
    """The label of the best class out of a list, as converters of decision trees and linear models write it."""
    net = Net()
    net.domains[ML] = 3
    scores = linear(net, features(net))
    best = net.ArgMax(scores, axis=1, keepdims=1)
    label = net.op("ArrayFeatureExtractor", net.constant(np.arange(100, 100 + CLASSES)), best, domain=ML)
    label = net.Reshape(label, net.constant(np.array([-1])))
    net.output(scores, label)

    def expected(outputs: Arrays) -> Arrays:
        chosen = outputs[scores][:, list(KEPT)]
        return {scores: chosen, label: 100 + relabelled(chosen.argmax(axis=1))}

    return Head(net.model(), {f"{scores}:1": "1,4,7"}, expected)


@head
def encoded_label() -> Head:
    net = Net()
    net.domains[ML] = 3
    scores = linear(net, features(net))
    table = {"keys_int64s": list(range(CLASSES)), "values_int64s": [7 * number for number in range(CLASSES)]}
    label = net.op("LabelEncoder", net.ArgMax(scores, axis=1, keepdims=0), domain=ML, **table)
    net.output(scores, label)

    def expected(outputs: Arrays) -> Arrays:
        chosen = outputs[scores][:, list(KEPT)]
        return {scores: chosen, label: 7 * relabelled(chosen.argmax(axis=1))}

    return Head(net.model(), {f"{scores}:1": "1,4,7"}, expected)


@head
def above_a_threshold() -> Head:
    """Which classes are there, as rows and columns of what is not zero."""
    net = Net()
    scores = net.Sigmoid(linear(net, features(net)))
    places = net.NonZero(net.Greater(scores, net.number(0.5)))
    net.output(scores, places)

    def expected(outputs: Arrays) -> Arrays:
        chosen = outputs[scores][:, list(KEPT)]
        rows, columns = np.nonzero(chosen > 0.5)
        return {scores: chosen, places: np.stack([rows, relabelled(columns)])}

    return Head(net.model(), {f"{scores}:1": "1,4,7"}, expected)


@head
def boxes_above_a_threshold() -> Head:
    """The same for every box, turned into rows of (image, class, box), which pick the scores."""
    net = Net()
    _, scores = yolo8(net)
    rows = net.transpose(net.NonZero(net.Greater(scores, net.number(0.6))), 1, 0)
    picked = net.GatherND(scores, rows)
    net.output(scores, rows, picked)

    def expected(outputs: Arrays) -> Arrays:
        chosen = outputs[scores][:, list(KEPT)]
        found = np.stack(np.nonzero(chosen > np.float32(0.6)), axis=1)
        values = chosen[tuple(found.T)]
        found[:, 1] = relabelled(found[:, 1])
        return {scores: chosen, rows: found, picked: values}

    return Head(net.model(), {f"{scores}:1": "1,4,7"}, expected)


@head
def the_class_column_alone() -> Head:
    """Of what is not zero only the column of the class leaves the model."""
    net = Net()
    scores = net.Sigmoid(linear(net, features(net)))
    column = net.Gather(net.NonZero(net.Greater(scores, net.number(0.5))), net.constant(np.array([1])), axis=0)
    net.output(scores, column)

    def expected(outputs: Arrays) -> Arrays:
        chosen = outputs[scores][:, list(KEPT)]
        return {scores: chosen, column: relabelled(np.nonzero(chosen > 0.5)[1])[None]}

    return Head(net.model(), {f"{scores}:1": "1,4,7"}, expected)


def one_score(index: int) -> Head:
    """One class leaves the model by itself."""
    net = Net()
    scores = net.Sigmoid(linear(net, features(net)))
    single = net.Gather(scores, net.constant(np.array(index)), axis=1)
    net.output(scores, single)
    return Head(net.model(), {f"{scores}:1": "1,4,7"}, lambda o: {scores: o[scores][:, list(KEPT)], single: o[single]})


@head
def one_class_alone() -> Head:
    return one_score(4)


@head
def one_class_from_the_end() -> Head:
    return one_score(7 - CLASSES)


@head
def first_kept_class_alone() -> Head:
    return one_score(1)


def tied(style: str, gemm: bool) -> Head:
    """Scores over the rows of the embedding that the ids look up; the embedding stays whole."""
    net = Net(weights=style)
    ids = net.input("n", name="ids", dtype=np.int64) if gemm else net.input("n", 5, name="ids", dtype=np.int64)
    table = net.weight(40, 16)
    x = net.Relu(net.linear(net.Gather(table, ids, axis=0), 16, 16))
    net.output(
        net.Gemm(x, table, net.weight(40), transB=1) if gemm else net.MatMul(x, net.Transpose(table, perm=[1, 0]))
    )
    return Head(net.model(), {"OUT:1": "1,4,7"} if gemm else {"OUT:2": "1,4,7"}, taken(1 if gemm else 2), grows=True)


@head
def tied_transposed() -> Head:
    return tied("initializer", False)


@head
def tied_gemm() -> Head:
    return tied("initializer", True)


@head
def tied_constants() -> Head:
    return tied("constant", False)


def after_a_loop(sizes: str | int, *, scans: bool = False) -> Head:
    """A loop that treats the input stands before the network, as map_fn of preprocessing does."""
    net, child = Net(), Net()
    x = net.input("n", 16)
    child = net.child()
    shape = [sizes, 16]
    child.inputs = [
        helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
        helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", onnx.TensorProto.FLOAT, shape),
    ]
    changed, go = child.op("Mul", "state", child.number(0.9)), child.op("Identity", "go")
    child.outputs = {go: None, changed: None}
    types = [(onnx.TensorProto.BOOL, []), (onnx.TensorProto.FLOAT, shape)]
    if scans:
        child.outputs[child.op("ReduceSum", changed, child.constant(np.array([1])), keepdims=0)] = None
        types.append((onnx.TensorProto.FLOAT, [sizes]))
    body = child.graph(types)
    found = net.Loop(net.constant(np.array(3)), net.constant(np.array(True)), x, body=body, outputs=1 + scans)
    scores = net.Softmax(linear(net, found[0] if scans else found), axis=1)
    net.output(scores)
    return Head(net.model(), {f"{scores}:1": "1,4,7"}, renormalised(1))


@head
def loop_in_front() -> Head:
    return after_a_loop("n")


@head
def loop_in_front_of_other_names() -> Head:
    return after_a_loop("rows")


@head
def loop_in_front_that_collects() -> Head:
    return after_a_loop("n", scans=True)
