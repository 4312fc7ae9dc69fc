"""Networks with residual branches, and the oracle of dropping them: the original with their results times zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.graph.branches import Branch, find_branches
from onnxprune.graph.model import load
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from tests.micro.build import Net

NORMS = {"SkipLayerNormalization": 4, "SkipSimplifiedLayerNormalization": 3}
"""Operator -> input that is a bias."""


def branches_of(proto: onnx.ModelProto) -> tuple[Branch, ...]:
    """Return the branches of a model."""
    view = View(load(proto))
    return find_branches(view, trace(view))


def silenced(proto: onnx.ModelProto, branches: Sequence[Branch]) -> onnx.ModelProto:
    """Return a copy in which branches are multiplied by zero, and outputs that are made in them left out."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    ends = {branch.end.proto.output[0]: branch for branch in branches}
    nodes = []
    for node in copy.graph.node:
        branch = ends.get(node.output[0])
        if branch is not None:
            nothing = f"{node.output[0]}.nothing"
            nodes.append(helper.make_node("Mul", [node.input[branch.place], "zero"], [nothing]))
            node.input[branch.place] = nothing
            if node.op_type in NORMS:
                del node.input[NORMS[node.op_type] :]
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(copies)
    copy.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    gone = {name for branch in branches for name in branch.outputs}
    for output in [o for o in copy.graph.output if o.name in gone]:
        copy.graph.output.remove(output)
    return copy


def convnet(opset: int = 17, weights: str = "initializer") -> onnx.ModelProto:
    """Three residual blocks of convolutions, the second with a projection, the third with a scale."""
    net = Net(opset, weights)
    x = net.Relu(net.conv(net.input("n", 3, 8, 8), 3, 16))
    y = net.Relu(net.conv(x, 16, 16))
    x = net.Relu(net.op("Add", net.conv(y, 16, 16), x, name="first"))
    y = net.Relu(net.conv(x, 16, 24))
    x = net.Relu(net.op("Add", net.conv(y, 24, 24), net.conv(x, 16, 24, kernel=1), name="wider"))
    y = net.Mul(net.conv(net.Relu(net.conv(x, 24, 24)), 24, 24), net.vector(24, shape=(24, 1, 1)))
    x = net.Relu(net.op("Sum", x, y, name="scaled"))
    net.output(net.gemm(net.Flatten(net.GlobalAveragePool(x)), 24, 5))
    return net.model()


def transformer(opset: int = 17) -> onnx.ModelProto:
    """Two blocks of attention and a layered branch in each, norms before the branches."""
    net = Net(opset)
    x = net.linear(net.input("n", 5, 6), 6, 16)
    for number in range(2):
        y = net.layer_norm(x, 16)
        q, k, v = (net.linear(y, 16, 16) for _ in range(3))
        scores = net.Softmax(net.MatMul(q, net.transpose(k, 0, 2, 1)), axis=-1)
        x = net.op("Add", x, net.linear(net.MatMul(scores, v), 16, 16), name=f"attention{number}")
        y = net.linear(net.Relu(net.linear(net.layer_norm(x, 16), 16, 32)), 32, 16)
        x = net.op("Add", x, y, name=f"feed{number}")
    net.output(net.linear(net.reduce("Mean", net.layer_norm(x, 16), [1], keepdims=0), 16, 5))
    return net.model()


def fused(opset: int = 17, *, simplified: bool = False, sums: bool = False, bias: bool = True) -> onnx.ModelProto:
    """A transformer whose sums are made by norms that add a skip."""
    net = Net(opset)
    x = net.linear(net.input("n", 5, 6), 6, 16)
    kind = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    for number in range(3):
        y = net.linear(net.Relu(net.linear(x, 16, 24)), 24, 16, bias=False)
        stored = [net.vector(16), *([] if simplified else [net.vector(16, -0.3, 0.3)]), *([net.vector(16)] * bias)]
        found = net.ms(kind, y, x, *stored, outputs=4 if sums else 1, epsilon=1e-5, name=f"norm{number}")
        if sums:
            net.nodes[-1].output[1], net.nodes[-1].output[2] = "", ""
        x = net.Add(found[3], found[0]) if sums else found
    net.output(net.linear(x, 16, 5))
    return net.model()


def decoder() -> onnx.ModelProto:
    """Two layers of attention with caches of keys and values."""
    net = Net()
    x = net.linear(net.input("n", 1, 6), 6, 8)
    for number in range(2):
        past = [net.input("n", "past", 8, name=f"past_key_values.{number}.{kind}") for kind in ("key", "value")]
        y = net.layer_norm(x, 8)
        joined = [net.Concat(old, net.linear(y, 8, 8), axis=1) for old in past]
        for kind, name in zip(("key", "value"), joined, strict=True):
            net.nodes[-1 if name == joined[1] else _maker(net, name)].output[0] = f"present.{number}.{kind}"
        keys, values = (f"present.{number}.{kind}" for kind in ("key", "value"))
        scores = net.Softmax(net.MatMul(net.linear(y, 8, 8), net.transpose(keys, 0, 2, 1)), axis=-1)
        x = net.op("Add", x, net.linear(net.MatMul(scores, values), 8, 8), name=f"attention{number}")
        y = net.linear(net.Relu(net.linear(net.layer_norm(x, 8), 8, 16)), 16, 8)
        x = net.op("Add", x, y, name=f"feed{number}")
        net.output(keys, values)
    net.output(net.linear(x, 8, 5))
    return net.model()


def _maker(net: Net, name: str) -> int:
    return next(number for number, node in enumerate(net.nodes) if name in node.output)
