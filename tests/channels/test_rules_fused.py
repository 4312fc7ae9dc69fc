"""Operators that onnxruntime fuses, and operators that must stay."""

import numpy as np
import pytest

from onnxprune.channels.analyse import analyse
from onnxprune.graph.model import Model
from tests.channels.halving import halve
from tests.micro.build import Net


def test_an_embedding_with_its_norm() -> None:
    net = Net()
    tokens = net.input("batch", 6, name="tokens", dtype=np.int32)
    tables = [net.weight(rows, 16) for rows in (2, 6, 2)]
    operands = [tokens, tokens, *tables, net.vector(16), net.vector(16)]
    y, _, total = net.ms("EmbedLayerNormalization", *operands, outputs=3)
    net.output(net.linear(net.Add(net.linear(y, 16, 16), total), 16, 3))
    halved = halve(net)
    assert halved.shape("EmbedLayerNormalization", 2) == [2, 8]
    assert [group.exact for group in halved.channels.groups] == [False]


@pytest.mark.parametrize("kind", ["GroupNorm", "SkipGroupNorm", "BiasSplitGelu", "BiasSoftmax"])
def test_operators_without_a_kernel_keep_their_sizes_consistent(kind: str) -> None:
    net = Net()
    y = net.transpose(net.conv(net.input(2, 3, 8, 8), 3, 16), 0, 2, 3, 1)
    width = 16
    if kind == "GroupNorm":
        y = net.ms(kind, y, net.vector(16), net.vector(16), groups=4, channels_last=1, activation=1)
    elif kind == "SkipGroupNorm":
        y, y2 = net.ms(kind, y, net.vector(16), net.vector(16), y, groups=4, channels_last=1, outputs=2)
        y = net.Add(y, y2)
    elif kind == "BiasSoftmax":
        y = net.ms(kind, y, net.weight(2, 8, 8, 16), axis=3, is_inner_broadcast=0)
    else:
        y, width = net.ms(kind, net.reshape(y, 0, 64, 16), net.weight(16)), 8
    net.output(net.linear(y, width, 3))
    channels = analyse(Model(net.model(runs=False)))
    assert not channels.state.defects
    assert not channels.state.unknown
    keep = {group.name: np.arange(group.size) % 2 == 0 for group in channels.groups if group.active}
    node = next(node for node in channels.view.nodes if node.op_type == kind)
    shapes = channels.shapes(keep)
    if kind == "BiasSoftmax":
        assert shapes[node.outputs[0]] == (2, 8, 8, 16)
    else:
        assert shapes[node.outputs[0]][-1] == width // 2
        assert shapes[node.inputs[1]] == (8,)


def test_norms_of_old_operator_sets_as_onnxruntime_saves_them() -> None:
    """Its optimizer writes LayerNormalization and SimplifiedLayerNormalization without a version of their own."""
    net = Net(opset=14)
    y = net.linear(net.input("batch", 6, 8), 8, 16)
    y = net.op("SimplifiedLayerNormalization", y, net.vector(16), axis=-1, epsilon=1e-5)
    y = net.op("LayerNormalization", net.linear(y, 16, 16), net.vector(16), net.vector(16), axis=-1, epsilon=1e-5)
    net.output(net.linear(y, 16, 3))
    channels = analyse(Model(net.model(runs=False)))
    assert not channels.trace.first.failures
    assert [group.size for group in channels.groups if group.active] == [16, 16]


STAYS = {
    "NonZero": (
        lambda net: net.Cast(net.NonZero(net.linear(net.input(2, 8), 8, 8)), to=1),
        "positions of its elements",
    ),
    "SequenceAt": (
        lambda net: net.SequenceAt(
            net.SplitToSequence(net.linear(net.input(2, 8), 8, 8), axis=1, keepdims=1), np.array(1)
        ),
        "sequence are not followed",
    ),
    "Det": (lambda net: net.Det(net.reshape(net.linear(net.input(2, 8), 8, 16), 2, 4, 4)), "as a whole"),
}


@pytest.mark.parametrize("kind", STAYS)
def test_what_stays_says_why(kind: str) -> None:
    draw, reason = STAYS[kind]
    net = Net()
    net.output(draw(net))
    channels = analyse(Model(net.model()))
    assert not channels.groups
    assert not channels.state.unknown
    assert any(reason in lock.reason for lock in channels.locks)


def test_axes_that_are_not_compressed_pass() -> None:
    net = Net()
    y = net.Compress(net.linear(net.input(2, 4, 8), 8, 16), np.array([True, False, True, True]), axis=1)
    net.output(net.linear(y, 16, 3))
    assert halve(net).share < 0.6


def test_columns_become_images_of_fewer_channels() -> None:
    net = Net(opset=18)
    y = net.transpose(net.linear(net.input(2, 9, 8), 8, 4 * 8), 0, 2, 1)
    y = net.Col2Im(y, np.array([4, 4]), np.array([2, 2]))
    net.output(net.conv(y, 8, 3))
    assert halve(net).shape("MatMul", 1) == [8, 16]


def test_cropped_axes_stay_and_channels_pass() -> None:
    net = Net(opset=18)
    y = net.CenterCropPad(net.conv(net.input(2, 3, 8, 8), 3, 16), np.array([6, 10]), axes=[2, 3])
    net.output(net.conv(y, 16, 3))
    assert halve(net).share < 0.6


@pytest.mark.parametrize("opset", [17, 20])
def test_zeros_of_a_dynamic_shape_follow_the_width(opset: int) -> None:
    net = Net(opset=opset)
    y = net.linear(net.input("batch", 8), 8, 16)
    zeros = net.ConstantOfShape(net.Shape(y))
    net.output(net.linear(net.Concat(y, zeros, axis=1), 32, 3))
    assert halve(net).shape("MatMul", 1) == [8, 8]
