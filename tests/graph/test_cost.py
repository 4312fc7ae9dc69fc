"""Predicted seconds: in proportion to the batch, nothing for what is free, the same whenever asked."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.graph.cost import Cost, cost, cost_of, gram_seconds, seconds, solve_seconds
from onnxprune.graph.cost_rules import CALL, MAC
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from tests.compensate.small import network

node = helper.make_node


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def convolutions(relu: bool) -> Model:
    weights = {"w0": zeros(32, 4, 3, 3), "w1": zeros(16, 32, 3, 3)}
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu" if relu else "Identity", ["a"], ["h"]),
        node("Conv", ["h", "w1"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return network(nodes, weights, ["n", 4, 12, 12], ["n", 16, 12, 12])


def one(nodes: list, weights: dict, *shape: int) -> Cost:
    return cost_of(network(nodes, weights, list(shape), []), {"x": shape})


def test_twice_the_batch_is_twice_the_work() -> None:
    model = convolutions(True)
    small, large = (cost_of(model, {"x": (n, 4, 12, 12)}) for n in (8, 16))
    assert large.work == pytest.approx(2 * small.work)
    assert large.calls == small.calls > 0
    assert small.at(2) == pytest.approx(large.seconds)


def test_an_activation_after_a_convolution_costs_nothing() -> None:
    assert cost_of(convolutions(True), {"x": (8, 4, 12, 12)}) == cost_of(convolutions(False), {"x": (8, 4, 12, 12)})


def test_what_depends_on_no_input_costs_nothing() -> None:
    nodes = [node("Exp", ["w"], ["e"]), node("Mul", ["x", "e"], ["y"])]
    model = network(nodes, {"w": zeros(512, 512)}, [512, 512], [512, 512])
    view = View(model)
    assert set(seconds(view, trace(view).shapes)) == {"y"}


def test_numbers_that_move_count_without_any_multiply_add() -> None:
    moved = one([node("Transpose", ["x"], ["y"], perm=[1, 0])], {}, 1024, 512)
    assert moved.work > 1e-4
    assert one([node("Reshape", ["x", "s"], ["y"])], {"s": np.array([-1])}, 1024, 512) == Cost(0, 0)


def test_a_sum_over_axes_apart_costs_more_than_one_over_leading_axes() -> None:
    def reduced(*axes: int) -> float:
        return one([node("ReduceMax", ["x"], ["y"], axes=axes, keepdims=0)], {}, 8, 24, 9, 30).work

    assert reduced(0, 2) > 3 * reduced(0, 1)
    assert reduced(0, 1) == pytest.approx(reduced(2, 3))
    assert reduced(0, 2, 3) < 2 * reduced(0, 1)


def test_few_positions_cost_as_much_as_a_whole_block_of_them() -> None:
    weights = {"w": zeros(64, 64, 3)}
    few, many = (one([node("Conv", ["x", "w"], ["y"])], weights, 4, 64, n + 2) for n in (2, 16))
    assert few.work > 0.5 * many.work  # a count would say an eighth; patches and outputs are fewer


def test_depthwise_convolution_is_not_counted_by_its_multiply_adds_alone() -> None:
    weights = {"w": zeros(30, 1, 3, 3)}
    deep = one([node("Conv", ["x", "w"], ["y"], group=30)], weights, 8, 30, 34, 34)
    assert deep.work > 10 * MAC * 8 * 30 * 32 * 32 * 9


def test_a_recurrent_layer_costs_for_every_step() -> None:
    weights = {"w": zeros(1, 192, 32), "r": zeros(1, 192, 64)}
    nodes = [node("GRU", ["x", "w", "r"], ["y"], hidden_size=64)]
    long, short = (one(nodes, weights, steps, 1, 32) for steps in (200, 100))
    assert long.work == pytest.approx(2 * short.work, rel=0.02)


def scanned(steps: int) -> Cost:
    state, number = (helper.make_tensor_value_info(name, 1, [64, 64]) for name in ("s", "i"))
    ends = [onnx.ValueInfoProto(name="t"), onnx.ValueInfoProto(name="o")]
    nodes = [node("MatMul", ["s", "i"], ["m"]), node("MatMul", ["m", "w"], ["t"]), node("Neg", ["t"], ["o"])]
    body = helper.make_graph(nodes, "body", [state, number], ends)
    scan = node("Scan", ["first", "x"], ["last", "y"], num_scan_inputs=1, body=body)
    return one([scan], {"first": zeros(64, 64), "w": zeros(64, 64)}, steps, 64, 64)


def test_the_body_of_a_scan_counts_for_every_step() -> None:
    assert scanned(20).seconds == pytest.approx(2 * scanned(10).seconds, rel=0.02)
    assert scanned(10).seconds > 10 * 2 * MAC * 64**3


def test_an_unknown_operator_costs_what_it_reads() -> None:
    nodes = [node("Strange", ["x"], ["y"], domain="somewhere")]
    assert one(nodes, {}, 512, 512).work > 0
    assert one(nodes, {}, 512, 512).calls == CALL


def test_pruned_shapes_cost_less() -> None:
    model = convolutions(True)
    view = View(model)
    shapes = trace(view, {"x": (8, 4, 12, 12)}).shapes
    half = shapes | {"a": (8, 16, 12, 12), "h": (8, 16, 12, 12), "w0": (16, 4, 3, 3), "w1": (16, 16, 3, 3)}
    assert cost(view, half).work < 0.7 * cost(view, shapes).work


def test_least_squares_grow_with_the_square_and_the_cube() -> None:
    assert gram_seconds(1000, 400) == pytest.approx(4 * gram_seconds(1000, 200), rel=0.2)
    assert solve_seconds(400) == pytest.approx(8 * solve_seconds(200))
