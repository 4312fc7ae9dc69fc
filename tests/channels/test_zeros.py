"""What a removed channel leaves behind: a contraction of two computed tensors is exact only where that is zero."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.channels.analyse import analyse
from onnxprune.channels.grouping import _activate, _conflicts
from onnxprune.channels.rewrite import rewrite
from onnxprune.graph.model import Model
from tests.channels.halving import halve
from tests.micro.build import Net
from tests.oracle import random_inputs, run


def contracted(net: Net, y: str) -> bool:
    """Contract (positions, 16 channels) with another branch over the channels; tell whether that is exact."""
    other = net.linear(net.input(6, 8, name="z"), 8, 16, bias=False)
    net.output(net.linear(net.MatMul(y, net.transpose(other, 1, 0)), 6, 3))
    biased = net.linear(net.input(6, 8, name="w"), 8, 16)  # the other side is not zero where its bias stays
    net.output(net.linear(net.MatMul(y, net.transpose(net.Sigmoid(biased), 1, 0)), 6, 3))
    (group,) = halve(net).channels.groups
    return group.exact


def stream(net: Net, name: str) -> str:
    return net.linear(net.input(6, 8, name=name), 8, 16, bias=False)


@pytest.mark.parametrize(
    ("low", "high", "exact"),
    [(-1.0, 1.0, True), (0.0, 6.0, True), (-1.0, 0.0, True), (0.5, 1.0, False), (-2.0, -0.5, False)],
)
@pytest.mark.parametrize("opset", [10, 17])
def test_a_clip_keeps_zero_where_its_range_holds_it(low: float, high: float, exact: bool, opset: int) -> None:
    net = Net(opset=opset)
    y = stream(net, "x")
    limits = {"min": low, "max": high} if opset == 10 else {}
    operands = [] if opset == 10 else [net.number(low), net.number(high)]
    assert contracted(net, net.Clip(y, *operands, **limits)) is exact


@pytest.mark.parametrize(("low", "exact"), [(-1.0, True), (0.5, False)])
def test_a_clip_without_an_upper_limit_is_judged_by_the_lower_one(low: float, exact: bool) -> None:
    net = Net()
    assert contracted(net, net.Clip(stream(net, "x"), net.number(low))) is exact


@pytest.mark.parametrize(("data", "updates"), [("Relu", "Relu"), ("Relu", "Sigmoid"), ("Sigmoid", "Relu")])
def test_scattered_rows_are_zero_where_data_and_updates_are(data: str, updates: str) -> None:
    net = Net()
    rows = net.linear(net.input(2, 8, name="u"), 8, 16, bias=False)
    index = net.constant(np.array([[1], [4]], np.int64))
    y = net.ScatterND(net.op(data, stream(net, "x")), index, net.op(updates, rows))
    assert contracted(net, y) is (data == updates == "Relu")


def test_positions_of_classes_stand_last_in_a_onehot_without_an_axis() -> None:
    net = Net()
    x = net.input("batch", 8, 4)  # (batch, features, positions)
    y = net.MatMul(net.weight(16, 8), x)  # 16 channels at axis 1
    index = net.ArgMax(y, axis=2, keepdims=0)
    depth, values = net.constant(np.array(4, np.int64)), net.constant(np.array([0, 1], np.float32))
    classes = net.OneHot(index, depth, values)
    net.output(net.linear(net.transpose(classes, 0, 2, 1), 16, 3))
    assert halve(net).share < 0.7


def test_parts_of_an_equal_split_that_lose_different_numbers_are_spelled_out() -> None:
    net = Net()
    y = net.linear(net.input(6, 8), 8, 32)
    one, other = net.split(y, [16, 16], equal=True)
    net.output(net.linear(net.Relu(one), 16, 3), net.linear(net.Tanh(other), 16, 3))
    model = net.model()
    channels = analyse(Model(model))
    first, second = channels.groups
    pruned = rewrite(channels, {first.name: np.arange(16) < 4, second.name: np.full(16, True)}).proto
    sizes = [list(tensor.dims) for tensor in pruned.graph.initializer if len(tensor.dims) == 2]
    assert sizes == [[8, 20], [4, 3], [16, 3]]
    feeds = random_inputs(model, np.random.default_rng(0))
    assert np.abs(run(pruned, feeds)[1] - run(model, feeds)[1]).max() < 1e-5, "rounding; its 16 channels all stay"


def test_of_heads_and_positions_both_asked_for_only_rivals_of_one_kind_exclude_each_other() -> None:
    class Solution:
        """Two derived channels, each of a head group, its rival, and a group of positions."""

        label = np.arange(8)
        ancestors = (np.array([6, 6, 6, 7, 7, 7]), np.array([0, 1, 2, 3, 4, 5]))

    drafts = [
        (np.array([0, 3]), "head", ()),
        (np.array([1, 4]), "head", ()),
        (np.array([2, 5]), "head-dim", ()),
    ]
    assert _conflicts(Solution, drafts) == {0: {1, 2}, 1: {0, 2}, 2: {0, 1}}
    assert _activate(Solution, drafts, True, True) == [True, False, True]
    assert _activate(Solution, drafts, None, None) == [True, False, False]
    assert _activate(Solution, drafts, False, None) == [False, False, True]
