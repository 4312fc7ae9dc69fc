"""Pattern 10: Einsum, Gram matrices, control flow, weights in odd places."""

import numpy as np
from onnx import TensorProto, helper

from tests.micro.build import Net, case


def start(net: Net, size: int = 16) -> str:
    """Draw a (batch, 6, size) stream."""
    return net.linear(net.input("batch", 6, 8), 8, size)


@case(share=0.4)
@case("opset12", share=0.4, opset=12)
def einsum_as_dense(net):
    y = net.Relu(net.Einsum(start(net), net.weight(16, 24), equation="bti,io->bto"))
    net.output(net.Einsum(y, net.weight(5, 24), equation="bti, oi -> bot"))


@case(share=0.4)
def einsum_with_ellipsis_and_sum(net):
    y = net.Einsum(start(net), net.weight(16, 24), equation="...i,io->...o")
    y = net.Einsum(y, net.vector(24), equation="btc,c->bc")
    net.output(net.linear(y, 24, 5))


@case(share=0.55)
def gram_matrix_of_channels(net):
    """(B, C, C) from a contraction over the tokens: both axes of the result are the same channels."""
    y = start(net)
    gram = net.MatMul(net.transpose(y, 0, 2, 1), y)
    net.output(net.linear(net.reduce("Sum", gram, [1], keepdims=0), 16, 5))


@case(share=0.65)
def gram_matrix_of_tokens(net):
    """(B, T, T): the channels are contracted with themselves."""
    y = start(net)
    net.output(net.linear(net.MatMul(y, net.transpose(y, 0, 2, 1)), 6, 5))


@case(share=0.55)
def pairwise_interaction(net):
    """DLRM: dot products of embedded features, upper triangle by static indices."""
    x = net.input("batch", 8)
    y = net.Concat(*(net.unsqueeze(net.linear(x, 8, 16), 1) for _ in range(4)), axis=1)
    flat = net.reshape(net.MatMul(y, net.transpose(y, 0, 2, 1)), -1, 16)
    pairs = net.Gather(flat, np.array([4, 8, 9, 12, 13, 14]), axis=1)
    net.output(net.linear(net.Relu(net.linear(net.Concat(pairs, x, axis=1), 14, 16)), 16, 3))


def branch(net: Net, draw) -> object:
    """Draw a subgraph with one output."""
    child = net.child()
    child.output(draw(child))
    return child.graph()


@case(share=0.4)
@case("opset11", share=0.4, opset=11)
def if_with_captured_tensor(net):
    """Both branches read an outer tensor; the layers around the If stay or follow, never break."""
    x = net.input("batch", 8)
    y = net.Relu(net.linear(x, 8, 16))
    condition = net.Greater(net.reduce("Mean", x, [0, 1], keepdims=0), net.number(0.0))
    then, other = branch(net, lambda n: n.Relu(y)), branch(net, lambda n: n.Neg(y))
    z = net.If(condition, then_branch=then, else_branch=other)
    net.output(net.linear(net.Relu(net.linear(z, 16, 24)), 24, 3))


@case(share=0.35)
def if_with_weights_inside(net):
    x = net.input("batch", 8)
    y = net.Relu(net.linear(x, 8, 16))
    condition = net.Greater(net.reduce("Mean", x, [0, 1], keepdims=0), net.number(0.0))
    then = branch(net, lambda n: n.linear(n.Relu(n.linear(y, 16, 24)), 24, 12))
    other = branch(net, lambda n: n.linear(y, 16, 12))
    z = net.If(condition, then_branch=then, else_branch=other)
    net.output(net.linear(net.Relu(net.linear(z, 12, 24)), 24, 3))


@case(share=0.35)
def if_reads_outer_weights(net):
    """A weight of the main graph used in a branch."""
    x = net.input("batch", 8)
    weight, y = net.weight(16, 16), net.Relu(net.linear(x, 8, 16))
    condition = net.Greater(net.reduce("Mean", x, [0, 1], keepdims=0), net.number(0.0))
    z = net.If(
        condition, then_branch=branch(net, lambda n: n.MatMul(y, weight)), else_branch=branch(net, lambda n: n.Relu(y))
    )
    net.output(net.linear(net.Relu(net.linear(z, 16, 24)), 24, 3))


@case(share=0.4)
@case("opset11", share=0.4, opset=11)
def loop_with_state(net):
    """State and captured tensors go together; what is before and after is free."""
    y = net.linear(net.Relu(net.linear(net.input("batch", 8), 8, 32)), 32, 8)
    body = net.child()
    step, going, state = (net.fresh(n) for n in ("step", "going", "state"))
    body.inputs = [
        helper.make_tensor_value_info(step, TensorProto.INT64, []),
        helper.make_tensor_value_info(going, TensorProto.BOOL, []),
        helper.make_tensor_value_info(state, TensorProto.FLOAT, None),
    ]
    body.output(body.Identity(going), body.Add(body.Mul(state, body.number(0.5)), y))
    graph = body.graph([(TensorProto.BOOL, []), (TensorProto.FLOAT, None)])
    z = net.Loop(net.constant(np.array(3)), net.constant(np.array(True)), y, body=graph)
    net.output(net.linear(net.Relu(net.linear(z, 8, 32)), 32, 3))


@case(share=0.4)
def scan_with_state(net):
    """A Scan over time with a captured weight."""
    x = net.linear(net.Relu(net.linear(net.input(5, 2, 8), 8, 32)), 32, 8)
    recurrent = net.weight(8, 8)
    body = net.child()
    state, now = net.fresh("state"), net.fresh("now")
    body.inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 8]) for name in (state, now)]
    result = body.Tanh(body.Add(body.MatMul(state, recurrent), now))
    body.output(result, body.Identity(result))
    graph = body.graph([(TensorProto.FLOAT, [2, 8])] * 2)
    zeros = net.constant(np.zeros((2, 8), np.float32))
    _, y = net.Scan(zeros, x, body=graph, num_scan_inputs=1, outputs=2)
    net.output(net.linear(net.Relu(net.linear(y, 8, 32)), 32, 3))


@case(share=0.4)
def constants_through_chains(net):
    """Weights behind Identity, Transpose, Cast, Reshape and Unsqueeze of an initializer."""
    x = net.input("batch", 8)
    y = net.Add(net.MatMul(x, net.transpose(net.weight(32, 8), 1, 0)), net.Identity(net.weight(32)))
    half = net.constant((net.rng.normal(size=(32, 16)) / 6).astype(np.float16))
    y = net.MatMul(net.Relu(y), net.Cast(half, to=TensorProto.FLOAT))
    y = net.Add(y, net.reshape(net.weight(4, 4), 16))
    net.output(net.MatMul(net.Relu(y), net.squeeze(net.weight(1, 16, 3), 0)))


@case(share=0.35)
@case("opset9", share=0.35, opset=9)
def aliased_biases(net):
    """torch's legacy exporter merges equal vectors: three layers share one bias through Identity."""
    bias = net.constant(np.full(16, 0.1, np.float32))
    y = net.Relu(net.Conv(net.input("batch", 3, 6, 6), net.weight(16, 3, 3, 3), bias, pads=[1] * 4))
    for _ in range(2):
        y = net.Relu(net.Conv(y, net.weight(16, 16, 3, 3), net.Identity(bias), pads=[1] * 4))
    net.output(net.conv(y, 16, 4))


@case(share=0.35)
def shared_unit_scales(net):
    """BatchNorms of different layers read the same ones and zeros."""
    ones, zeros = net.constant(np.ones(16, np.float32)), net.constant(np.zeros(16, np.float32))
    y = net.input("batch", 3, 6, 6)
    for size in (3, 16, 16):
        y = net.Relu(net.BatchNormalization(net.conv(y, size, 16, bias=False), ones, zeros, zeros, ones))
    net.output(net.conv(y, 16, 4))


@case(share=0.45)
@case("constants", share=0.45, weights="constant")
def shared_matrix(net):
    """One dense layer applied to two tensors and twice in a row."""
    x = net.input("batch", 8)
    a, b, weight = net.linear(x, 8, 16), net.linear(x, 8, 16), net.weight(16, 16)
    y = net.Add(net.Relu(net.MatMul(a, weight)), net.MatMul(net.Relu(net.MatMul(b, weight)), weight))
    net.output(net.linear(y, 16, 3))


@case(share=0.4)
def siamese(net):
    """Two inputs through the same layers."""
    w1, b1, w2 = net.weight(8, 32), net.weight(32), net.weight(32, 16)
    ends = [
        net.MatMul(net.Relu(net.Add(net.MatMul(net.input("batch", 8, name=n), w1), b1)), w2) for n in ("left", "right")
    ]
    net.output(net.linear(net.Abs(net.Sub(*ends)), 16, 3))


@case(share=0.35)
def tied_embeddings(net):
    """The table embeds the tokens and, transposed, writes the logits."""
    table = net.weight(20, 16)
    x = net.Gather(table, net.input("batch", 6, name="tokens", dtype=np.int64), axis=0)
    x = net.Add(x, net.linear(net.Relu(net.linear(x, 16, 32)), 32, 16))
    net.output(net.MatMul(x, net.transpose(table, 1, 0)))


@case(share=0.55)
def inner_tensor_is_an_output(net):
    """The second layer is also a graph output, so its channels stay; the others go."""
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 32))
    y = net.Relu(net.conv(y, 32, 8))
    net.output(net.conv(net.Relu(net.conv(y, 8, 32)), 32, 4), y)


@case(prunable=False, reason="output")
def single_layer(net):
    net.output(net.gemm(net.input("batch", 8), 8, 5))


@case(prunable=False, reason="output")
def every_tensor_is_an_output(net):
    y = net.linear(net.input("batch", 8), 8, 16)
    z = net.linear(net.Relu(y), 16, 5)
    net.output(y, z)


@case(share=0.55)
def residual_from_the_input(net):
    """The input's channels stay and so does what is added to them."""
    x = net.input("batch", 8)
    y = net.Add(x, net.linear(net.Relu(net.linear(x, 8, 32)), 32, 8))
    net.output(net.linear(net.Relu(net.linear(y, 8, 32)), 32, 8))
