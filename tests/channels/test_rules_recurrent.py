"""Recurrent layers: gates, states and directions beyond the micro cases."""

import numpy as np
import pytest

from tests.channels.halving import attribute, halve
from tests.micro.build import Net

STEPS, WIDTH, HIDDEN = 5, 8, 12
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def start(net: Net) -> str:
    return net.linear(net.input(STEPS, "batch", 6), 6, WIDTH)


def weights(net: Net, kind: str, directions: int = 1) -> list[str]:
    rows = GATES[kind] * HIDDEN
    return [net.weight(directions, rows, size, gain=0.3) for size in (WIDTH, HIDDEN)]


def close(net: Net, y: str, directions: int = 1) -> Net:
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, directions * HIDDEN)
    net.output(net.linear(y, directions * HIDDEN, 3))
    return net


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("directions", [1, 2])
def test_hidden_units_go_from_every_gate_and_direction(kind: str, directions: int) -> None:
    net = Net()
    bias = net.weight(directions, 2 * GATES[kind] * HIDDEN)
    direction = "bidirectional" if directions == 2 else "reverse"
    y = net.op(kind, start(net), *weights(net, kind, directions), bias, hidden_size=HIDDEN, direction=direction)
    halved = halve(close(net, y, directions))
    assert attribute(halved.node(kind), "hidden_size") == HIDDEN // 2
    assert halved.shape(kind, 2) == [directions, GATES[kind] * HIDDEN // 2, HIDDEN // 2]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_state_from_a_product_of_activations_follows(kind: str) -> None:
    """The contraction of two hidden states is exact because both are zero where units are removed."""
    net = Net()
    y = net.op(kind, start(net), *weights(net, kind), hidden_size=HIDDEN)
    y = net.squeeze(y, 1)
    gram = net.MatMul(net.transpose(y, 1, 0, 2), net.transpose(y, 1, 2, 0))
    net.output(net.linear(gram, STEPS, 3))
    halved = halve(net)
    assert all(group.exact for group in halved.channels.groups)


def test_units_that_do_not_rest_at_zero_are_not_exact_where_they_are_contracted() -> None:
    net = Net()
    y = net.RNN(start(net), *weights(net, "RNN"), hidden_size=HIDDEN, activations=["Sigmoid"])
    y = net.squeeze(y, 1)
    gram = net.MatMul(net.transpose(y, 1, 0, 2), net.transpose(y, 1, 2, 0))
    net.output(net.linear(gram, STEPS, 3))
    halved = halve(net)
    assert not all(group.exact for group in halved.channels.groups)


def test_lengths_of_sequences_stay() -> None:
    net = Net()
    x = net.linear(net.input(STEPS, 2, 6), 6, WIDTH)
    lengths = net.constant(np.array([3, 5], np.int32))
    y = net.GRU(x, *weights(net, "GRU"), None, lengths, hidden_size=HIDDEN)
    assert halve(close(net, y)).shape("GRU", 4) == [2]


def test_an_lstm_with_integer_weights() -> None:
    net = Net()
    integers = [
        net.constant(net.rng.integers(-60, 60, size=(1, size, 4 * HIDDEN)).astype(np.int8)) for size in (WIDTH, HIDDEN)
    ]
    scales = [net.constant(net.rng.uniform(0.002, 0.004, (1, 4 * HIDDEN)).astype(np.float32)) for _ in range(2)]
    zeros = [net.constant(np.zeros((1, 4 * HIDDEN), np.int8)) for _ in range(2)]
    bias = net.weight(1, 8 * HIDDEN)
    tables = [scales[0], zeros[0], scales[1], zeros[1]]
    y = net.ms("DynamicQuantizeLSTM", start(net), *integers, bias, None, None, None, None, *tables, hidden_size=HIDDEN)
    halved = halve(close(net, y), tolerance=0.02)
    assert halved.shape("DynamicQuantizeLSTM", 2) == [1, HIDDEN // 2, 2 * HIDDEN]
    assert halved.shape("DynamicQuantizeLSTM", 8) == [1, 2 * HIDDEN]
