"""Networks of many families with a head over classes: what is cut, and what the result must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from tests.micro.build import Net

CLASSES = 12
KEPT = (1, 4, 7)
BOXES = 4

Arrays = dict[str, np.ndarray]
HEADS: dict[str, Callable[[], Head]] = {}


@dataclass(frozen=True)
class Head:
    """keep: of `TrimOptions`. expected: from the outputs of the original to those of the result.

    grows: the head shares its matrix with an embedding that stays, and gets one of its own.
    """

    model: onnx.ModelProto
    keep: dict[str, object]
    expected: Callable[[Arrays], Arrays]
    grows: bool = False


def head(function: Callable[[], Head]) -> Callable[[], Head]:
    """Register a network by the name of its function."""
    HEADS[function.__name__] = function
    return function


def taken(axis: int, first: int = 0, positions: tuple[int, ...] = KEPT) -> Callable[[Arrays], Arrays]:
    """The original's outputs at the kept positions of one axis, and all positions before the first class."""
    picked = [*range(first), *(first + p for p in positions)]
    return lambda outputs: {name: np.take(value, picked, axis=axis) for name, value in outputs.items()}


def renormalised(axis: int) -> Callable[[Arrays], Arrays]:
    """A softmax over what is left."""

    def expected(outputs: Arrays) -> Arrays:
        chosen = {name: np.take(value, KEPT, axis=axis) for name, value in outputs.items()}
        return {name: value / value.sum(axis=axis, keepdims=True) for name, value in chosen.items()}

    return expected


def backbone(net: Net, channels: int = 16, size: int = 8) -> str:
    x = net.input("n", 3, size, size)
    y = net.Relu(net.Conv(x, net.weight(channels, 3, 3, 3), net.weight(channels), pads=[1, 1, 1, 1]))
    return net.Relu(net.Conv(y, net.weight(channels, channels, 3, 3), net.weight(channels), pads=[1, 1, 1, 1]))


def features(net: Net) -> str:
    return net.Flatten(net.GlobalAveragePool(backbone(net)))


def linear(net: Net, x: str, outputs: int = CLASSES, width: int = 16) -> str:
    return net.Gemm(x, net.weight(outputs, width), net.weight(outputs), transB=1)


@head
def torch_linear() -> Head:
    net = Net()
    net.output(linear(net, features(net)))
    return Head(net.model(), {"OUT": "1,4,7"}, taken(1))


@head
def paddle_constants() -> Head:
    net = Net(opset=11, weights="constant")
    net.output(net.Softmax(net.Add(net.MatMul(features(net), net.weight(16, CLASSES)), net.weight(CLASSES)), axis=1))
    return Head(net.model(), {"OUT": "1,4,7"}, renormalised(1))


@head
def channels_last() -> Head:
    net = Net()
    x = net.input("n", 8, 8, 3)
    y = net.Relu(net.Conv(net.Transpose(x, perm=[0, 3, 1, 2]), net.weight(16, 3, 3, 3), net.weight(16)))
    y = net.Transpose(y, perm=[0, 2, 3, 1])
    y = net.ReduceMean(y, axes=[1, 2], keepdims=0)
    net.output(net.Sigmoid(net.Add(net.MatMul(y, net.weight(16, CLASSES)), net.weight(CLASSES))))
    return Head(net.model(), {"OUT": "1,4,7"}, taken(1))


@head
def convolution_head() -> Head:
    net = Net()
    y = net.Conv(net.GlobalAveragePool(backbone(net)), net.weight(CLASSES, 16, 1, 1), net.weight(CLASSES))
    net.output(net.LogSoftmax(net.Flatten(y), axis=1))

    def expected(outputs: Arrays) -> Arrays:
        chosen = {name: np.take(value, KEPT, axis=1) for name, value in outputs.items()}
        return {n: v - np.log(np.exp(v).sum(axis=1, keepdims=True)) for n, v in chosen.items()}

    return Head(net.model(), {"OUT": "1,4,7"}, expected)


@head
def characters() -> Head:
    net = Net()
    y = net.Transpose(backbone(net), perm=[0, 3, 1, 2])
    y = net.Reshape(y, net.constant(np.array([0, 8, 128])))
    y = net.Add(net.MatMul(y, net.weight(128, CLASSES)), net.weight(CLASSES))
    net.output(net.Softmax(y, axis=2))
    return Head(net.model(), {"OUT:2": "1,4,7"}, renormalised(2))


@head
def batch_norm_behind() -> Head:
    net = Net()
    y = linear(net, features(net))
    stored = [net.vector(CLASSES) for _ in range(4)]
    net.output(net.BatchNormalization(y, *stored))
    return Head(net.model(), {"OUT": "1,4,7"}, taken(1))


@head
def cosine_head() -> Head:
    net = Net()
    x = net.LpNormalization(features(net), axis=1, p=2)
    net.output(net.Mul(net.MatMul(x, net.weight(16, CLASSES)), net.number(30.0)))
    return Head(net.model(), {"OUT": "1,4,7"}, taken(1))


@head
def half_precision() -> Head:
    net = Net(dtype="half")
    net.output(net.Cast(linear(net, features(net)), to=onnx.TensorProto.FLOAT))
    return Head(net.model(), {"OUT": "1,4,7"}, taken(1))


@head
def quantized_head() -> Head:
    net = Net()
    x = features(net)
    levels = net.rng.integers(-127, 127, size=(CLASSES, 16)).astype(np.int8)
    scales = net.constant(net.rng.uniform(0.01, 0.02, size=CLASSES).astype(np.float32))
    zeros = net.constant(np.zeros(CLASSES, dtype=np.int8))
    weight = net.DequantizeLinear(net.constant(levels), scales, zeros, axis=0)
    net.output(net.Gemm(x, weight, net.weight(CLASSES), transB=1))
    return Head(net.model(), {"OUT": "1,4,7"}, taken(1))


@head
def two_outputs() -> Head:
    net = Net()
    x = features(net)
    logits = linear(net, x)
    net.output(logits, x)
    return Head(net.model(), {f"{logits}:1": "1,4,7"}, lambda o: {**o, logits: o[logits][:, list(KEPT)]})


@head
def label() -> Head:
    net = Net()
    logits = linear(net, features(net))
    best = net.ArgMax(logits, axis=1, keepdims=0)
    net.output(logits, best)

    def expected(outputs: Arrays) -> Arrays:
        chosen = outputs[logits][:, list(KEPT)]
        return {logits: chosen, best: np.asarray(KEPT)[chosen.argmax(axis=1)]}

    return Head(net.model(), {logits: "1,4,7"}, expected)


@head
def five_best() -> Head:
    net = Net()
    logits = linear(net, features(net))
    values, places = net.TopK(logits, net.constant(np.array([5])), axis=1, outputs=2)
    net.output(values, places)

    net.output(logits)

    def expected(outputs: Arrays) -> Arrays:
        chosen = outputs[logits][:, list(KEPT)]
        order = np.argsort(-chosen, axis=1)
        ranked = np.take_along_axis(chosen, order, axis=1)
        return {logits: chosen, values: ranked, places: np.asarray(KEPT)[order]}

    return Head(net.model(), {f"{logits}:1": "1,4,7"}, expected)


@head
def segmentation() -> Head:
    net = Net()
    y = net.Conv(backbone(net), net.weight(CLASSES, 16, 1, 1), net.weight(CLASSES))
    scales = net.constant(np.array([1, 1, 2, 2], dtype=np.float32))
    y = net.Resize(y, None, scales, mode="linear")
    net.output(y, net.ArgMax(y, axis=1, keepdims=0))

    def expected(outputs: Arrays) -> Arrays:
        chosen = outputs[y][:, list(KEPT)]
        return {name: chosen if name == y else np.asarray(KEPT)[chosen.argmax(axis=1)] for name in outputs}

    return Head(net.model(), {f"{y}:1": "1,4,7"}, expected)


def yolo5(net: Net) -> str:
    """Three anchors a cell, each with a box, how sure it is, and the classes; two scales."""
    deep = backbone(net)
    parts = []
    for level, x in enumerate((deep, net.MaxPool(deep, kernel_shape=[2, 2], strides=[2, 2]))):
        size = 8 >> level
        each = BOXES + 1 + CLASSES
        y = net.Conv(x, net.weight(3 * each, 16, 1, 1), net.weight(3 * each))
        y = net.Reshape(y, net.constant(np.array([-1, 3, each, size, size])))
        y = net.Sigmoid(net.Transpose(y, perm=[0, 1, 3, 4, 2]))
        place, shape, rest = net.Split(y, net.constant(np.array([2, 2, 1 + CLASSES])), axis=4, outputs=3)
        grid = net.constant(net.rng.normal(size=(1, 3, size, size, 2)).astype(np.float32))
        place = net.Mul(net.Add(net.Mul(place, net.number(2.0)), grid), net.number(8.0))
        shape = net.Mul(net.Pow(net.Mul(shape, net.number(2.0)), net.number(2.0)), grid)
        y = net.Concat(place, shape, rest, axis=4)
        parts.append(net.Reshape(y, net.constant(np.array([-1, 3 * size * size, each]))))
    return net.Concat(*parts, axis=1)


@head
def yolo5_head() -> Head:
    net = Net()
    net.output(yolo5(net))
    return Head(net.model(), {"OUT:2": "0-4,6,9,12"}, taken(2, BOXES + 1))


def yolo8(net: Net) -> tuple[str, str]:
    """A box as the mean of a distribution, and the classes, each from a branch of its own; two scales."""
    deep = backbone(net)
    parts = []
    for x in (deep, net.MaxPool(deep, kernel_shape=[2, 2], strides=[2, 2])):
        box = net.Conv(x, net.weight(BOXES * 8, 16, 1, 1), net.weight(BOXES * 8))
        classes = net.Conv(x, net.weight(CLASSES, 16, 1, 1), net.weight(CLASSES))
        y = net.Concat(box, classes, axis=1)
        parts.append(net.Reshape(y, net.constant(np.array([0, BOXES * 8 + CLASSES, -1]))))
    y = net.Concat(*parts, axis=2)
    box, classes = net.Split(y, net.constant(np.array([BOXES * 8, CLASSES])), axis=1, outputs=2)
    box = net.Reshape(box, net.constant(np.array([0, BOXES, 8, 80])))
    box = net.Softmax(net.Transpose(box, perm=[0, 2, 1, 3]), axis=1)
    box = net.Conv(box, net.constant(np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)))
    return net.Reshape(box, net.constant(np.array([0, BOXES, 80]))), net.Sigmoid(classes)


@head
def yolo8_head() -> Head:
    net = Net()
    net.output(net.Concat(*yolo8(net), axis=1))
    return Head(net.model(), {"OUT:1": "0-3,5,8,11"}, taken(1, BOXES))


@head
def yolo8_suppressed() -> Head:
    """Boxes and classes after NonMaxSuppression, as rows of (batch, class, box) and of coordinates with the class."""
    net = Net()
    boxes, scores = yolo8(net)
    turned = net.Transpose(boxes, perm=[0, 2, 1])
    limit = net.constant(np.array([5]))
    threshold = [net.constant(np.array([v], dtype=np.float32)) for v in (0.5, 0.2)]
    rows = net.NonMaxSuppression(turned, scores, limit, *threshold)
    kind = net.Gather(rows, net.constant(np.array([1])), axis=1)
    place = net.Gather(rows, net.constant(np.array([0, 2])), axis=1)
    box = net.GatherND(turned, place)
    score = net.Unsqueeze(net.GatherND(scores, rows), net.constant(np.array([1])))
    net.output(rows, net.Concat(box, score, net.Cast(kind, to=onnx.TensorProto.FLOAT), axis=1))

    def expected(outputs: Arrays) -> Arrays:
        chosen = np.isin(outputs[rows][:, 1], KEPT)
        return {name: value[chosen] for name, value in outputs.items()}

    return Head(net.model(), {f"{scores}:1": "1,4,7"}, expected)


@head
def boxes_by_top_k() -> Head:
    """The best boxes over all classes, ranked on the flat axis of boxes and classes, as end-to-end detectors do."""
    net = Net()
    boxes, scores = yolo8(net)
    turned, rows = net.Transpose(boxes, perm=[0, 2, 1]), net.Transpose(scores, perm=[0, 2, 1])
    flat = net.Reshape(rows, net.constant(np.array([0, 80 * CLASSES])))
    values, places = net.TopK(flat, net.constant(np.array([80 * CLASSES])), axis=1, outputs=2)
    count = net.constant(np.array(CLASSES))
    box = net.Unsqueeze(net.Div(places, count), net.constant(np.array([2])))
    box = net.GatherElements(turned, net.Tile(box, net.constant(np.array([1, 1, BOXES]))), axis=1)
    kind = net.Unsqueeze(net.Cast(net.Mod(places, count), to=onnx.TensorProto.FLOAT), net.constant(np.array([2])))
    found = net.Concat(box, net.Unsqueeze(values, net.constant(np.array([2]))), kind, axis=2)
    net.output(found)

    def expected(outputs: Arrays) -> Arrays:
        rows = [image[np.isin(image[:, -1], KEPT)] for image in outputs[found]]
        return {found: np.stack(rows)}

    return Head(net.model(), {f"{scores}:1": "1,4,7"}, expected)


@head
def single_shot() -> Head:
    """SSD: classes of every anchor from a convolution over several scales, a softmax over them."""
    net = Net()
    deep = backbone(net)
    parts = []
    for x in (deep, net.MaxPool(deep, kernel_shape=[2, 2], strides=[2, 2])):
        y = net.Conv(x, net.weight(2 * CLASSES, 16, 3, 3), net.weight(2 * CLASSES), pads=[1, 1, 1, 1])
        y = net.Transpose(y, perm=[0, 2, 3, 1])
        parts.append(net.Reshape(y, net.constant(np.array([0, -1, CLASSES]))))
    net.output(net.Softmax(net.Concat(*parts, axis=1), axis=2))
    return Head(net.model(), {"OUT:2": "1,4,7"}, renormalised(2))


@head
def dynamic_shape_head() -> Head:
    net = Net()
    y = net.Conv(backbone(net), net.weight(CLASSES, 16, 1, 1), net.weight(CLASSES))
    batch = net.Gather(net.Shape(y), net.constant(np.array([0])), axis=0)
    target = net.Concat(batch, net.constant(np.array([CLASSES])), net.constant(np.array([-1])), axis=0)
    net.output(net.ReduceMean(net.Reshape(y, target), axes=[2], keepdims=0))
    return Head(net.model(), {"OUT": "1,4,7"}, taken(1))


@head
def embedding_of_the_label() -> Head:
    """What was recognised picks a row of a table: rows of classes that went go too."""
    net = Net()
    logits = linear(net, features(net))
    best = net.ArgMax(logits, axis=1, keepdims=0)
    row = net.Gather(net.weight(CLASSES, 5, name="table"), best, axis=0)
    net.output(logits, row)

    def expected(outputs: Arrays) -> Arrays:
        return {logits: outputs[logits][:, list(KEPT)]}

    return Head(net.model(), {logits: "1,4,7"}, expected)


@head
def deconvolution_head() -> Head:
    net = Net()
    y = net.ConvTranspose(backbone(net), net.weight(16, CLASSES, 2, 2), net.weight(CLASSES), strides=[2, 2])
    net.output(net.Sigmoid(y))
    return Head(net.model(), {"OUT:1": "1,4,7"}, taken(1))
