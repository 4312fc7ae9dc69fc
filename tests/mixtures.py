"""Mixtures of experts written out in single operators: stacks of matrices, and a router that chooses among them."""

from __future__ import annotations

import numpy as np

from tests.micro.build import Net, TensorProto

EXPERTS, TAKEN, WIDTH, INNER = 6, 2, 16, 24


def mixture(style: str = "scattered", experts: int = EXPERTS, taken: int = TAKEN, gated: bool = True) -> Net:
    """Draw a layer, a mixture, and a layer.

    style: how gates come about and experts are used:
        "soft": softmax over all; "scattered": the best, scattered into zeros; "masked": below the least of the best
        minus infinity, then softmax; "one hot": OneHot of the best times their gates; "compared": the same by Equal
        with a table of numbers; "einsum": like "scattered", products as Einsum; "picked": matrices of the best picked
        by Gather; "sigmoid": gates are sigmoids of the best.
    """
    net = Net()
    x = net.linear(net.input("n", 8), 8, WIDTH)
    scores = net.linear(x, WIDTH, experts)
    if style == "picked":
        y = _picked(net, x, scores, experts, taken)
    else:
        y = _dense(net, style, x, _gates(net, style, scores, experts, taken), experts, gated)
    net.output(net.linear(net.Add(x, y), WIDTH, 5))
    return net


def _best(net: Net, scores: str, taken: int) -> tuple[str, str]:
    values, numbers = net.TopK(scores, np.array([taken]), axis=-1, outputs=2)
    return values, numbers


def _gates(net: Net, style: str, scores: str, experts: int, taken: int) -> str:
    """Return (tokens, experts)."""
    if style == "soft":
        return str(net.Softmax(scores, axis=-1))
    values, numbers = _best(net, net.Sigmoid(scores) if style == "sigmoid" else scores, taken)
    if style == "masked":
        least = net.slice(values, taken - 1, taken, axis=1)
        far = net.Sub(scores, net.number(1e4))
        return str(net.Softmax(net.Where(net.GreaterOrEqual(scores, least), scores, far), axis=-1))
    shares = net.Softmax(values, axis=-1)
    if style == "sigmoid":
        shares = net.Div(values, net.reduce("Sum", values, [1]))
    if style in ("one hot", "compared"):
        if style == "one hot":
            chosen = net.OneHot(numbers, np.array(experts), np.array([0, 1], np.float32), axis=-1)
        else:
            equal = net.Equal(net.unsqueeze(numbers, 2), net.constant(np.arange(experts)))
            chosen = net.Cast(equal, to=TensorProto.FLOAT)
        return str(net.reduce("Sum", net.Mul(chosen, net.unsqueeze(shares, 2)), [1], keepdims=0))
    zeros = net.Mul(scores, net.number(0.0))
    return str(net.ScatterElements(zeros, numbers, shares, axis=1))


def _dense(net: Net, style: str, x: str, gates: str, experts: int, gated: bool) -> str:
    """Run every expert on every token, and weigh what they give."""
    first, third = (net.weight(experts, WIDTH, INNER, gain=2) for _ in range(2))
    second, bias = net.weight(experts, INNER, WIDTH, gain=2), net.weight(experts, 1, INNER)
    if style == "einsum":
        y = net.Einsum(x, first, equation="td,edf->tef")
        y = net.Mul(y, net.Sigmoid(y))
        y = net.Mul(y, net.Einsum(x, third, equation="td,edf->tef")) if gated else y
        return str(net.Einsum(net.Einsum(y, second, equation="tef,efd->ted"), gates, equation="ted,te->td"))
    wide = net.unsqueeze(x, 0)
    y = net.Add(net.MatMul(wide, first), bias)
    y = net.Mul(y, net.Sigmoid(y))
    y = net.Mul(y, net.MatMul(wide, third)) if gated else y
    y = net.Mul(net.MatMul(y, second), net.unsqueeze(net.transpose(gates, 1, 0), 2))
    return str(net.reduce("Sum", y, [0], keepdims=0))


def _picked(net: Net, x: str, scores: str, experts: int, taken: int) -> str:
    values, numbers = _best(net, scores, taken)
    shares = net.unsqueeze(net.Softmax(values, axis=-1), 2)
    first = net.Gather(net.weight(experts, WIDTH, INNER, gain=2), numbers, axis=0)
    second = net.Gather(net.weight(experts, INNER, WIDTH, gain=2), numbers, axis=0)
    y = net.Relu(net.MatMul(net.unsqueeze(net.unsqueeze(x, 1), 1), first))
    y = net.squeeze(net.MatMul(y, second), 2)
    return str(net.reduce("Sum", net.Mul(y, shares), [1], keepdims=0))
