"""What files in the wild contain besides networks: odd storage, odd names, values that are no tensors."""

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.micro.build import Net, case


def layers(net: Net, y: str, *sizes: int) -> str:
    """Draw Gemm layers with Relu between."""
    for number, (inner, outer) in enumerate(itertools.pairwise(sizes)):
        y = net.gemm(net.Relu(y) if number else y, inner, outer)
    return y


@case(share=0.35)
def unnamed_nodes(net):
    net.output(layers(net, net.input("batch", 8), 8, 32, 32, 4))
    for node in net.nodes:
        node.name = ""


@case(share=0.35, runs=False)
def nodes_with_one_name(net):
    """Valid ONNX, but onnxruntime refuses it."""
    net.output(layers(net, net.input("batch", 8), 8, 32, 32, 4), shape=("batch", 4))
    for node in net.nodes:
        node.name = "node"


@case(share=0.55)
def names_with_signs(net):
    """Slashes, colons, spaces, umlauts."""
    y = net.input("batch", 8, name="Eingabe/größe:0")
    y = net.Gemm(y, net.weight(32, 8, name="/model.0/weight [fp32]"), net.weight(32, name="größe"), transB=1)
    net.output(net.Gemm(net.Relu(y), net.weight(4, 32, name="::w"), transB=1))


@case(share=0.5)
def constants_in_every_form(net):
    """Constant nodes with value_float, value_floats, value_int, value_ints."""
    y = net.linear(net.input("batch", 8), 8, 16)
    y = net.Mul(y, net.op("Constant", value_floats=[0.5 + i / 16 for i in range(16)]))
    y = net.Add(y, net.op("Constant", value_float=0.25))
    y = net.Reshape(y, net.op("Constant", value_ints=[-1, 16]))
    y = net.Gather(y, net.Unsqueeze(net.op("Constant", value_int=3), net.op("Constant", value_ints=[0])), axis=1)
    z = net.linear(net.Relu(net.linear(net.input("batch", 8, name="other"), 8, 24)), 24, 6)
    net.output(net.linear(net.Concat(y, z, axis=1), 7, 3))


@case(share=0.55)
def sparse_initializer(net):
    """A stored sparse matrix is no parameter that we cut; what is around it is."""
    y = net.Relu(net.gemm(net.Relu(net.gemm(net.input("batch", 8), 8, 24)), 24, 16))
    dense = np.zeros((16, 12), np.float32)
    dense[::3, ::2] = 0.5
    at = np.flatnonzero(dense)
    values = numpy_helper.from_array(dense.ravel()[at], "")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(at.astype(np.int64), ""), dense.shape)
    y = net.MatMul(y, net.op("Constant", sparse_value=sparse))
    net.output(layers(net, y, 12, 24, 3))


@case(share=0.35)
def raw_and_typed_data(net):
    """Weights in float_data instead of raw_data."""
    net.output(layers(net, net.input("batch", 8), 8, 32, 32, 4))
    for tensor in net.initializers:
        values = numpy_helper.to_array(tensor).ravel()
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, list(tensor.dims), values))


@case(share=0.4)
def unused_initializer_and_output(net):
    """An initializer that nobody reads, a Dropout mask that nobody reads."""
    net.weight(64)
    y, _ = net.Dropout(net.Relu(net.gemm(net.input("batch", 8), 8, 32)), outputs=2)
    net.output(net.gemm(net.Relu(net.gemm(y, 32, 32)), 32, 4))


@case(share=0.35)
def input_passed_through(net):
    """A graph input that is also an output."""
    x = net.input("batch", 8)
    net.output(layers(net, x, 8, 32, 32, 4), net.Identity(x))


@case(share=0.45)
def weight_that_is_an_output(net):
    """A stored tensor that is given back keeps its shape; other layers go."""
    y = net.Relu(net.gemm(net.input("batch", 8), 8, 16))
    table = net.weight(16, 16)
    y = net.Relu(net.MatMul(y, table))
    net.output(layers(net, y, 16, 48, 48, 4), net.Identity(table))


@case(prunable=False, reason="sequence")
def sequences(net):
    """SplitToSequence -> SequenceAt -> ConcatFromSequence: what follows has no known shape and stays, never broken."""
    y = net.linear(net.input("batch", 8), 8, 16)
    parts = net.SplitToSequence(y, net.constant(np.array(8)), axis=1)
    parts = [net.SequenceAt(parts, net.constant(np.array(i))) for i in (1, 0)]
    y = net.ConcatFromSequence(net.SequenceConstruct(*parts), axis=1)
    net.output(layers(net, y, 16, 48, 48, 4))


@case(share=0.35)
def classical_model_beside(net):
    """ai.onnx.ml: a Scaler before and a Normalizer after a network."""
    y = net.op("Scaler", net.input("batch", 8), domain="ai.onnx.ml", offset=[0.1] * 8, scale=[2.0] * 8)
    y = layers(net, y, 8, 32, 32, 4)
    net.domains["ai.onnx.ml"] = 3
    net.output(net.op("Normalizer", y, domain="ai.onnx.ml", norm="L2"))


@case(share=0.35)
def training_batch_norm(net):
    """BatchNormalization left in training mode: statistics of the batch, per channel."""
    y = net.conv(net.input("batch", 3, 6, 6), 3, 16)
    vectors = [net.vector(16) for _ in range(4)]
    y, _, _ = net.BatchNormalization(y, *vectors, training_mode=1, outputs=3)
    net.output(net.conv(net.Relu(net.conv(net.Relu(y), 16, 16)), 16, 4))


@case(share=0.35)
def dynamic_everything(net):
    """Batch, height and width are dynamic, one with an expression as its name."""
    y = net.Relu(net.conv(net.input("N", 3, "height", "2*floor(w/2)"), 3, 16))
    y = net.Relu(net.conv(y, 16, 16, strides=[2, 2]))
    net.output(net.gemm(net.Flatten(net.GlobalAveragePool(y)), 16, 4))


@case(share=0.35)
def unknown_dimensions(net):
    """Dimensions without a name."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    net.inputs[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    net.output(net.gemm(net.Flatten(net.GlobalMaxPool(net.Relu(net.conv(y, 16, 16)))), 16, 4))


@case(share=0.35)
def several_inputs_with_defaults(net):
    """An optional input with a default: an initializer that is also an input."""
    x = net.input("batch", 8)
    scale = net.constant(np.full((1,), 2.0, np.float32), "scale")
    net.inputs.append(helper.make_tensor_value_info(scale, TensorProto.FLOAT, [1]))
    net.output(layers(net, net.Mul(x, scale), 8, 32, 32, 4))


@case(share=0.3)
def nested_branches(net):
    """An If in an If, with weights at each depth."""

    def inner(child: Net, y: str, flag: str) -> onnx.GraphProto:
        child.output(child.If(flag, then_branch=leaf(child, y, 12), else_branch=leaf(child, y, 20)))
        return child.graph()

    def leaf(parent: Net, y: str, width: int) -> onnx.GraphProto:
        child = parent.child()
        child.output(child.linear(child.Relu(child.linear(y, 16, width)), width, 8))
        return child.graph()

    x = net.input("batch", 8)
    flag = net.Greater(net.reduce("Mean", x, [0, 1], keepdims=0), net.number(0.0))
    y = net.linear(x, 8, 16)
    z = net.If(flag, then_branch=inner(net.child(), y, net.Not(flag)), else_branch=inner(net.child(), y, flag))
    net.output(layers(net, z, 8, 48, 48, 4))


@case(share=0.35)
def value_info_everywhere(net):
    """Declared inner shapes are mended with the rest."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    net.output(net.conv(net.Relu(net.conv(y, 16, 16)), 16, 4))
    net.declares_shapes = True
