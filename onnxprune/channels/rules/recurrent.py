"""Recurrent layers: hidden positions are written by every gate, fed back, and read by the next layer."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.channels.context import Context
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.space import Axes
from onnxprune.types import IntArray

ZERO_AT_ZERO = frozenset({"tanh", "relu", "leakyrelu", "thresholdedrelu", "elu", "softsign", "scaledtanh"})
"""Activations with f(0) = 0."""


@dataclass(frozen=True)
class Cell:
    """What distinguishes the three layers.

    gates: number of gates stacked on axis 1 of W and R.
    candidates: per direction, which of the listed activations a hidden position must be zero through.
    activations: how many activations a direction lists.
    """

    gates: int
    activations: int
    candidates: tuple[int, ...]


CELLS = {"LSTM": Cell(4, 3, (1, 2)), "GRU": Cell(3, 2, (1,)), "RNN": Cell(1, 1, (0,))}


@rule("LSTM", "GRU", "RNN")
def recurrent(ctx: Context) -> None:
    """h[t, d, n, j] = cell over g of (sum of W[d, (g, j), c] * x[t, n, c] + R[d, (g, j), k] * h[t-1, d, n, k])"""
    cell = CELLS[ctx.node.op_type]
    hidden = ctx.fresh(ctx.shape(2)[2])
    weight, recurrence = ctx.axes(1), ctx.axes(2)
    _tie_gates(ctx, cell.gates, hidden, weight[1], recurrence[1])
    ctx.tie(ctx.axes(0)[2], weight[2])
    ctx.tie(hidden, recurrence[2])
    for index in (1, 2):
        ctx.pin(ctx.axes(index)[0], "the directions of a recurrent layer")
        ctx.role(index, 1, "writes")
        ctx.role(index, 2, "reads")
    _states(ctx, cell, hidden)


@rule("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(ctx: Context) -> None:
    """LSTM with W[d, c, (g, j)] and R[d, k, (g, j)] stored as integers with a scale per direction or per (g, j)"""
    cell = CELLS["LSTM"]
    hidden = ctx.fresh(ctx.shape(2)[1])
    weight, recurrence = ctx.axes(1), ctx.axes(2)
    _tie_gates(ctx, cell.gates, hidden, weight[2], recurrence[2])
    ctx.tie(ctx.axes(0)[2], weight[1])
    ctx.tie(hidden, recurrence[1])
    for index in (1, 2):
        ctx.pin(ctx.axes(index)[0], "the directions of a recurrent layer")
        ctx.role(index, 2, "writes")
        ctx.role(index, 1, "reads")
    for index, stored in ((8, weight), (9, weight), (10, recurrence), (11, recurrence)):
        axes = ctx.axes(index)
        ctx.pin(axes[0], "the directions of a recurrent layer")
        if len(axes) > 1 and len(axes[1]) > 1:
            ctx.tie(axes[1], stored[2])
            ctx.role(index, 1, "divides" if index in (8, 10) else "scales")
    _states(ctx, cell, hidden)


def _tie_gates(ctx: Context, gates: int, hidden: IntArray, *axes: IntArray) -> None:
    """Axes that stack gates; position j of every gate lives or dies with hidden position j."""
    for flat in axes:
        ctx.product(flat, [ctx.pinned(len(flat) // len(hidden), "the gates of a recurrent layer"), hidden])
    ctx.attribute_size("hidden_size", hidden)


def _states(ctx: Context, cell: Cell, hidden: IntArray) -> None:
    """Bias, peepholes, initial states and outputs; input numbers are those of every recurrent layer."""
    data = ctx.axes(0)
    last = bool(ctx.node.attribute("layout", 0))
    batch = data[0] if last else data[1]
    sequence = data[1] if last else data[0]
    directions = ctx.pinned(ctx.shape(1)[0], "the directions of a recurrent layer")
    ctx.pin(sequence, "a recurrent layer runs along it")
    ctx.per_batch(4, batch, "sequence lengths")
    if ctx.has(3):
        _stacked(ctx, 3, cell.gates * 2, hidden)
    if ctx.has(7):
        _stacked(ctx, 7, 3, hidden)
    for index in (5, 6):
        if ctx.has(index):
            axes = ctx.axes(index)
            ctx.tie(axes[0] if last else axes[1], batch)
            ctx.pin(axes[1] if last else axes[0], "the directions of a recurrent layer")
            ctx.tie(axes[2], hidden)
            ctx.role(index, 2, "scales")
    stays_zero = _is_zero_at_zero(ctx, cell) and all(ctx.is_zero(i) for i in (1, 2, 3, 7))
    output_zero = stays_zero and ctx.is_zero(5) and ctx.is_zero(6)
    cell_zero = stays_zero and ctx.is_zero(6)
    states: Axes = [batch, directions, hidden] if last else [directions, batch, hidden]
    every: Axes = [batch, sequence, directions, hidden] if last else [sequence, directions, batch, hidden]
    ctx.set(every, zero=output_zero)
    ctx.set(states, output=1, zero=output_zero)
    ctx.set(states, output=2, zero=cell_zero)


def _stacked(ctx: Context, index: int, parts: int, hidden: IntArray) -> None:
    directions, flat = ctx.axes(index)
    ctx.pin(directions, "the directions of a recurrent layer")
    ctx.product(flat, [ctx.pinned(parts, "the gates of a recurrent layer"), hidden])
    ctx.role(index, 1, "scales")


def _is_zero_at_zero(ctx: Context, cell: Cell) -> bool:
    """Tell whether a hidden position whose weights are zero stays zero."""
    listed = ctx.node.attribute("activations")
    if not listed:
        return True
    names = [(a.decode() if isinstance(a, bytes) else str(a)).lower() for a in listed]
    return all(
        names[start + number] in ZERO_AT_ZERO
        for start in range(0, len(names), cell.activations)
        for number in cell.candidates
    )
