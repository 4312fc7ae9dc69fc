"""Types of weights, unknown operators, local functions."""

import itertools

import numpy as np
from onnx import TensorProto, helper

from tests.micro.build import MICROSOFT, Net, case


def layers(net: Net, y: str, *sizes: int) -> str:
    """Draw dense layers with Relu between."""
    for inner, outer in itertools.pairwise(sizes):
        y = net.linear(net.Relu(y), inner, outer)
    return y


@case(share=0.35, tolerance=0.02, dtype="half")
def half_precision(net):
    net.output(layers(net, net.input("batch", 8), 8, 32, 32, 4))


@case(share=0.35, dtype="double")
def double_precision(net):
    net.output(layers(net, net.input("batch", 8), 8, 32, 32, 4))


@case(share=0.35, tolerance=0.05)
def bfloat16_weights(net):
    """Weights stored as bf16, cast to float where they are used."""
    net.dtype, y = Net(dtype="bfloat16").dtype, net.input("batch", 8)
    for inner, outer in ((8, 32), (32, 32), (32, 4)):
        y = net.MatMul(net.Relu(y), net.Cast(net.transpose(net.weight(outer, inner), 1, 0), to=TensorProto.FLOAT))
    net.output(y)


@case(share=0.35, tolerance=0.02)
def half_precision_with_float_edges(net):
    """float16 converters keep float inputs and outputs behind Cast."""
    x = net.Cast(net.input("batch", 8), to=TensorProto.FLOAT16)
    net.dtype = np.float16
    net.output(net.Cast(layers(net, x, 8, 32, 32, 4), to=TensorProto.FLOAT))


@case(share=0.55, reason="Inverse")
def operator_without_a_rule(net):
    """An operator that nobody knows pins what it touches and is named."""
    y = net.reshape(layers(net, net.input("batch", 8), 8, 32, 16), -1, 4, 4)
    y = net.ms("Inverse", net.Add(y, net.constant(np.eye(4, dtype=np.float32) * 4)))
    net.output(layers(net, net.reshape(y, -1, 16), 16, 32, 4))


@case(share=0.75, runs=False, reason="Mystery")
def custom_domain(net):
    """An operator of a domain that nobody knows."""
    y = layers(net, net.input("batch", 8), 8, 32, 16)
    y = net.op("Mystery", y, domain="org.example")
    net.output(layers(net, y, 16, 32, 4), shape=("batch", 4))


def add_function(net: Net) -> None:
    """Add the local function Swish(x) = x * Sigmoid(x)."""
    body = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    imports = [helper.make_opsetid("", net.opset)]
    net.functions.append(helper.make_function("local", "Swish", ["x"], ["y"], body, imports))


@case(share=0.35)
def local_function_elementwise(net):
    add_function(net)
    y = net.linear(net.input("batch", 8), 8, 32)
    y = net.op("Swish", y, domain="local")
    y = net.op("Swish", net.linear(y, 32, 32), domain="local")
    net.output(net.linear(y, 32, 4))


@case(share=0.35)
def local_function_with_weights(net):
    """A dense layer as a function: weights come in as inputs (torch's exporter with modules as functions)."""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=1), helper.make_node("Relu", ["z"], ["y"])]
    imports = [helper.make_opsetid("", net.opset)]
    net.functions.append(helper.make_function("local", "Dense", ["x", "w", "b"], ["y"], nodes, imports))
    y = net.input("batch", 8)
    for inner, outer in ((8, 32), (32, 32)):
        y = net.op("Dense", y, net.weight(outer, inner), net.weight(outer), domain="local")
    net.output(net.gemm(y, 32, 4))


@case(share=0.35)
def mixed_domains(net):
    """com.microsoft Gelu between plain layers."""
    y = net.op("Gelu", net.linear(net.input("batch", 8), 8, 32), domain=MICROSOFT)
    net.output(layers(net, y, 32, 32, 4))


@case(share=0.55)
@case("opset7", share=0.55, opset=7)
@case("newest", share=0.55, opset=26)
def activations(net):
    """A row of activations, each elementwise."""
    y = net.linear(net.input("batch", 8), 8, 32)
    for kind in (
        "Relu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Softplus",
        "Softsign",
        "HardSigmoid",
        "Sigmoid",
        "Tanh",
        "Abs",
        "Exp",
        "Neg",
    ):
        y = net.op(kind, y)
    if net.opset >= 14:
        y = net.HardSwish(net.ThresholdedRelu(net.Celu(net.Clip(net.Sin(net.Floor(y)), -5.0, None))))
    if net.opset >= 20:
        y = net.Gelu(y)
    if net.opset >= 22:
        y = net.Mish(y)
    net.output(net.linear(y, 32, 4))


@case(share=0.55)
def comparisons_and_masks(net):
    """y * (y > 0) by Greater, And, Not, Cast and Where."""
    y = net.linear(net.input("batch", 8), 8, 32)
    mask = net.And(net.Greater(y, net.number(0.0)), net.Not(net.Less(y, net.number(-1.0))))
    y = net.Mul(y, net.Cast(mask, to=TensorProto.FLOAT))
    net.output(net.linear(net.Where(mask, y, net.Mul(y, net.number(0.1))), 32, 4))
