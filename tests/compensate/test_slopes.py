"""Steps side by side: the same bytes on any number of cores, within predicted seconds, and what they tell."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.compensate import distil as room
from onnxprune.compensate.compensate import compensate
from onnxprune.compensate.distil import DistilOptions, distil
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.compensate.lean import without_dead
from onnxprune.compensate.objective import HeldOut
from onnxprune.compensate.slopes import Slopes, Teacher, update_seconds
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from tests.compensate.small import network

RNG = np.random.default_rng(31)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def small(width: int) -> Model:
    weights = {"w0": normal(width, 2, 3, 3), "b0": normal(width), "w1": 0.3 * normal(3, width)}
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w1"], ["y"], transB=1),
    ]
    return network(nodes, weights, ["n", 2, 5, 5], ["n", 3])


def same(y: np.ndarray) -> np.ndarray:
    return y


def test_the_result_is_the_same_bytes_on_one_and_on_three_cores() -> None:
    teacher, student, feeds = small(8), small(4), [{"x": normal(48, 2, 5, 5)}]
    results = [
        distil(teacher, student, {"y": same}, {}, feeds, DistilOptions(12, 12, 4, rate=0.05, threads=threads))
        for threads in (1, 3)
    ]
    assert results[0][0].proto.SerializeToString() == results[1][0].proto.SerializeToString()
    assert results[0][1].steps > 0


def test_the_mean_of_halves_is_the_gradient_of_the_whole() -> None:
    model, teacher, x = small(4), small(8), normal(12, 2, 5, 5)
    found = []
    for size in (6, 12):
        gradient = gradient_graph(model, {"y": 2.0}, {"y": (size, 3)}, {"x": x[:size]})
        slopes = Slopes.open(gradient, Teacher(teacher, {"y": same}), 2)
        found.append(slopes.mean(gradient.weights, [{"x": x[i : i + size]} for i in range(0, 12, size)]))
    for half, whole in zip(*found, strict=True):
        np.testing.assert_allclose(half, whole, rtol=1e-3, atol=1e-5)  # float32 sums in another order


def test_steps_beyond_the_seconds_are_not_taken_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FEWEST_STEPS", 3)
    arguments = small(8), small(4), {"y": same}, {}, [{"x": normal(32, 2, 5, 5)}]
    with pytest.raises(ModelError, match="3 would take about 0 CPU seconds, more than the 0 that are left"):
        distil(*arguments, DistilOptions(9, 8, seconds=1e-9, threads=1))
    told: list[str] = []
    distil(*arguments, DistilOptions(9, 8, rate=0.05, seconds=1e-9, forced=True, threads=1), told.append)
    assert told[0].startswith("gradient step 1 of 3, held-out distance ")
    assert "s left" not in told[0]
    assert told[-1].startswith("gradient step 3 of 3")
    assert told[-1].endswith("s left")


def test_more_seconds_are_more_steps_up_to_the_most() -> None:
    teacher = Teacher(small(8), {"y": same})
    feed = {"x": normal(8, 2, 5, 5)}
    gradient = gradient_graph(small(4), {"y": 1.0}, {"y": (8, 3)}, feed)
    slopes = Slopes.open(gradient, teacher, 1)
    (one, asked), (two, _) = slopes.seconds(feed, 1), slopes.seconds(feed, 2)
    assert two - update_seconds(gradient) == pytest.approx(2 * (one - update_seconds(gradient)))
    assert one > asked == teacher.seconds(feed) > 0


def test_derivatives_that_nobody_asked_for_are_taken_out() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["y"]),
        helper.make_node("Exp", ["x"], ["dead"]),
        helper.make_node("Neg", ["dead"], ["deader"]),
    ]
    proto: onnx.ModelProto = network(nodes, {"w": normal(3), "unused": normal(3)}, ["n", 3], ["n", 3]).proto
    without_dead(proto)
    assert [node.op_type for node in proto.graph.node] == ["Mul"]
    assert [tensor.name for tensor in proto.graph.initializer] == ["w"]


def test_what_a_branch_reads_is_not_dead() -> None:
    then = helper.make_graph([helper.make_node("Neg", ["e"], ["t"])], "t", [], [onnx.ValueInfoProto(name="t")])
    other = helper.make_graph([helper.make_node("Abs", ["e"], ["o"])], "o", [], [onnx.ValueInfoProto(name="o")])
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    proto = network(nodes, {"c": np.array(True)}, [3], [3]).proto
    without_dead(proto)
    assert [node.op_type for node in proto.graph.node] == ["Exp", "If"]


def test_the_loss_alone_takes_no_derivatives() -> None:
    feed = {"x": normal(8, 2, 5, 5)}
    gradient = gradient_graph(small(4), {"y": 1.0}, {"y": (8, 3)}, feed)
    whole = feed | {gradient.targets["y"]: normal(8, 3)} | gradient.weights | gradient.seed()
    alone = gradient.without_slopes()
    (loss,) = open_session(alone, threads=1).values([gradient.loss], whole)
    np.testing.assert_allclose(
        loss, open_session(gradient.proto, threads=1).values([gradient.loss], whole)[0], rtol=1e-6
    )
    assert len(alone.graph.node) < len(gradient.proto.graph.node) / 2


def test_what_only_shows_the_way_is_judged_apart() -> None:
    model, feed = small(4), {"x": normal(8, 2, 5, 5)}
    (inside,) = [node.output[0] for node in model.proto.graph.node if node.op_type == "Relu"][:1]
    teacher = Teacher(model, {"y": lambda y: y, inside: lambda value: value})
    shapes = {name: value.shape for name, value in teacher(feed).items()}
    weights = {"y": 1.0, inside: 4.0}
    both, alone = (
        Slopes.open(gradient_graph(model, compared, shapes, feed, helping=[inside]), teacher, 1)
        for compared in (weights, {"y": 1.0})
    )
    start = {name: 1.1 * value for name, value in both.gradient.weights.items()}
    aim, whole = both.over(start, [feed])
    assert aim == pytest.approx(alone.over(start, [feed]).whole, rel=1e-6) and whole > 1.1 * aim
    assert aim == pytest.approx(both.over(start, [feed, feed]).aim, rel=1e-6)
    names = alone.gradient.weights
    plain = alone.mean({name: start[name] for name in names}, [feed])
    for share, least in ((0.0, 0.0), (1.0, 1e-3)):
        slopes = dict(zip(start, HeldOut(both, []).mean(start, [feed], share), strict=True))
        apart = max(float(np.abs(slopes[name] - slope).max()) for name, slope in zip(names, plain, strict=True))
        assert least <= apart <= (1e-5 if share == 0 else np.inf)


def test_a_refit_tells_how_far_it_is() -> None:
    told: list[str] = []
    model = small(4)
    compensate(model, model, {}, [{"x": normal(8, 2, 5, 5)}], progress=told.append)
    assert told[0] == f"refitting layers, level 1 of {len(told)}"
    assert len(told) == 3
