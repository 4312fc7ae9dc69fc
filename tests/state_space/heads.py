"""Scans by heads (Mamba-2): a scalar decay for each head, B and C shared by groups of heads, time in chunks."""

from __future__ import annotations

import numpy as np
import onnx

from tests.micro.build import Net
from tests.state_space.selective import KERNEL, WIDTH, WORDS, cache_name, named

HEADS, SIZE, GROUPS, STATE, LENGTH, CHUNK = 8, 6, 2, 10, 8, 4
INNER, SHARED = HEADS * SIZE, GROUPS * STATE
"""Widths of what heads hold, and of B and C."""


def chunked(style: str = "products", groups: int = GROUPS) -> Net:
    """Draw a layer that goes over time in chunks.

    style: "products" (elementwise, then summed, B and C repeated for each head), or "einsum" (few large Einsum).
    """
    net = Net()
    x = net.linear(net.input("n", LENGTH, 8), 8, WIDTH)
    shared = groups * STATE
    wide = net.linear(x, WIDTH, 2 * INNER + 2 * shared + HEADS, bias=False)
    gate, joined, dt = net.split(wide, [INNER, INNER + 2 * shared, HEADS], axis=2)
    size = INNER + 2 * shared
    line = net.Conv(
        *(net.transpose(joined, 0, 2, 1), net.weight(size, 1, KERNEL), net.weight(size)),
        group=size,
        kernel_shape=[KERNEL],
        pads=[KERNEL - 1, 0],
    )
    joined = net.transpose(line, 0, 2, 1)
    u, b, c = net.split(net.Mul(joined, net.Sigmoid(joined)), [INNER, shared, shared], axis=2)
    dt = net.Softplus(net.Add(dt, net.weight(HEADS)))
    rates = net.Neg(net.Exp(net.constant(np.log(np.arange(1, HEADS + 1, dtype=np.float32)), "A_log")))
    u = net.reshape(u, 0, LENGTH, HEADS, SIZE)
    if style == "einsum":
        y = _products_of_many(net, u, net.Mul(dt, rates), dt, *(net.reshape(p, 0, LENGTH, STATE) for p in (b, c)))
    else:
        y = _elementwise(net, u, net.Mul(dt, rates), dt, *(_each(net, part, groups) for part in (b, c)))
    y = net.reshape(net.Add(y, net.Mul(u, net.vector(HEADS, shape=(HEADS, 1)))), 0, LENGTH, INNER)
    y = gated_norm(net, y, gate)
    net.output(net.linear(net.Add(x, net.linear(y, INNER, WIDTH, bias=False)), WIDTH, 7))
    return net


def gated_norm(net: Net, y: str, gate: str) -> str:
    """Return the root-mean-square norm of what passes the gate."""
    y = net.Mul(y, net.Mul(gate, net.Sigmoid(gate)))
    spread = net.reduce("Mean", net.Pow(y, net.number(2)), [-1])
    return str(net.Mul(net.Div(y, net.Sqrt(net.Add(spread, net.number(1e-5)))), net.vector(INNER)))


def _each(net: Net, part: str, groups: int) -> str:
    """Repeat what the heads of a group share: (batch, time, heads, state)."""
    part = net.unsqueeze(net.reshape(part, 0, LENGTH, groups, STATE), 3)
    shape = net.Concat(net.slice(net.Shape(part), 0, 3, axis=0), np.array([HEADS // groups, STATE]), axis=0)
    return str(net.reshape(net.Expand(part, shape), 0, LENGTH, HEADS, STATE))


def _cut(net: Net, x: str, *rest: int) -> str:
    return str(net.reshape(x, 0, LENGTH // CHUNK, CHUNK, *rest))


def _summed_segments(net: Net, x: str, size: int) -> str:
    """Return exp(sum of x[.., j + 1 .. i]) for every i >= j, 0 elsewhere, as (.., size, size)."""
    total = net.CumSum(x, net.constant(np.array(-1)))
    differences = net.Sub(net.unsqueeze(total, -1), net.unsqueeze(total, -2))
    mask = np.where(np.tril(np.ones((size, size), bool)), 0, -np.inf).astype(np.float32)
    return str(net.Exp(net.Add(differences, net.constant(mask))))


def _products_of_many(net: Net, u: str, rates: str, dt: str, b: str, c: str) -> str:
    """One group of B and C. l, s: places in a chunk; c, z: chunks; h, p: heads and their positions; n: state."""
    u = _cut(net, net.Mul(u, net.unsqueeze(dt, 3)), HEADS, SIZE)
    b, c = (_cut(net, part, STATE) for part in (b, c))
    rates = net.transpose(_cut(net, rates, HEADS), 0, 3, 1, 2)
    total = net.CumSum(rates, net.constant(np.array(3)))
    within = net.Einsum(c, b, _summed_segments(net, rates, CHUNK), u, equation="bcln,bcsn,bhcls,bcshp->bclhp")
    last = net.slice(total, CHUNK - 1, CHUNK, axis=3)
    states = net.Einsum(b, net.Exp(net.Sub(last, total)), u, equation="bcln,bhcl,bclhp->bchpn")
    states = net.pad(states, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    ends = net.pad(net.squeeze(last, 3), [0, 0, 1, 0, 0, 0])
    states = net.Einsum(_summed_segments(net, ends, LENGTH // CHUNK + 1), states, equation="bhzc,bchpn->bzhpn")
    states = net.slice(states, 0, -1, axis=1)
    before = net.Einsum(c, states, net.Exp(total), equation="bcln,bchpn,bhcl->bclhp")
    return str(net.reshape(net.Add(within, before), 0, LENGTH, HEADS, SIZE))


def _elementwise(net: Net, u: str, rates: str, dt: str, b: str, c: str) -> str:
    """Products of every pair with axes of size 1 in between, then sums."""
    u = _cut(net, net.Mul(u, net.unsqueeze(dt, 3)), HEADS, SIZE)
    b, c = (_cut(net, part, HEADS, STATE) for part in (b, c))
    rates = net.transpose(_cut(net, rates, HEADS), 0, 3, 1, 2)
    total = net.CumSum(rates, net.constant(np.array(-1)))
    pairs = net.reduce("Sum", net.Mul(net.unsqueeze(c, 3), net.unsqueeze(b, 2)), [-1], keepdims=0)
    mixed = net.transpose(_summed_segments(net, rates, CHUNK), 0, 2, 3, 4, 1)
    mixed = net.Mul(net.unsqueeze(pairs, -1), net.unsqueeze(mixed, -1))
    mixed = net.reduce("Sum", mixed, [-1], keepdims=0)
    within = net.reduce("Sum", net.Mul(net.unsqueeze(mixed, -1), net.unsqueeze(u, 2)), [3], keepdims=0)
    last = net.slice(total, CHUNK - 1, CHUNK, axis=3)
    decays = net.unsqueeze(net.transpose(net.Exp(net.Sub(last, total)), 0, 2, 3, 1), -1)
    states = net.Mul(net.unsqueeze(net.Mul(b, decays), -2), net.unsqueeze(u, -1))
    states = net.reduce("Sum", states, [2], keepdims=0)
    first = net.Mul(net.slice(states, 0, 1, axis=1), net.number(0.0))
    states = net.Concat(first, states, axis=1)
    ends = net.pad(net.squeeze(last, 3), [0, 0, 1, 0, 0, 0])
    carried = net.transpose(_summed_segments(net, ends, LENGTH // CHUNK + 1), 0, 3, 2, 1)
    carried = net.unsqueeze(net.unsqueeze(carried, -1), -1)
    states = net.reduce("Sum", net.Mul(carried, net.unsqueeze(states, 2)), [1], keepdims=0)
    states = net.slice(states, 0, LENGTH // CHUNK, axis=1)
    read = net.reduce("Sum", net.Mul(net.unsqueeze(c, -2), net.unsqueeze(states, 2)), [-1], keepdims=0)
    before = net.Mul(read, net.unsqueeze(net.transpose(net.Exp(total), 0, 2, 3, 1), -1))
    return str(net.reshape(net.Add(within, before), 0, LENGTH, HEADS, SIZE))


def step(style: str = "repeated", layers: int = 2) -> onnx.ModelProto:
    """Draw a decoder of one token with a state (batch, heads, size, state) for each layer.

    style: "repeated" (B and C expanded to every head) or "parted" (heads as groups x heads of a group).
    """
    net = Net()
    ids = net.input("n", 1, name="input_ids", dtype=np.int64)
    x = net.Gather(net.weight(WORDS, WIDTH), ids, axis=0)
    size = INNER + 2 * SHARED
    for layer in range(layers):
        y = net.layer_norm(x, WIDTH)
        wide = net.squeeze(net.linear(y, WIDTH, 2 * INNER + 2 * SHARED + HEADS, bias=False), 1)
        gate, joined, dt = net.split(wide, [INNER, size, HEADS], axis=1)
        window = net.input("n", size, KERNEL, name=cache_name("past", "conv", layer))
        moved = net.Concat(net.slice(window, 1, KERNEL, axis=2), net.unsqueeze(joined, 2), axis=2)
        joined = net.reduce("Sum", net.Mul(moved, net.weight(size, KERNEL)), [2], keepdims=0)
        named(net, moved, cache_name("past", "conv", layer, made=True))
        joined = net.Add(joined, net.weight(size))
        u, b, c = net.split(net.Mul(joined, net.Sigmoid(joined)), [INNER, SHARED, SHARED], axis=1)
        dt = net.Softplus(net.Add(dt, net.weight(HEADS)))
        rates = net.constant(-np.arange(1, HEADS + 1, dtype=np.float32))
        state = net.input("n", HEADS, SIZE, STATE, name=cache_name("past", "ssm", layer))
        kept = net.Exp(net.Mul(dt, rates))
        run = _step_parted if style == "parted" else _step_repeated
        y = run(net, layer, net.reshape(u, 0, HEADS, SIZE), state, kept, dt, b, c)
        y = net.unsqueeze(gated_norm(net, y, gate), 1)
        x = net.op("Add", x, net.linear(y, INNER, WIDTH, bias=False), name=f"mixer{layer}")
    named(net, net.linear(net.layer_norm(x, WIDTH), WIDTH, WORDS), "logits")
    return net.model(runs=False)


def _step_repeated(net: Net, layer: int, u: str, state: str, kept: str, dt: str, b: str, c: str) -> str:
    def each(part: str) -> str:
        part = net.unsqueeze(net.reshape(part, 0, GROUPS, STATE), 2)
        shape = net.Concat(net.slice(net.Shape(part), 0, 2, axis=0), np.array([HEADS // GROUPS, STATE]), axis=0)
        return str(net.reshape(net.Expand(part, shape), 0, HEADS, STATE))

    b, c = each(b), each(c)
    added = net.Mul(net.unsqueeze(net.Mul(net.unsqueeze(dt, 2), b), 2), net.unsqueeze(u, 3))
    state = net.Add(net.Mul(state, net.unsqueeze(net.unsqueeze(kept, 2), 3)), added)
    name = cache_name("past", "ssm", layer, made=True)
    named(net, state, name)
    flat = net.MatMul(net.reshape(name, -1, SIZE, STATE), net.reshape(c, -1, STATE, 1))
    y = net.Add(net.reshape(flat, -1, HEADS, SIZE), net.Mul(u, net.vector(HEADS, shape=(HEADS, 1))))
    return str(net.reshape(y, 0, INNER))


def _step_parted(net: Net, layer: int, u: str, state: str, kept: str, dt: str, b: str, c: str) -> str:
    def parted(part: str, *rest: int) -> str:
        return str(net.reshape(part, 0, GROUPS, HEADS // GROUPS, *rest))

    b, c = (net.unsqueeze(net.unsqueeze(net.reshape(part, 0, GROUPS, STATE), 2), 2) for part in (b, c))
    added = net.Mul(net.unsqueeze(net.Mul(parted(u, SIZE), net.unsqueeze(parted(dt), 3)), 4), b)
    state = net.Add(net.Mul(parted(state, SIZE, STATE), net.unsqueeze(net.unsqueeze(parted(kept), 3), 4)), added)
    found = net.reduce("Sum", net.Mul(state, c), [4], keepdims=0)
    whole = net.reshape(state, 0, HEADS, SIZE, STATE)
    named(net, whole, cache_name("past", "ssm", layer, made=True))
    y = net.Add(net.reshape(found, 0, HEADS, SIZE), net.Mul(u, net.vector(HEADS, shape=(HEADS, 1))))
    return str(net.reshape(y, 0, INNER))
