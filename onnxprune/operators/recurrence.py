"""LSTM, GRU and RNN: a product with the input and one with the state of the step before."""

from __future__ import annotations

from math import prod

from onnxprune.operators.call import Attributes, Call, Shape
from onnxprune.operators.layouts import Layout, Recurrent
from onnxprune.operators.operator import MICROSOFT, Contraction, Operator, describe
from onnxprune.operators.shapes import recurrence


def _macs(call: Call) -> int:
    """Every step of every sample multiplies by all of W (input) and R (recurrence), of both directions."""
    return prod(call.input(0)[:2]) * (prod(call.input(1)) + prod(call.input(2)))


def _contracts(attributes: Attributes) -> tuple[Contraction, ...]:
    """Weights are (directions, gates * hidden, inputs); the output (steps, directions, samples, hidden)."""
    return (
        Contraction(0, 2, 1, reads=2, writes=1, output_axis=3),
        Contraction(-1, 3, 2, reads=2, writes=1, output_axis=3),
    )


def _layout(attributes: Attributes, dims: Shape, weight: int) -> Layout | None:
    return Recurrent()


describe(
    Operator(
        op_type,
        macs=_macs,
        way="recurrence",
        contracts=_contracts,
        layout=_layout,
        learned=(1, 2, 3),
        gates=gates,
        quantized=op_type == "LSTM",
        dynamic=(1, 2) if op_type == "LSTM" else (),
    )
    for op_type, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
)
describe((Operator("DynamicQuantizeLSTM", MICROSOFT, macs=_macs, shapes=recurrence, gates=4),))
