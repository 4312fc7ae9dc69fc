"""Selective scans whose time loop is a Scan or a Loop, of any length."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.micro.build import Net
from tests.state_space.selective import INNER, KERNEL, RANK, STATE, WIDTH, decays

FLOAT = TensorProto.FLOAT


def scanned(style: str = "slices", length: int | str = "t") -> Net:
    """Draw a layer with a loop over time.

    style: "slices" (Scan over decays, what is added and C), "captured" (the body computes them, A from outside),
    "weights" (projections of the step, B and C are in the body too), "second" (Scan along axis 1, backwards),
    "loop" (Loop that picks its position by number) or "growing" (Loop that appends to what it gave).
    """
    net = Net()
    x = net.linear(net.input("n", length, 8), 8, WIDTH)
    u, gate = net.split(net.linear(x, WIDTH, 2 * INNER, bias=False), [INNER, INNER], axis=2)
    line = net.pad(net.transpose(u, 0, 2, 1), [0, 0, KERNEL - 1, 0, 0, 0])
    line = net.Conv(line, net.weight(INNER, 1, KERNEL), net.weight(INNER), group=INNER, kernel_shape=[KERNEL])
    u = net.transpose(line, 0, 2, 1)
    u = net.Mul(u, net.Sigmoid(u))
    shape = net.Concat(net.slice(net.Shape(u), 0, 1, axis=0), np.array([INNER, STATE]), axis=0)
    start = net.ConstantOfShape(shape)
    y = _with_weights(net, u, start) if style == "weights" else _with_parameters(net, style, u, start)
    y = net.Add(y, net.Mul(u, net.vector(INNER)))
    y = net.linear(net.Mul(y, net.Mul(gate, net.Sigmoid(gate))), INNER, WIDTH, bias=False)
    net.output(net.linear(net.Add(x, y), WIDTH, 7))
    return net


def _with_parameters(net: Net, style: str, u: str, start: str) -> str:
    found = net.split(net.linear(u, INNER, RANK + 2 * STATE, bias=False), [RANK, STATE, STATE], axis=2)
    step = net.Softplus(net.linear(found[0], RANK, INNER))
    if style == "captured":
        outer = decays(net)
        parts = [net.transpose(part, 1, 0, 2) for part in (step, *found[1:], u)]
        sizes = [INNER, STATE, STATE, INNER]
        return str(net.transpose(_scan(net, start, parts, sizes, lambda body, *at: _cell(body, outer, *at)), 1, 0, 2))
    kept = net.Exp(net.Mul(net.unsqueeze(step, 3), decays(net)))
    added = net.Mul(net.Mul(net.unsqueeze(step, 3), net.unsqueeze(found[1], 2)), net.unsqueeze(u, 3))
    if style in ("loop", "growing"):
        return _loop(net, style, start, u, kept, added, found[2])
    if style == "second":
        more = {"scan_input_axes": [1] * 3, "scan_output_axes": [1]}
        more |= {"scan_input_directions": [1] * 3, "scan_output_directions": [1]}
        return _scan(net, start, [kept, added, found[2]], [0, 0, STATE], _update, **more)
    parts = [net.transpose(part, 1, 0, 2, 3) for part in (kept, added)] + [net.transpose(found[2], 1, 0, 2)]
    return str(net.transpose(_scan(net, start, parts, [0, 0, STATE], _update), 1, 0, 2))


def _with_weights(net: Net, u: str, start: str) -> str:
    def cell(body: Net, state: str, now: str) -> tuple[str, str]:
        found = body.linear(now, INNER, RANK + 2 * STATE, bias=False)
        step, b, c = body.split(found, [RANK, STATE, STATE], axis=1)
        step = body.Softplus(body.linear(step, RANK, INNER))
        return _cell(body, decays(body, folded=True), state, step, b, c, now)

    return str(net.transpose(_scan(net, start, [net.transpose(u, 1, 0, 2)], [INNER], cell), 1, 0, 2))


def _update(body: Net, state: str, kept: str, added: str, c: str) -> tuple[str, str]:
    state = body.Add(body.Mul(kept, state), added)
    return state, body.squeeze(body.MatMul(state, body.unsqueeze(c, 2)), 2)


def _cell(body: Net, outer: str, state: str, step: str, b: str, c: str, now: str) -> tuple[str, str]:
    kept = body.Exp(body.Mul(body.unsqueeze(step, 2), outer))
    return _update(body, state, kept, body.Mul(body.unsqueeze(body.Mul(step, now), 2), body.unsqueeze(b, 1)), c)


def _scan(net: Net, start: str, parts: list[str], sizes: list[int], cell, **more: object) -> str:  # type: ignore[no-untyped-def]
    """Add a Scan with one state. sizes: of the last axis of each part; 0: it is like the state."""
    body = net.child()
    names = [body.fresh("now") for _ in parts]
    state = body.fresh("state")
    body.inputs.append(helper.make_tensor_value_info(state, FLOAT, ["n", INNER, STATE]))
    for name, size in zip(names, sizes, strict=True):
        body.inputs.append(helper.make_tensor_value_info(name, FLOAT, ["n", size] if size else ["n", INNER, STATE]))
    after, given = cell(body, state, *names)
    body.output(after, shape=["n", INNER, STATE])
    body.output(given, shape=["n", INNER])
    _, found = net.Scan(start, *parts, body=body.graph(), num_scan_inputs=len(parts), outputs=2, **more)
    return str(found)


def _loop(net: Net, style: str, start: str, u: str, kept: str, added: str, c: str) -> str:
    """Add a Loop whose body picks the position that its number says."""
    body = net.child()
    number, going, state = (body.fresh(stem) for stem in ("number", "going", "state"))
    body.inputs += [
        helper.make_tensor_value_info(number, TensorProto.INT64, []),
        helper.make_tensor_value_info(going, TensorProto.BOOL, []),
        helper.make_tensor_value_info(state, FLOAT, ["n", INNER, STATE]),
    ]
    after, given = _update(body, state, *(body.Gather(part, number, axis=1) for part in (kept, added, c)))
    body.output(body.Identity(going), shape=[])
    body.output(after, shape=["n", INNER, STATE])
    states = [start]
    if style == "growing":
        so_far = body.fresh("so_far")
        body.inputs.append(helper.make_tensor_value_info(so_far, FLOAT, ["n", "m", INNER]))
        given = body.Concat(so_far, body.unsqueeze(given, 1), axis=1)
        states.append(net.slice(u, 0, 0, axis=1))
    body.output(given, shape=["n", "k", INNER] if style == "growing" else ["n", INNER])
    length = net.squeeze(net.slice(net.Shape(u), 1, 2, axis=0), 0)
    types = [(TensorProto.BOOL, []), (FLOAT, ["n", INNER, STATE])]
    _, found = net.Loop(length, net.constant(np.array(True)), *states, body=body.graph(types), outputs=2)
    return str(found if style == "growing" else net.transpose(found, 1, 0, 2))
