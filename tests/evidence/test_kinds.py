"""What an output is, by the graph and by its values: hand-made networks of every kind, three of most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnxprune.evidence.classes import Classes, expected_gap
from onnxprune.evidence.kinds import Kind, output_kinds
from onnxprune.evidence.parity import Meter
from onnxprune.graph.model import load
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from tests.micro.build import Net


def kinds(proto: onnx.ModelProto) -> list[Kind]:
    view = View(load(proto))
    return list(output_kinds(view, trace(view)).values())


def finished(net: Net, *outputs: str) -> onnx.ModelProto:
    net.output(*outputs)
    return net.model()


def tagger(size: int = 5, squash: str = "Sigmoid") -> onnx.ModelProto:
    net = Net()
    return finished(net, net.op(squash, net.gemm(net.input("batch", 8), 8, size)))


def pooled_tagger() -> onnx.ModelProto:
    net = Net()
    pooled = net.GlobalAveragePool(net.conv(net.input("batch", 3, 8, 8), 3, 6))
    return finished(net, net.Softmax(net.gemm(net.Flatten(pooled), 6, 7), axis=-1))


def written_out() -> onnx.ModelProto:
    net = Net()
    raised = net.Exp(net.gemm(net.input("batch", 8), 8, 5))
    return finished(net, net.Div(raised, net.reduce("Sum", raised, [1])))


def written_out_by_tensorflow() -> onnx.ModelProto:
    net = Net()
    y = net.gemm(net.input("batch", 8), 8, 5)
    raised = net.Exp(net.Sub(y, net.reduce("Max", y, [1])))
    total = net.reduce("Sum", raised, [1], keepdims=0)
    return finished(net, net.Div(raised, net.Expand(net.unsqueeze(total, 1), net.Shape(y))))


def in_a_branch() -> onnx.ModelProto:
    net = Net()
    x = net.input("batch", 8)
    bodies = []
    for _ in range(2):
        body = net.child()
        body.output(body.Softmax(body.gemm(x, 8, 5), axis=-1), shape=("batch", 5))
        bodies.append(body.graph())
    chosen = net.Greater(net.reduce("Sum", x, [0, 1], keepdims=0), net.number(0))
    return finished(net, net.If(chosen, then_branch=bodies[0], else_branch=bodies[1]))


def segmenter() -> onnx.ModelProto:
    net = Net()
    return finished(net, net.Softmax(net.conv(net.input("batch", 3, 8, 8), 3, 5), axis=1))


def ctc(log: bool, convolution: bool = False) -> onnx.ModelProto:
    net = Net()
    x = net.input("batch", 12, 8)
    if convolution:
        y = net.Conv(net.transpose(x, 0, 2, 1), net.weight(11, 8, 3), net.weight(11), pads=[1, 1])
        y = net.transpose(y, 0, 2, 1)
    else:
        y = net.linear(x, 8, 11)
    return finished(net, net.LogSoftmax(y, axis=-1) if log else net.Softmax(y, axis=2))


@pytest.mark.parametrize(
    ("make", "axis", "squash"),
    [
        (tagger, 1, "sigmoid"),
        (lambda: tagger(squash="Softmax"), 1, "softmax"),
        (lambda: tagger(squash="LogSoftmax"), 1, "log"),
        (pooled_tagger, 1, "softmax"),
        (written_out, 1, "softmax"),
        (written_out_by_tensorflow, 1, "softmax"),
        (in_a_branch, 1, "softmax"),
        (segmenter, 1, "softmax"),
        (lambda: ctc(log=True), 2, "log"),
        (lambda: ctc(log=False), 2, "softmax"),
        (lambda: ctc(log=True, convolution=True), 2, "log"),
    ],
)
def test_scores_over_classes_are_read_from_the_graph(
    make: Callable[[], onnx.ModelProto], axis: int, squash: str
) -> None:
    assert kinds(make()) == [Kind("scores", axis, squash)]


def normalised() -> onnx.ModelProto:
    net = Net()
    y = net.gemm(net.input("batch", 8), 8, 64)
    return finished(net, net.Div(y, net.reduce("L2", y, [1])))


def projected() -> onnx.ModelProto:
    net = Net()
    return finished(net, net.linear(net.input("batch", 32), 32, 64, bias=False))


def face_embedding() -> onnx.ModelProto:
    net = Net()
    return finished(net, net.norm(net.gemm(net.input("batch", 8), 8, 64), 64))


def super_resolution() -> onnx.ModelProto:
    net = Net()
    return finished(net, net.conv(net.Relu(net.conv(net.input("batch", 3, 8, 8), 3, 6)), 6, 3))


def mask() -> onnx.ModelProto:
    net = Net()
    return finished(net, net.Sigmoid(net.conv(net.input("batch", 3, 8, 8), 3, 1)))


def voice_probability() -> onnx.ModelProto:
    net = Net()
    return finished(net, net.Sigmoid(net.gemm(net.input("batch", 8), 8, 1)))


def frames_of_keys() -> onnx.ModelProto:
    net = Net()
    return finished(net, net.Sigmoid(net.linear(net.input("batch", 12, 8), 8, 6)))


def attention_map() -> onnx.ModelProto:
    net = Net()
    x = net.input("batch", 2, 6, 4)
    return finished(net, net.Softmax(net.MatMul(x, net.transpose(net.Relu(x), 0, 1, 3, 2)), axis=-1))


def waveform() -> onnx.ModelProto:
    net = Net()
    return finished(net, net.Tanh(net.Conv(net.input("batch", 4, 16), net.weight(1, 4, 3), pads=[1, 1])))


VALUES = [
    normalised, projected, face_embedding, super_resolution, mask, voice_probability, frames_of_keys, attention_map,
    waveform,
]  # fmt: skip


@pytest.mark.parametrize("make", VALUES)
def test_embeddings_images_masks_and_waves_have_no_classes(make: Callable[[], onnx.ModelProto]) -> None:
    (kind,) = kinds(make())
    assert kind.name == "values"
    meter = Meter(kind)
    meter.add(np.ones((9, 4)), np.ones((9, 4)))
    figures = meter.result()
    assert figures is not None and figures.agreement is None


def voice_detector(names: tuple[str, str]) -> onnx.ModelProto:
    net = Net()
    x, state = net.input("batch", 8), net.input("batch", 6, name=names[0])
    hidden = net.Tanh(net.Add(net.gemm(x, 8, 6), net.gemm(state, 6, 6)))
    after = net.op("Identity", hidden)
    net.nodes[-1].output[0] = names[1]
    return finished(net, net.Sigmoid(net.gemm(after and hidden, 6, 1)), names[1])


def recurrent() -> onnx.ModelProto:
    net = Net()
    x = net.input(5, "batch", 4)
    y, last, cell = net.LSTM(x, net.weight(1, 24, 4), net.weight(1, 24, 6), hidden_size=6, outputs=3)
    return finished(net, net.squeeze(y, 1), last, cell)


def cached() -> onnx.ModelProto:
    net = Net()
    x, past = net.input("batch", 4, name="x"), net.input("batch", 7, 4, name="memory")
    present = net.Concat(past, net.unsqueeze(net.gemm(x, 4, 4), 1), axis=1)
    return finished(net, net.gemm(net.Relu(x), 4, 3), present)


@pytest.mark.parametrize(
    ("make", "states"),
    [
        (lambda: voice_detector(("state", "stateN")), [1]),
        (lambda: voice_detector(("h_in", "h_out")), [1]),
        (lambda: voice_detector(("h0", "hn")), [1]),
        (recurrent, [1, 2]),
        (cached, [1]),
    ],
)
def test_states_that_are_fed_back_are_told_from_results(make: Callable[[], onnx.ModelProto], states: list[int]) -> None:
    found = kinds(make())
    assert [index for index, kind in enumerate(found) if kind.name == "state"] == states


def test_a_state_whose_size_no_inference_finds_is_one() -> None:
    """A condition that only the data decide, branches of different ranks: what is declared counts."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        agraph (float[b, 4] x, float[2, c, 4] state, int64 rate) => (float[b, 4] y, float[p, q, r] stateN) {
            wanted = Constant <value = int64 {16000}> ()
            fast = Equal (rate, wanted)
            next = If (fast) <
                then_branch = one () => (float[p, q, r] a) { d = Shape (x)  a = Reshape (state, d) },
                else_branch = two () => (float[p, q, r] c) { c = Relu (state) } >
            stateN = Identity (next)
            y = Relu (x)
        }""")
    assert kinds(model) == [Kind("values"), Kind("state")]


def detector(by: str) -> onnx.ModelProto:
    net = Net()
    features = net.conv(net.input(1, 3, 8, 8), 3, 6)
    scores = net.reshape(net.Sigmoid(net.conv(features, 6, 1)), 1, 1, 64)
    boxes = net.transpose(net.reshape(net.conv(features, 6, 4), 1, 4, 64), 0, 2, 1)
    if by == "TopK":
        values, places = net.TopK(scores, np.array([9]), axis=2, outputs=2)
        return finished(net, values, net.Gather(boxes, net.reshape(places, 9), axis=1), places)
    if by == "NonMaxSuppression":
        limits = np.array(9), np.array(0.5, np.float32), np.array(0.1, np.float32)
        chosen = net.NonMaxSuppression(boxes, scores, *limits)
        return finished(net, chosen, net.Gather(boxes, net.reshape(net.slice(chosen, 2, 3), -1), axis=1))
    places = net.transpose(net.NonZero(net.Greater(net.reshape(scores, 64), net.number(0.5))), 1, 0)
    return finished(net, net.GatherND(net.reshape(boxes, 64, 4), places))


@pytest.mark.parametrize("by", ["TopK", "NonMaxSuppression", "NonZero"])
def test_what_follows_a_sort_is_a_list(by: str) -> None:
    assert {kind.name for kind in kinds(detector(by))} == {"sorted"}


def test_integers_are_labels() -> None:
    net = Net()
    proto = finished(net, net.ArgMax(net.gemm(net.input("batch", 8), 8, 5), axis=1))
    assert kinds(proto) == [Kind("labels")]


@pytest.mark.parametrize("how", ["pixels", "quantized", "rounded"])
def test_integers_that_were_rounded_are_numbers(how: str) -> None:
    net = Net()
    x = net.conv(net.input("batch", 3, 8, 8), 3, 3)
    zero = net.constant(np.array(128, np.uint8))
    made = {
        "pixels": lambda: net.Identity(net.Cast(net.Clip(x, net.number(0), net.number(255)), to=2)),
        "quantized": lambda: net.transpose(net.QuantizeLinear(x, net.number(0.1), zero), 0, 2, 3, 1),
        "rounded": lambda: net.Cast(net.Round(x), to=7),
    }[how]()
    assert kinds(finished(net, made)) == [Kind("values")]


@pytest.mark.parametrize("how", ["ids", "bytes", "decisions", "rows"])
def test_integers_that_name_something_are_labels(how: str) -> None:
    net = Net()
    x = net.gemm(net.input("batch", 8), 8, 5)
    best = net.ArgMax(x, axis=1, keepdims=0)
    made = {
        "ids": lambda: net.Gather(net.constant(np.arange(5) * 7), best),
        "bytes": lambda: net.Cast(best, to=2),
        "decisions": lambda: net.Cast(net.Greater(x, net.number(0.5)), to=6),
        "rows": lambda: net.Greater(x, net.number(0.5)),
    }[how]()
    assert kinds(finished(net, made)) == [Kind("labels")]


def open_head(size: int, name: str = "y") -> onnx.ModelProto:
    net = Net()
    net.gemm(net.input("batch", 8), 8, size)
    net.nodes[-1].output[0] = name
    return finished(net, name)


def test_a_name_decides_only_what_the_graph_leaves_open() -> None:
    assert kinds(open_head(10)) == [Kind("scores", 1, sure=False)]
    assert kinds(open_head(10, "class_logits")) == [Kind("scores", 1)]
    assert kinds(open_head(10, "face_landmarks")) == [Kind("values")]
    net = Net()
    net.Softmax(net.gemm(net.input("batch", 8), 8, 5), axis=-1)
    net.nodes[-1].output[0] = "embedding"
    assert kinds(finished(net, "embedding")) == [Kind("scores", 1, "softmax")]


def landmarks(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.asarray(rng.uniform(0, 100, size) + rng.standard_normal((40, size)))


def trained(rng: np.random.Generator, size: int) -> np.ndarray:
    scores = rng.standard_normal((40, size))
    scores[np.arange(40), rng.integers(0, size, 40)] += 6
    return np.asarray(scores)


def embedding(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.asarray(rng.standard_normal((40, size)))


@pytest.mark.parametrize(
    ("draw", "size", "scores"),
    [
        (landmarks, 10, False), (landmarks, 136, False), (landmarks, 3, False), (embedding, 64, False),
        (embedding, 128, False), (embedding, 512, False), (trained, 10, True), (trained, 64, True),
        (trained, 1000, True),
    ],
)  # fmt: skip
def test_values_decide_what_the_graph_leaves_open(
    draw: Callable[[np.random.Generator, int], np.ndarray], size: int, scores: bool
) -> None:
    values = draw(np.random.default_rng(0), size)
    meter = Meter(Kind("scores", 1, sure=False))
    meter.add(values, values)
    figures = meter.result()
    assert figures is not None
    assert figures.agreement == (1.0 if scores else None) and figures.kind == ("scores" if scores else "values")


@pytest.mark.parametrize("size", [8, 64, 1000])
def test_the_expected_gap_is_that_of_normal_values(size: int) -> None:
    top = np.sort(np.random.default_rng(0).standard_normal((4000, size)), axis=1)
    assert expected_gap(size) == pytest.approx(float((top[:, -1] - top[:, -2]).mean()), rel=0.25)


def test_a_position_without_numbers_agrees_with_nothing() -> None:
    classes = Classes()
    classes.add(np.array([[1.0, np.nan], [2.0, 1.0]]), np.array([[1.0, np.nan], [2.0, 1.0]]), 1)
    assert classes.agreement == 0.5


def test_a_deep_graph_takes_no_deep_stack() -> None:
    """Two thousand residual sums before a head, and as many Identity nodes before its weights."""
    net = Net()
    x = net.input("batch", 8)
    for _ in range(2000):
        x = net.Add(net.Relu(x), x)
    weight = net.weight(8, 5)
    for _ in range(2000):
        weight = net.Identity(weight)
    proto = finished(net, net.Softmax(net.MatMul(x, weight), axis=-1))
    assert kinds(proto) == [Kind("scores", 1, "softmax")]
    view = View(load(proto))
    assert [node.op_type for node in view.users(next(iter(view.parameters)))] == ["MatMul"]
