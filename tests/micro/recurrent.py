"""Pattern 7: hidden units of LSTM, GRU and RNN."""

import numpy as np

from tests.micro.build import Net, case

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def cell(
    net: Net,
    kind: str,
    x: str,
    inner: int,
    hidden: int,
    directions: int = 1,
    outputs: int = 1,
    state=(),
    peephole=None,
    bias: bool = True,
    **more,
):
    """Add one recurrent node; `state` are initial_h (and initial_c)."""
    rows = GATES[kind] * hidden
    weights = [net.weight(directions, rows, inner, gain=0.3), net.weight(directions, rows, hidden, gain=0.3)]
    b = net.weight(directions, 2 * rows) if bias else None
    extra = [None, *state]
    if peephole:
        extra += [None] * (3 - len(extra)) + [peephole]
    direction = "bidirectional" if directions == 2 else "forward"
    return net.op(kind, x, *weights, b, *extra, hidden_size=hidden, outputs=outputs, **{"direction": direction, **more})


def sequence(net: Net, width: int = 6) -> str:
    """Draw a (time, batch, width) input."""
    return net.input(5, "batch", width)


def last(net: Net, y: str) -> str:
    """Take the last step of (time, batch, features)."""
    return net.Gather(y, net.constant(np.array(-1)), axis=0)


def drawn(kind: str, net: Net, **more) -> None:
    """Draw dense -> cell -> last step -> dense."""
    x = net.linear(sequence(net), 6, 8)
    y = net.squeeze(cell(net, kind, x, 8, 12, **more), 1)
    net.output(net.linear(last(net, y), 12, 5))


@case(share=0.35)
@case("opset7", share=0.35, opset=7)
@case("constants", share=0.35, weights="constant")
@case("opset22", share=0.35, opset=22)
def lstm(net):
    drawn("LSTM", net)


@case(share=0.35)
@case("opset11", share=0.35, opset=11)
def gru(net):
    drawn("GRU", net, linear_before_reset=1)


@case(share=0.35)
def gru_reset_first(net):
    drawn("GRU", net, linear_before_reset=0)


@case(share=0.4)
def rnn_reverse_relu(net):
    drawn("RNN", net, direction="reverse", activations=["Relu"])


@case(share=0.3)
def lstm_without_bias(net):
    drawn("LSTM", net, bias=False)


@case(share=0.35)
def lstm_peephole(net):
    drawn("LSTM", net, peephole=net.weight(1, 36))


def merged(kind: str, net: Net, **more) -> None:
    """Draw a bidirectional cell whose directions are merged as torch does it."""
    x = net.linear(sequence(net), 6, 8)
    y = cell(net, kind, x, 8, 8, directions=2, **more)
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, -1)
    net.output(net.linear(net.Relu(net.linear(y, 16, 12)), 12, 5))


@case(share=0.35)
@case("opset9", share=0.35, opset=9)
def lstm_bidirectional(net):
    merged("LSTM", net)


@case(share=0.35)
def gru_bidirectional(net):
    merged("GRU", net)


@case(share=0.35)
def rnn_bidirectional(net):
    merged("RNN", net)


@case(share=0.35)
def lstm_bidirectional_computed_merge(net):
    """The merge of the directions with a target from Shape."""
    x = net.linear(sequence(net), 6, 8)
    y = net.transpose(cell(net, "LSTM", x, 8, 8, directions=2), 0, 2, 1, 3)
    net.output(net.linear(net.computed_reshape(y, 0, 0, 16), 16, 5))


@case(share=0.35)
def lstm_bidirectional_two_layers(net):
    x = sequence(net)
    y = net.reshape(net.transpose(cell(net, "LSTM", x, 6, 8, directions=2), 0, 2, 1, 3), 0, 0, 16)
    y = net.reshape(net.transpose(cell(net, "LSTM", y, 16, 8, directions=2), 0, 2, 1, 3), 0, 0, 16)
    net.output(net.linear(y, 16, 5))


@case(share=0.35)
def lstm_stacked(net):
    y = net.squeeze(cell(net, "LSTM", sequence(net), 6, 12), 1)
    y = net.squeeze(cell(net, "LSTM", y, 12, 12), 1)
    net.output(net.linear(last(net, y), 12, 5))


@case(share=0.35)
def lstm_zero_states_by_expand(net):
    """torch: initial states are zeros expanded to the batch."""
    x = net.linear(sequence(net), 6, 8)
    batch = net.unsqueeze(net.Gather(net.Shape(x), net.constant(np.array(1)), axis=0), 0)
    zeros = net.ConstantOfShape(net.Concat(np.array([1]), batch, np.array([12]), axis=0))
    y = net.squeeze(cell(net, "LSTM", x, 8, 12, state=[zeros, zeros]), 1)
    net.output(net.linear(last(net, y), 12, 5))


@case(share=0.4)
def lstm_learned_states(net):
    x = net.input(5, 2, 6)
    state = [net.weight(1, 2, 12), net.weight(1, 2, 12)]
    y = net.squeeze(cell(net, "LSTM", x, 6, 12, state=state), 1)
    net.output(net.linear(last(net, y), 12, 5))


@case(share=0.4)
def gru_state_from_encoder(net):
    """The initial state is computed by a dense layer, so both share the hidden axis."""
    x = sequence(net)
    start = net.unsqueeze(net.Tanh(net.linear(last(net, x), 6, 12)), 0)
    y = net.squeeze(cell(net, "GRU", x, 6, 12, state=[start]), 1)
    net.output(net.linear(last(net, y), 12, 5))


@case(share=0.4)
@case("opset14", share=0.4, opset=14)
def lstm_last_state_only(net):
    _, h, c = cell(net, "LSTM", sequence(net), 6, 12, outputs=3)
    net.output(net.linear(net.Concat(net.squeeze(h, 0), net.squeeze(c, 0), axis=-1), 24, 5))


@case(share=0.4)
def lstm_seq2seq(net):
    """The final states of one LSTM start the next."""
    x = sequence(net)
    _, h, c = cell(net, "LSTM", x, 6, 12, outputs=3)
    y = net.squeeze(cell(net, "LSTM", x, 6, 12, state=[h, c]), 1)
    net.output(net.linear(y, 12, 5))


@case(share=0.75)
def lstm_state_in_and_out(net):
    """Streaming (silero): states are graph inputs and outputs, so the hidden axis stays, the dense layer goes."""
    x = net.linear(sequence(net), 6, 16)
    h, c = (net.input(1, "batch", 8, name=name) for name in "hc")
    y, h, c = cell(net, "LSTM", x, 16, 8, outputs=3, state=[h, c])
    net.output(net.linear(net.squeeze(y, 1), 8, 5), h, c)


@case(share=0.35, opset=14, runs=False)
def gru_layout_batch_first(net):
    """layout=1: (batch, time, directions, hidden); onnxruntime's CPU has no kernel for it."""
    x = net.linear(net.input("batch", 5, 6), 6, 8)
    y = net.squeeze(cell(net, "GRU", x, 8, 12, layout=1), 2)
    net.output(net.linear(net.Gather(y, net.constant(np.array(-1)), axis=1), 12, 5), shape=("batch", 5))


@case(share=0.35)
def conv_to_lstm(net):
    """CRNN: columns of the feature map become time steps, (C, H) the features."""
    y = net.Relu(net.conv(net.input("batch", 1, 4, 8), 1, 12))
    y = net.MaxPool(y, kernel_shape=[2, 1], strides=[2, 1])
    y = net.reshape(net.transpose(y, 3, 0, 1, 2), 8, -1, 24)
    y = net.squeeze(cell(net, "LSTM", y, 24, 12), 1)
    net.output(net.linear(y, 12, 5))


@case(share=0.35)
def conv_to_gru_squeezed(net):
    """The height is one: Squeeze, transpose, GRU both ways."""
    y = net.Relu(net.Conv(net.input("batch", 1, 4, 8), net.weight(12, 1, 4, 3), net.weight(12)))
    y = net.transpose(net.squeeze(y, 2), 2, 0, 1)
    y = cell(net, "GRU", y, 12, 8, directions=2)
    net.output(net.linear(net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, 16), 16, 5))


@case(share=0.45)
def unrolled_rnn(net):
    """One weight used at every step, drawn step by step."""
    x = net.input("batch", 5, 6)
    inner, hidden, bias = net.weight(6, 12), net.weight(12, 12), net.weight(12)
    h = net.constant(np.zeros((1, 12), np.float32))
    for step in range(5):
        now = net.Gather(x, net.constant(np.array(step)), axis=1)
        h = net.Tanh(net.Add(net.Add(net.MatMul(now, inner), net.MatMul(h, hidden)), bias))
    net.output(net.linear(h, 12, 5))


@case(share=0.4)
def unrolled_lstm(net):
    """Keras: gates by Split of one MatMul, weights shared by every step."""
    x = net.input("batch", 4, 6)
    inner, hidden, bias = net.weight(6, 48), net.weight(12, 48, gain=0.5), net.weight(48)
    h = c = net.constant(np.zeros((1, 12), np.float32))
    for step in range(4):
        now = net.Gather(x, net.constant(np.array(step)), axis=1)
        gates = net.Add(net.Add(net.MatMul(now, inner), net.MatMul(h, hidden)), bias)
        i, f, g, o = net.split(gates, [12] * 4)
        c = net.Add(net.Mul(net.Sigmoid(f), c), net.Mul(net.Sigmoid(i), net.Tanh(g)))
        h = net.Mul(net.Sigmoid(o), net.Tanh(c))
    net.output(net.linear(h, 12, 5))
