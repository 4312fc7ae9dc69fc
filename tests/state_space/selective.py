"""Selective scans (Mamba): the time loop unrolled, one step with states fed back, and sums over all of time."""

from __future__ import annotations

import numpy as np
import onnx

from tests.micro.build import Net

WIDTH, INNER, STATE, RANK, KERNEL, LENGTH, WORDS = 16, 24, 10, 6, 4, 5, 20
"""Residual stream, inner width, state size, rank of the time step, taps of the convolution, positions, vocabulary."""


def unrolled(style: str = "narrow", norms: bool = False) -> Net:
    """Draw a layer whose time loop the exporter wrote out.

    style: "narrow" (batch, time, inner), products as Einsum; "wide" (batch, inner, time), as MatMul.
    norms: root-mean-square norms over the step, B and C, as later models have them.
    """
    net = Net()
    x = _entry(net, style)
    u, gate = _convolved(net, x)
    step, b, c = _parameters(net, u, norms)
    run = {"narrow": _narrow, "wide": _wide}[style]
    y = run(net, u, step, decays(net), b, c)
    return _left(net, x, net.Mul(y, net.Mul(gate, net.Sigmoid(gate))))


def _entry(net: Net, style: str) -> str:
    x = net.input("n", LENGTH, 8)
    return str(net.linear(x, 8, WIDTH))


def _left(net: Net, x: str, y: str) -> Net:
    net.output(net.linear(net.Add(x, net.linear(y, INNER, WIDTH, bias=False)), WIDTH, 7))
    return net


def _convolved(net: Net, x: str) -> tuple[str, str]:
    """Return (batch, time, inner) what the scan reads, and the gate."""
    u, gate = net.split(net.linear(x, WIDTH, 2 * INNER, bias=False), [INNER, INNER], axis=2)
    line = net.transpose(u, 0, 2, 1)
    line = net.Conv(
        line, net.weight(INNER, 1, KERNEL), net.weight(INNER), group=INNER, kernel_shape=[KERNEL], pads=[KERNEL - 1] * 2
    )
    u = net.transpose(net.slice(line, 0, LENGTH, axis=2), 0, 2, 1)
    return str(net.Mul(u, net.Sigmoid(u))), gate


def _parameters(net: Net, u: str, norms: bool = False) -> tuple[str, str, str]:
    """Return the step (batch, time, inner), B and C (batch, time, state)."""
    found = net.split(net.linear(u, INNER, RANK + 2 * STATE, bias=False), [RANK, STATE, STATE], axis=2)
    step, b, c = (
        (_root_mean_square(net, part, size) for part, size in zip(found, (RANK, STATE, STATE), strict=True))
        if norms
        else found
    )
    return str(net.Softplus(net.linear(step, RANK, INNER))), b, c


def _root_mean_square(net: Net, x: str, size: int) -> str:
    spread = net.reduce("Mean", net.Pow(x, net.number(2)), [-1])
    return str(net.Mul(net.Mul(x, net.Reciprocal(net.Sqrt(net.Add(spread, net.number(1e-5))))), net.vector(size)))


def decays(net: Net, folded: bool = False) -> str:
    """Return A = -exp(A_log): (inner, state)."""
    logs = (
        np.log(np.tile(np.arange(1, STATE + 1, dtype=np.float32), (INNER, 1))) + net.rng.normal(size=(INNER, STATE)) / 9
    )
    if folded:
        return net.constant(-np.exp(logs).astype(np.float32))
    return str(net.Neg(net.Exp(net.constant(logs.astype(np.float32), "A_log"))))


def _narrow(net: Net, u: str, step: str, decays: str, b: str, c: str) -> str:
    kept = net.Exp(net.Einsum(step, decays, equation="bld,dn->bldn"))
    added = net.Einsum(step, b, u, equation="bld,bln,bld->bldn")
    state = net.op(
        "ConstantOfShape", net.Concat(net.slice(net.Shape(u), 0, 1, axis=0), np.array([INNER, STATE]), axis=0)
    )
    rows = []
    for t in range(LENGTH):
        at = net.constant(np.array(t))
        state = net.Add(net.Mul(net.Gather(kept, at, axis=1), state), net.Gather(added, at, axis=1))
        rows.append(net.unsqueeze(net.Einsum(state, net.Gather(c, at, axis=1), equation="bdn,bn->bd"), 1))
    return str(net.Add(net.Concat(*rows, axis=1), net.Mul(u, net.vector(INNER))))


def _wide(net: Net, u: str, step: str, decays: str, b: str, c: str) -> str:
    """The layout of the plain path of a widespread library: (batch, inner, time, state)."""
    u, step = net.transpose(u, 0, 2, 1), net.transpose(step, 0, 2, 1)
    step4 = net.unsqueeze(step, 3)
    kept = net.Exp(net.Mul(net.unsqueeze(net.unsqueeze(decays, 0), 2), step4))
    added = net.Mul(net.Mul(step4, net.unsqueeze(b, 1)), net.unsqueeze(u, 3))
    state = net.constant(np.zeros((1, INNER, STATE), np.float32))
    columns = []
    for t in range(LENGTH):
        at = net.constant(np.array(t))
        one = net.squeeze(net.slice(added, t, t + 1, axis=2), 2)
        state = net.Add(net.Mul(net.Gather(kept, at, axis=2), state), one)
        found = net.MatMul(state, net.unsqueeze(net.Gather(c, at, axis=1), 2))
        columns.append(net.unsqueeze(net.Gather(found, net.constant(np.array(0)), axis=2), 2))
    y = net.Add(net.Concat(*columns, axis=2), net.Mul(u, net.vector(INNER, shape=(1, INNER, 1))))
    return str(net.transpose(y, 0, 2, 1))


def summed(style: str = "sums") -> Net:
    """Draw a layer whose scan has no loop: by cumulative sums, or by doubling the stride of a prefix sum."""
    net = Net()
    x = _entry(net, "narrow")
    u, gate = _convolved(net, x)
    step, b, c = _parameters(net, u)
    rates = net.Mul(net.unsqueeze(step, 3), decays(net, folded=True))
    added = net.Mul(net.unsqueeze(net.Mul(step, u), 3), net.unsqueeze(b, 2))
    states = _by_sums(net, rates, added) if style == "sums" else _by_doubling(net, net.Exp(rates), added)
    y = net.squeeze(net.MatMul(states, net.unsqueeze(c, 3)), 3)
    y = net.Add(y, net.Mul(u, net.vector(INNER)))
    return _left(net, x, net.Mul(y, net.Mul(gate, net.Sigmoid(gate))))


def _by_sums(net: Net, rates: str, added: str) -> str:
    """h[t] = exp(s[t]) * sum over t' <= t of added[t'] / exp(s[t']), s the cumulative sum of the rates."""
    total = net.Exp(net.CumSum(net.Mul(rates, net.number(0.1)), net.constant(np.array(1, np.int32))))
    return str(net.Mul(total, net.CumSum(net.Div(added, net.Add(total, net.number(1e-12))), net.constant(np.array(1)))))


def _by_doubling(net: Net, kept: str, added: str) -> str:
    """Combine each position with the one 1, 2, 4, .. before it (Hillis and Steele, 1986)."""
    stride = 1
    while stride < LENGTH:
        pads = [0, stride, 0, 0, 0, 0, 0, 0]
        before = net.pad(net.slice(added, 0, -stride, axis=1), pads)
        factor = net.Pad(net.slice(kept, 0, -stride, axis=1), np.array(pads), net.number(1.0))
        added = net.Add(added, net.Mul(kept, before))
        kept = net.Mul(kept, factor)
        stride *= 2
    return added


def step(style: str = "joined", layers: int = 2, names: str = "past") -> onnx.ModelProto:
    """Draw a decoder of one token with the states of convolution and scan as inputs and outputs.

    style: how the window moves: "joined" (Concat and Conv), "rolled" (Slice, Concat, product and sum) or "written"
    (ScatterND into the last place).
    names: "past" (past_conv.0), "params" (cache_params.past.conv.0) or "plain" (conv_state_0, present_conv_state_0).
    """
    net = Net()
    ids = net.input("n", 1, name="input_ids", dtype=np.int64)
    x = net.Gather(net.weight(WORDS, WIDTH), ids, axis=0)
    for layer in range(layers):
        y = _root_mean_square(net, x, WIDTH)
        u, gate = net.split(net.linear(y, WIDTH, 2 * INNER, bias=False), [INNER, INNER], axis=2)
        window = net.input("n", INNER, KERNEL - (style == "joined"), name=cache_name(names, "conv", layer))
        u, moved = _moved(net, style, net.transpose(u, 0, 2, 1), window)
        named(net, moved, cache_name(names, "conv", layer, made=True))
        u = net.transpose(net.Mul(u, net.Sigmoid(u)), 0, 2, 1)
        dt, b, c = _parameters(net, u)
        state = net.input("n", INNER, STATE, name=cache_name(names, "ssm", layer))
        dt, u = net.squeeze(dt, 1), net.squeeze(u, 1)
        dt3 = net.unsqueeze(dt, 2)
        kept = net.Exp(net.Mul(dt3, decays(net, folded=True)))
        state = net.Add(net.Mul(state, kept), net.Mul(net.Mul(dt3, b), net.unsqueeze(u, 2)))
        named(net, state, cache_name(names, "ssm", layer, made=True))
        found = net.reduce("Sum", net.Mul(cache_name(names, "ssm", layer, made=True), c), [2], keepdims=0)
        found = net.Add(found, net.Mul(u, net.vector(INNER)))
        found = net.Mul(net.unsqueeze(found, 1), net.Mul(gate, net.Sigmoid(gate)))
        x = net.op("Add", x, net.linear(found, INNER, WIDTH, bias=False), name=f"mixer{layer}")
    y = net.linear(_root_mean_square(net, x, WIDTH), WIDTH, WORDS)
    named(net, y, "logits")
    return net.model(runs=False)


def _moved(net: Net, style: str, u: str, window: str) -> tuple[str, str]:
    """Return what the convolution gives (batch, inner, 1), and the window after it."""
    weight, bias = net.weight(INNER, 1, KERNEL), net.weight(INNER)
    if style == "joined":
        whole = net.Concat(window, u, axis=2)
        return net.Conv(whole, weight, bias, group=INNER, kernel_shape=[KERNEL]), net.slice(whole, 1, KERNEL, axis=2)
    if style == "rolled":
        moved = net.Concat(net.slice(window, 1, KERNEL, axis=2), u, axis=2)
    else:
        moved = net.Concat(net.slice(window, 1, KERNEL, axis=2), net.slice(window, 0, 1, axis=2), axis=2)
        order = net.transpose(moved, 2, 0, 1)
        order = net.ScatterND(order, np.array([[KERNEL - 1]]), net.transpose(u, 2, 0, 1))
        moved = net.transpose(order, 1, 2, 0)
    flat = net.Gather(weight, net.constant(np.array(0)), axis=1)
    y = net.Add(net.reduce("Sum", net.Mul(moved, flat), [2], keepdims=0), bias)
    return net.unsqueeze(y, 2), moved


def cache_name(names: str, kind: str, layer: int, made: bool = False) -> str:
    if names == "past":
        return f"{'present' if made else 'past'}_{kind}.{layer}"
    if names == "params":
        return f"cache_params.{'present' if made else 'past'}.{kind}.{layer}"
    return f"{'present_' if made else ''}{kind}_state_{layer}"


def named(net: Net, tensor: str, name: str) -> None:
    """Give a tensor the name that exporters give it, and make it an output."""
    for node in net.nodes:
        node.input[:] = [name if given == tensor else given for given in node.input]
        node.output[:] = [name if made == tensor else made for made in node.output]
    net.output(name)
