"""A wrong model is found wrong behind every kind of step, and a right one is found right there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.channels.context import Context
from onnxprune.channels.registry import RULES
from onnxprune.evidence.compare import open_reference
from onnxprune.evidence.masked import CEILING, MaskedParity, _judged, masked_parity
from onnxprune.evidence.oracle import masked_model
from onnxprune.graph.model import Model, load
from onnxprune.methods.result import PruneResult
from tests import plain
from tests.micro import CASES
from tests.micro.build import Net

Draw = Callable[[Net, str], None]


def backbone(net: Net) -> str:
    """Add two branches that meet in a Concat: (1, 8, 6, 6), all widths but the last prunable."""
    x = net.input(1, 3, 6, 6)
    one, two = net.Relu(net.conv(x, 3, 8)), net.Relu(net.conv(x, 3, 12))
    return net.conv(net.Concat(one, two, axis=1), 20, 8)


def greater(net: Net, x: str) -> None:
    net.output(net.Where(net.Greater(x, net.number(0.1)), net.number(1), net.number(0)))


def masked_by_threshold(net: Net, x: str) -> None:
    weak = net.LessOrEqual(net.Abs(x), net.number(0.2))
    net.output(net.conv(net.Where(weak, net.number(0), x), 8, 4))


def equal_to_its_largest(net: Net, x: str) -> None:
    net.output(net.Cast(net.Equal(x, net.reduce("Max", x, [1])), to=1))


def quantized(net: Net, x: str) -> None:
    """Quantize and dequantize around a prunable layer, as a QDQ model does."""
    for inner, outer in ((8, 16), (16, 4)):
        integers = net.QuantizeLinear(x, net.number(0.02), net.constant(np.array(128, np.uint8)))
        x = net.conv(
            net.DequantizeLinear(integers, net.number(0.02), net.constant(np.array(128, np.uint8))), inner, outer
        )
        x = net.Relu(x) if outer == 16 else x
    net.output(x)


def dynamically_quantized(net: Net, x: str) -> None:
    integers, scale, zero = net.DynamicQuantizeLinear(net.Relu(net.conv(x, 8, 16)), outputs=3)
    net.output(net.conv(net.DequantizeLinear(integers, scale, zero), 16, 4))


def rounded(net: Net, x: str) -> None:
    net.output(net.Round(net.Mul(x, net.number(40))), net.Floor(net.Mul(net.conv(net.Relu(x), 8, 3), net.number(9))))


def truncated(net: Net, x: str) -> None:
    net.output(net.Cast(net.Mul(x, net.number(10)), to=onnx.TensorProto.INT32))


def best(net: Net, x: str) -> None:
    values, places = net.TopK(net.reshape(x, 1, -1), np.array([12]), axis=1, outputs=2)
    net.output(values, places)


def gathered_by_rank(net: Net, x: str) -> None:
    scores = net.reshape(net.Sigmoid(net.conv(x, 8, 1)), 1, 36)
    boxes = net.transpose(net.reshape(net.conv(x, 8, 4), 1, 4, 36), 0, 2, 1)
    _, places = net.TopK(scores, np.array([9]), axis=1, outputs=2)
    net.output(net.Gather(boxes, net.reshape(places, 9), axis=1))


def suppressed(net: Net, x: str) -> None:
    scores = net.reshape(net.Sigmoid(net.conv(x, 8, 2)), 1, 2, 36)
    boxes = net.transpose(net.reshape(net.conv(x, 8, 4), 1, 4, 36), 0, 2, 1)
    limits = np.array(9), np.array(0.5, np.float32), np.array(0.1, np.float32)
    net.output(net.NonMaxSuppression(boxes, scores, *limits))


def labelled(net: Net, x: str) -> None:
    net.output(net.ArgMax(x, axis=1, keepdims=0))


def found(net: Net, x: str) -> None:
    net.output(net.NonZero(net.Greater(x, net.number(0.3))))


def thresholded(net: Net, x: str) -> None:
    net.output(net.conv(net.ThresholdedRelu(net.conv(x, 8, 16), alpha=0.5), 16, 4))


def two_steps(net: Net, x: str) -> None:
    """Sort what a rounded tensor gives."""
    integers = net.Round(net.Mul(net.Relu(net.conv(x, 8, 16)), net.number(20)))
    net.output(net.ArgMax(net.conv(integers, 16, 5), axis=1))


def in_a_branch(net: Net, x: str) -> None:
    """Choose a branch by what is computed, and round there."""
    body = net.child()
    body.output(body.Relu(net.conv(x, 8, 4)))
    other = net.child()
    other.output(other.Floor(net.conv(x, 8, 4)))
    positive = net.Greater(net.reduce("Sum", x, [0, 1, 2, 3], keepdims=0), net.number(-1e9))
    net.output(net.If(positive, then_branch=body.graph(), else_branch=other.graph()))


def hashed(net: Net, x: str) -> None:
    net.output(net.Mod(net.Cast(net.Mul(x, net.number(1000)), to=onnx.TensorProto.INT64), np.array(13)))


def binarized(net: Net, x: str) -> None:
    net.output(net.op("Binarizer", net.reshape(x, 8, 36), domain="ai.onnx.ml", threshold=0.1))


def decided_by_a_tree(net: Net, x: str) -> None:
    nodes = {"treeids": [0] * 3, "nodeids": [0, 1, 2], "featureids": [1, 0, 0], "values": [0.1, 0.0, 0.0]}
    nodes |= {"truenodeids": [1, 0, 0], "falsenodeids": [2, 0, 0], "modes": ["BRANCH_LEQ", "LEAF", "LEAF"]}
    leaves = {"treeids": [0, 0], "nodeids": [1, 2], "ids": [0, 0], "weights": [-1.0, 1.0]}
    tree = {f"nodes_{name}": value for name, value in nodes.items()}
    tree |= {f"target_{name}": value for name, value in leaves.items()}
    rows = net.reshape(net.transpose(x, 0, 2, 3, 1), 36, 8)
    net.output(net.op("TreeEnsembleRegressor", rows, domain="ai.onnx.ml", n_targets=1, **tree))


def without_a_number(net: Net, x: str) -> None:
    net.output(net.Where(net.IsNaN(net.Log(x)), net.number(0), net.number(1)))


def without_an_end(net: Net, x: str) -> None:
    net.output(net.IsInf(net.Exp(net.Mul(x, net.number(200)))))


def rounded_to_half(net: Net, x: str) -> None:
    net.output(net.Cast(net.Cast(x, to=onnx.TensorProto.FLOAT16), to=onnx.TensorProto.FLOAT))


def cast_like_an_integer(net: Net, x: str) -> None:
    net.output(net.CastLike(net.Mul(x, net.number(10)), np.array(1, np.int32)))


def embedded(net: Net, x: str) -> None:
    y = net.gemm(net.Flatten(net.GlobalAveragePool(net.Relu(x))), 8, 16)
    net.output(net.Div(y, net.reduce("L2", y, [1])))


def classified(net: Net, x: str) -> None:
    net.output(net.Softmax(net.gemm(net.Flatten(net.GlobalAveragePool(net.Relu(x))), 8, 5), axis=-1))


def detected(net: Net, x: str) -> None:
    net.output(net.Sigmoid(net.conv(x, 8, 2)), net.Mul(net.conv(x, 8, 4), net.number(300)))


def recurrent_state(net: Net, x: str) -> None:
    steps = net.transpose(net.reshape(x, 1, 8, 36), 2, 0, 1)
    hidden, last, _ = net.LSTM(steps, net.weight(1, 24, 8), net.weight(1, 24, 6), hidden_size=6, outputs=3)
    net.output(hidden, last)


STEPS: list[Draw] = [
    greater, masked_by_threshold, equal_to_its_largest, quantized, dynamically_quantized, rounded, truncated, best,
    gathered_by_rank, suppressed, labelled, found, thresholded, two_steps, in_a_branch, hashed, binarized,
    decided_by_a_tree, without_a_number, without_an_end, rounded_to_half, cast_like_an_integer,
]  # fmt: skip


def drawn(draw: Draw) -> Model:
    net = Net()
    draw(net, backbone(net))
    return load(net.model())


def pruned(model: Model) -> PruneResult:
    return plain.prune(model, ratio=0.5, align=1, exact_only=True, score="random", seed=3, compensate="none")


def checked(result: PruneResult, model: Model, other: onnx.ModelProto | None = None) -> MaskedParity:
    reference = open_reference(model, threads=1, samples=2)
    after = result.model if other is None else load(other)
    return masked_parity(reference, masked_model(result.channels, result.keep), after, result.channels.view, threads=1)


def scaled(proto: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """Return a copy in which the first convolution is wrong in one channel."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    weight = next(tensor for tensor in copy.graph.initializer if len(tensor.dims) == 4)
    values = numpy_helper.to_array(weight).copy()
    values[0] *= np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return copy


@pytest.mark.parametrize("draw", STEPS, ids=lambda draw: draw.__name__)
def test_behind_a_step_a_right_model_passes_and_a_wrong_one_fails(draw: Draw) -> None:
    model = drawn(draw)
    result = pruned(model)
    right = checked(result, model)
    assert not right.failed and not right.unsure, right
    assert right.inner and right.worst <= right.tolerance <= CEILING
    for factor in (1.2, 1.02):  # the small one moves few values over an edge: what enters the step shows it
        wrong = checked(result, model, scaled(result.model.proto, factor))
        assert wrong.failed, wrong


@pytest.mark.parametrize("draw", STEPS, ids=lambda draw: draw.__name__)
def test_behind_a_step_a_wrong_rule_is_found(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Concat whose channels stand in the wrong order: widths fit, values do not."""
    original = RULES["", "Concat"]

    def backwards(ctx: Context) -> None:
        put = ctx.set
        monkeypatch.setattr(ctx, "set", lambda axes, *rest, **more: put([ids[::-1] for ids in axes], *rest, **more))
        original(ctx)

    model = drawn(draw)
    monkeypatch.setitem(RULES, ("", "Concat"), backwards)
    outcome = checked(pruned(model), model)
    assert outcome.failed and not outcome.unsure


def test_a_tolerance_is_never_measured_above_the_ceiling() -> None:
    errors = {"a": 0.9, "b": 0.005, "c": 0.9, "d": 2e-4, "e": float("nan"), "f": 1e-6}
    found = _judged(errors, lambda: {"a": 1.0, "b": 1.0, "d": 1e-6}, ())
    assert found.tolerance == CEILING
    assert found.unsure == ("a", "e") and found.failed == ("c", "d"), (
        "beyond 30 times the noise is wrong, however small"
    )


def test_noise_is_measured_only_where_it_decides() -> None:
    def never() -> dict[str, float]:
        raise AssertionError("the errors are small enough by themselves")

    assert _judged({"a": 1e-6}, never, ()).failed == ()


def test_widths_of_held_tensors_follow_the_plan() -> None:
    model = drawn(quantized)
    result = pruned(model)
    masked = masked_model(result.channels, result.keep)
    kept = {name: [len(k) for k in masked.kept(name) or () if k is not None] for name in checked(result, model).inner}
    assert sorted(kept.values()) == [[4], [8]], "half of 8 and half of 16"


def amplified() -> Model:
    """A step hidden in the body of a Loop, on what is computed there: it can be seen only from outside."""
    net = Net()
    x = backbone(net)
    body = net.child()
    turn, going = body.input(name="turn", dtype=np.int64), body.input(name="going", dtype=bool)
    carried = body.input(1, 8, 6, 6, name="carried")
    del turn
    body.output(body.op("Identity", going), body.Floor(body.Mul(carried, net.number(3.3))))
    types = [(onnx.TensorProto.BOOL, ()), (onnx.TensorProto.FLOAT, (1, 8, 6, 6))]
    net.output(net.Loop(np.array(3), np.array(True), net.op("Identity", x), body=body.graph(types)))
    return load(net.model())


def test_a_step_inside_a_loop_excuses_nothing_that_rounding_does_not_explain() -> None:
    model = amplified()
    result = pruned(model)
    assert not checked(result, model).failed
    assert checked(result, model, scaled(result.model.proto, -3.0)).failed


def test_scores_beside_large_boxes_are_not_lost() -> None:
    """(1, 36, 5): four coordinates up to hundreds of pixels, and a score of which the last layer is wrong."""
    net = Net()
    x = backbone(net)
    boxes = net.Mul(net.conv(x, 8, 4), net.number(400))
    net.output(net.transpose(net.reshape(net.Concat(boxes, net.Sigmoid(net.conv(x, 8, 1)), axis=1), 1, 5, 36), 0, 2, 1))
    model = load(net.model())
    result = pruned(model)
    assert not checked(result, model).failed
    other = onnx.ModelProto()
    other.CopyFrom(result.model.proto)
    weight = next(tensor for tensor in other.graph.initializer if list(tensor.dims) == [1, 4, 3, 3])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(-1), weight.name))
    assert checked(result, model, other).failed


@pytest.mark.parametrize("draw", [embedded, classified, detected, recurrent_state], ids=lambda draw: draw.__name__)
def test_without_a_step_a_wrong_model_fails_as_well(draw: Draw) -> None:
    model = drawn(draw)
    result = pruned(model)
    right = checked(result, model)
    assert not right.failed and not right.unsure
    assert checked(result, model, scaled(result.model.proto, 1.2)).failed


@pytest.mark.parametrize("last", ["Softmax", "Sigmoid", "Tanh"])
def test_an_output_that_saturates_is_judged_before_that(last: str) -> None:
    """Scores of 1e5 leave zeros and ones, whatever the weights are."""
    net = Net()
    y = net.gemm(net.Flatten(net.Relu(backbone(net))), 288, 3)
    far = net.constant(np.array([[1e5, 3e5, 2e5]], np.float32))
    net.output(net.op(last, net.Add(net.Mul(y, net.number(100)), far)))
    model = load(net.model())
    result = pruned(model)
    right = checked(result, model)
    assert not right.failed and not right.unsure and right.inner
    assert checked(result, model, scaled(result.model.proto, 50.0)).failed


@pytest.mark.parametrize("zero", ["Mul", "And", "Clip"])
def test_what_does_not_depend_on_the_weights_judges_nothing(zero: str) -> None:
    net = Net()
    x = backbone(net)
    if zero == "Mul":
        net.output(net.Mul(x, net.number(0)))
    elif zero == "And":
        net.output(net.And(net.Greater(x, net.number(1e9)), net.Less(x, net.number(-1e9))))
    else:
        net.output(net.Clip(net.Mul(x, net.number(0)), net.number(1), net.number(2)))
    model = load(net.model())
    found = checked(pruned(model), model)
    assert not found.failed
    assert found.blind == bool(found.unsure) == (zero != "And"), "what enters a comparison can be seen"


QUANTISED = [name for name in CASES if name.startswith("quantised/") and CASES[name].runs and CASES[name].exact]


@pytest.mark.parametrize("name", QUANTISED)
def test_quantized_networks_are_judged(name: str) -> None:
    """Their weights are integers, their errors exactly zero: that must not be taken for outputs that show nothing."""
    model = load(CASES[name].model())
    result = plain.prune(model, ratio=0.5, align=1, exact_only=True, score="random", seed=3, compensate="none")
    found = checked(result, model)
    assert not found.failed and not found.unsure, found
