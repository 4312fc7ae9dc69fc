"""Sizes that are computed in the graph: scaled where they can be, locks where they cannot; aliases are seen through."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxprune
from tests.micro.build import Net
from tests.oracle import parity


def heads(net: Net, merge: str, allow: int = 0, count: int = 4) -> None:
    """Attention over (batch * heads), as BART, Whisper and CLIP are exported."""
    width = 8 * count
    x = net.input("batch", "sequence", width)
    batch, length = (net.Gather(net.Shape(x), net.constant(np.array([axis])), axis=0) for axis in (0, 1))
    rest = length if allow else net.constant(np.array([-1]))
    number, size = net.constant(np.array([count])), net.constant(np.array([width // count]))
    if merge == "mul":
        rows = net.Mul(batch, number)
    elif merge == "repeated sum":
        rows = batch
        for _ in range(count - 1):
            rows = net.Add(rows, batch)
    else:  # what is added is no factor, and one size more makes it wrong
        rows = net.Sub(net.Add(net.Mul(batch, net.constant(np.array([count + 1]))), length), net.Add(batch, length))
    split = net.Concat(batch, rest, number, size, axis=0)
    merged = net.Concat(rows, rest, size, axis=0)
    q, k, v = (
        net.Reshape(net.Transpose(net.Reshape(net.MatMul(x, net.weight(width, width)), split, allowzero=allow),
                                  perm=[0, 2, 1, 3]), merged, allowzero=allow)
        for _ in range(3)
    )  # fmt: skip
    out = net.MatMul(net.Softmax(net.MatMul(q, net.Transpose(k, perm=[0, 2, 1])), axis=-1), v)
    out = net.Reshape(out, net.Concat(batch, number, rest, size, axis=0), allowzero=allow)
    out = net.Reshape(
        net.Transpose(out, perm=[0, 2, 1, 3]), net.Concat(batch, rest, net.constant(np.array([width])), axis=0)
    )
    net.output(net.MatMul(out, net.weight(width, 3)))


@pytest.mark.parametrize("merge", ["mul", "repeated sum", "sum"])
@pytest.mark.parametrize("allow", [0, 1])
@pytest.mark.parametrize("count", [4, 6])
def test_heads_that_are_merged_into_the_batch_can_go(merge: str, allow: int, count: int) -> None:
    net = Net(opset=17)
    heads(net, merge, allow, count)
    original = net.model()
    result = onnxprune.prune(original, ratio=0.5, align=1, compensate="none", heads=True)
    assert any(group.kind == "head" and group.name in result.keep for group in result.channels.groups)
    assert parity(original, result.model.proto, result.plan.removed) < 1e-4


@pytest.mark.parametrize("leaves", ["as an output", "as a sum of sizes", "into data"])
def test_a_size_that_cannot_be_mended_is_a_lock_and_not_a_failed_prune(leaves: str) -> None:
    net = Net(opset=17)
    y = net.MatMul(net.input("batch", 8), net.weight(8, 16))
    z = net.MatMul(net.Relu(y), net.weight(16, 12))
    size = net.Shape(y)
    if leaves == "as an output":
        net.output(size)
    elif leaves == "as a sum of sizes":
        net.output(net.Add(net.ReduceSum(size, keepdims=0), net.constant(np.array(1))))
    else:
        net.output(net.Mul(net.Cast(net.Gather(size, net.constant(np.array(1))), to=TensorProto.FLOAT), z))
    net.output(net.MatMul(z, net.weight(12, 3)))
    original = net.model()
    result = onnxprune.prune(original, ratio=0.5, align=1, compensate="none")
    sizes = {group.size for group in result.channels.groups}
    assert 12 in sizes or leaves == "into data"
    assert (16 in sizes) == (leaves == "into data")  # as a factor of data the old size is put in its place
    assert parity(original, result.model.proto, result.plan.removed) < 1e-4


@pytest.mark.parametrize("alias", [1, 2, 3])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_scale_from_the_shape_of_a_weight_behind_aliases_keeps_its_value(alias: int, axis: int) -> None:
    net = Net(opset=17)
    stored = net.weight(8, 16)
    weight = stored
    for _ in range(alias):
        weight = net.Identity(weight)
    y = net.MatMul(net.MatMul(net.input("batch", 6), net.weight(6, 8)), weight)
    size = net.Gather(net.Shape(weight), net.constant(np.array(axis)), axis=0)
    y = net.Div(y, net.Sqrt(net.Cast(size, to=TensorProto.FLOAT)))
    net.output(net.MatMul(y, net.weight(16, 3)))
    original = net.model()
    result = onnxprune.prune(original, ratio=0.5, align=1, compensate="none")
    assert {8, 16} == {group.size for group in result.channels.groups if group.name in result.keep}
    assert parity(original, result.model.proto, result.plan.removed) < 1e-4


BEHIND = ("zeros", "places", "a list", "a count", "a branch")


@pytest.mark.parametrize("via", BEHIND)
def test_a_scale_from_the_shape_of_what_has_the_shape_of_a_weight_keeps_its_value(via: str) -> None:
    """Zeros of the shape of a weight, their places, a list as long, sums over it, the same in a branch."""
    net = Net(opset=18)
    stored, one = net.weight(8, 16), onnx.numpy_helper.from_array(np.ones(1, np.float32))
    y = net.MatMul(net.MatMul(net.input("batch", 6), net.weight(6, 8)), stored)
    inner = net.child() if via == "a branch" else net
    filled = inner.ConstantOfShape(inner.Shape(inner.Identity(stored)), value=one)
    if via == "places":
        filled = inner.NonZero(filled)
    elif via == "a list":
        filled = inner.unsqueeze(inner.Range(np.array(0), inner.Size(stored), np.array(1)), 0)
    if via == "a count":
        size = inner.Cast(inner.reduce("Sum", filled, [0, 1], 0), to=TensorProto.FLOAT)
    else:
        size = inner.Cast(inner.Gather(inner.Shape(filled), np.array(1)), to=TensorProto.FLOAT)
    if via == "a branch":
        inner.output(inner.Div(y, inner.Sqrt(size)))
        other = net.child()
        other.output(other.Identity(y))
        positive = net.Greater(net.reduce("Sum", y, [0, 1], 0), net.number(-1e9))
        y = net.If(positive, then_branch=inner.graph(), else_branch=other.graph())
    else:
        y = net.Div(y, net.Sqrt(size))
    net.output(net.MatMul(y, net.weight(16, 3)))
    original = net.model()
    result = onnxprune.prune(original, ratio=0.5, align=1, compensate="none")
    assert 8 in {group.size for group in result.channels.groups if group.name in result.keep}
    assert parity(original, result.model.proto, result.plan.removed) < 1e-4
