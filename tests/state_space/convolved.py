"""Time-invariant scans (S4, S5): as a convolution with a kernel that follows from the states, and step by step."""

from __future__ import annotations

import numpy as np

from tests.micro.build import Net
from tests.state_space.selective import WIDTH

INNER, STATE, LENGTH = 24, 6, 8
"""Inner width, states of each channel (S4) or of all (S5), positions."""


def diagonal(style: str = "transform", folded: bool = False) -> Net:
    """Draw a layer with diagonal states (S4D).

    style: "transform" (products of discrete Fourier transforms) or "kernel" (a depthwise Conv as long as the input).
    folded: the kernel is stored; otherwise it is computed from rates, steps and C whenever the model runs.
    """
    net = Net(opset=20 if style == "transform" else 17)
    x = net.linear(net.input("n", LENGTH, 8), 8, WIDTH)
    u = net.transpose(net.linear(x, WIDTH, INNER, bias=False), 0, 2, 1)
    kernel = net.weight(INNER, LENGTH, gain=2) if folded else _kernel(net)
    y = _transformed(net, u, kernel) if style == "transform" else _long(net, u, kernel)
    y = net.Add(y, net.Mul(u, net.vector(INNER, shape=(INNER, 1))))
    y = net.transpose(net.Mul(y, net.Sigmoid(y)), 0, 2, 1)
    value, gate = net.split(net.linear(y, INNER, 2 * WIDTH), [WIDTH, WIDTH], axis=2)
    net.output(net.linear(net.Add(x, net.Mul(value, net.Sigmoid(gate))), WIDTH, 7))
    return net


def _kernel(net: Net) -> str:
    """Return (inner, time): 2 * sum over n of the real part of C[n] * exp(dt * (-decay[n] + i * wave[n]) * t)."""
    step = net.Exp(net.constant(net.rng.uniform(-3, -1, (INNER, 1)).astype(np.float32), "log_dt"))
    decay = net.Neg(net.Exp(net.constant(np.full((INNER, STATE), np.log(0.5), np.float32), "log_A_real")))
    wave = net.constant(np.tile(np.pi * np.arange(STATE, dtype=np.float32), (INNER, 1)), "A_imag")
    times = net.constant(np.arange(LENGTH, dtype=np.float32))
    size = net.Exp(net.Mul(net.unsqueeze(net.Mul(decay, step), 2), times))
    angle = net.Mul(net.unsqueeze(net.Mul(wave, step), 2), times)
    parts = [net.unsqueeze(net.weight(INNER, STATE, gain=2), 2) for _ in range(2)]
    real = net.Sub(net.Mul(parts[0], net.Cos(angle)), net.Mul(parts[1], net.Sin(angle)))
    return str(net.Mul(net.reduce("Sum", net.Mul(real, size), [1], keepdims=0), net.number(2.0)))


def _transformed(net: Net, u: str, kernel: str) -> str:
    """Multiply transforms of twice the length, so that nothing wraps around."""
    length, axis = (net.constant(np.array(n)) for n in (2 * LENGTH, 2))
    one = net.DFT(net.unsqueeze(u, 3), length, axis, onesided=1)
    two = net.DFT(net.unsqueeze(net.unsqueeze(kernel, 0), 3), length, axis, onesided=1)
    (a, b), (c, d) = (net.split(part, [1, 1], axis=3) for part in (one, two))
    real, imaginary = net.Sub(net.Mul(a, c), net.Mul(b, d)), net.Add(net.Mul(a, d), net.Mul(b, c))
    whole = net.DFT(net.Concat(*_mirrored(net, real, imaginary), axis=3), length, axis, inverse=1)
    return str(net.slice(net.squeeze(net.slice(whole, 0, 1, axis=3), 3), 0, LENGTH, axis=2))


def _mirrored(net: Net, real: str, imaginary: str) -> list[str]:
    """Write out the half of a spectrum that a one-sided transform leaves out."""
    parts = [net.Slice(part, *(np.array([v]) for v in (LENGTH - 1, 0, 2, -1))) for part in (real, imaginary)]
    return [net.Concat(real, parts[0], axis=2), net.Concat(imaginary, net.Neg(parts[1]), axis=2)]


def _long(net: Net, u: str, kernel: str) -> str:
    turned = net.Slice(kernel, *(np.array([v]) for v in (-1, -LENGTH - 1, 1, -1)))
    weight = net.unsqueeze(turned, 1)
    return str(net.Conv(u, weight, group=INNER, kernel_shape=[LENGTH], pads=[LENGTH - 1, 0]))


def shared() -> Net:
    """Draw a layer whose channels share their states (S5): h = rates * h + B u, y = C h, complex as two parts."""
    net = Net()
    x = net.linear(net.input("n", LENGTH, 8), 8, WIDTH)
    u = net.linear(x, WIDTH, INNER, bias=False)
    angles = np.linspace(0.1, 1.5, STATE).astype(np.float32)
    rates = [net.constant(0.9 * f(angles)) for f in (np.cos, np.sin)]
    given = [net.linear(u, INNER, STATE, bias=False) for _ in rates]
    state = [net.constant(np.zeros((1, STATE), np.float32)) for _ in rates]
    rows: list[list[str]] = [[], []]
    for t in range(LENGTH):
        now = [net.Gather(part, net.constant(np.array(t)), axis=1) for part in given]
        (a, b), (c, d) = state, rates
        turned = net.Sub(net.Mul(a, c), net.Mul(b, d)), net.Add(net.Mul(a, d), net.Mul(b, c))
        state = [net.Add(one, two) for one, two in zip(turned, now, strict=True)]
        for row, part in zip(rows, state, strict=True):
            row.append(net.unsqueeze(part, 1))
    real, imaginary = (net.linear(net.Concat(*row, axis=1), STATE, INNER, bias=False) for row in rows)
    y = net.Relu(net.Add(net.Sub(real, imaginary), net.Mul(u, net.vector(INNER))))
    net.output(net.linear(net.Add(x, net.linear(y, INNER, WIDTH)), WIDTH, 7))
    return net
