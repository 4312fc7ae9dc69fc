"""State that is fed back: hidden units and heads go on both sides, and 20 steps give what the masked original gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.channels.plan import Plan
from onnxprune.errors import UsageError
from onnxprune.evidence.oracle import masked_model
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from tests.micro.build import Net
from tests.oracle import session

HIDDEN, STEPS = 16, 20
Feeds = dict[str, np.ndarray]
RNG = np.random.default_rng(2)


def named(net: Net, tensor: str, name: str) -> str:
    """Give a tensor the name that exporters give it, and make it an output."""
    net.nodes.append(onnx.helper.make_node("Identity", [tensor], [name]))
    net.output(name)
    return name


def lstm() -> tuple[onnx.ModelProto, Feeds]:
    net = Net()
    x = net.input(1, "n", 6)
    h, c = net.input(1, "n", HIDDEN, name="h0"), net.input(1, "n", HIDDEN, name="c0")
    weights = [net.weight(1, 4 * HIDDEN, 6), net.weight(1, 4 * HIDDEN, HIDDEN), net.weight(1, 8 * HIDDEN)]
    y, hn, cn = net.LSTM(x, *weights, None, h, c, hidden_size=HIDDEN, outputs=3)
    net.output(net.linear(net.squeeze(y, 0, 1), HIDDEN, 5))
    named(net, hn, "hn"), named(net, cn, "cn")
    zero = np.zeros((1, 2, HIDDEN), dtype=np.float32)
    return net.model(), {"h0": zero, "c0": zero}


def gru() -> tuple[onnx.ModelProto, Feeds]:
    net = Net()
    x, h = net.input(1, "n", 6), net.input(1, "n", HIDDEN, name="state")
    weights = [net.weight(1, 3 * HIDDEN, 6), net.weight(1, 3 * HIDDEN, HIDDEN), net.weight(1, 6 * HIDDEN)]
    y, hn = net.GRU(x, *weights, None, h, hidden_size=HIDDEN, outputs=2)
    net.output(net.linear(net.squeeze(y, 0, 1), HIDDEN, 5))
    named(net, hn, "stateN")
    return net.model(), {"state": np.zeros((1, 2, HIDDEN), dtype=np.float32)}


def streaming_convolution() -> tuple[onnx.ModelProto, Feeds]:
    net = Net()
    x, cache = net.input("n", 6, 4), net.input("n", HIDDEN, 2, name="cache_in")
    y = net.Relu(net.Conv(x, net.weight(HIDDEN, 6, 1), net.weight(HIDDEN)))
    whole = net.Concat(cache, y, axis=2)
    named(net, net.slice(whole, -2, 1 << 30, axis=2), "cache_out")
    net.output(net.Conv(whole, net.weight(5, HIDDEN, 3), net.weight(5)))
    return net.model(), {"cache_in": np.zeros((2, HIDDEN, 2), dtype=np.float32)}


def decoder() -> tuple[onnx.ModelProto, Feeds]:
    """One layer of attention with a cache of keys and values, four heads of four."""
    net = Net()
    width, heads, size = 16, 4, 4
    x = net.input("n", 1, width)
    parts = []
    for kind in ("key", "value"):
        past = net.input("n", heads, "past", size, name=f"past_key_values.0.{kind}")
        new = net.transpose(net.reshape(net.linear(x, width, width), 0, 1, heads, size), 0, 2, 1, 3)
        parts.append(named(net, net.Concat(past, new, axis=2), f"present.0.{kind}"))
    query = net.transpose(net.reshape(net.linear(x, width, width), 0, 1, heads, size), 0, 2, 1, 3)
    scores = net.Mul(net.MatMul(query, net.transpose(parts[0], 0, 1, 3, 2)), net.number(0.5))
    mixed = net.transpose(net.MatMul(net.Softmax(scores, axis=-1), parts[1]), 0, 2, 1, 3)
    net.output(net.linear(net.reshape(mixed, 0, 1, width), width, 7))
    empty = np.zeros((2, heads, 0, size), dtype=np.float32)
    return net.model(), {f"past_key_values.0.{kind}": empty for kind in ("key", "value")}


FORMS: list[tuple[Callable[[], tuple[onnx.ModelProto, Feeds]], dict[str, str], tuple[int, ...]]] = [
    (lstm, {"hn": "h0", "cn": "c0"}, (1, 2, 6)),
    (gru, {"stateN": "state"}, (1, 2, 6)),
    (streaming_convolution, {"cache_out": "cache_in"}, (2, 6, 4)),
    (decoder, {f"present.0.{kind}": f"past_key_values.0.{kind}" for kind in ("key", "value")}, (2, 1, 16)),
]


def stream(model: onnx.ModelProto, states: Feeds, fed: dict[str, str], inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Run step after step with the state fed back; return what is not state."""
    opened = session(model)
    names = [output.name for output in opened.get_outputs()]
    results = []
    for x in inputs:
        outputs = dict(zip(names, opened.run(None, {"x": x, **states}), strict=True))
        states = {name: outputs[output] for output, name in fed.items()}
        results.append(next(value for name, value in outputs.items() if name not in fed))
    return results


@pytest.mark.parametrize(("made", "fed", "shape"), FORMS, ids=[form[0].__name__ for form in FORMS])
def test_twenty_steps_give_what_the_masked_original_gives(
    made: Callable[[], tuple[onnx.ModelProto, Feeds]], fed: dict[str, str], shape: tuple[int, ...]
) -> None:
    model, states = made()
    inputs = [RNG.normal(size=shape).astype(np.float32) for _ in range(STEPS)]
    wanted = PruneOptions(ratio=0.5, align=1, resize_io=tuple(fed.values()), compensate="none")
    result = prune(model, wanted)
    onnx.checker.check_model(result.model.proto, full_check=True)
    assert set(result.border.kept) == {*fed, *fed.values()}
    narrow = result.border.narrowed(states)
    assert all(narrow[name].size < states[name].size or not states[name].size for name in states)
    again = onnxprune.apply(model, Plan.from_json(result.plan.to_json()), run=onnxprune.Run(threads=1))
    assert again.model.proto == result.model.proto and again.border.kept.keys() == result.border.kept.keys()
    masked = masked_model(result.channels, result.keep).proto
    expected, found = (stream(m, s, fed, inputs) for m, s in ((masked, states), (result.model.proto, narrow)))
    for one, other in zip(expected, found, strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_whole_way_with_data_refits_and_compares() -> None:
    model, _ = gru()
    rng = np.random.default_rng(0)
    feeds = [
        {
            "x": rng.normal(size=(1, 4, 6)).astype(np.float32),
            "state": np.tanh(rng.normal(size=(1, 4, HIDDEN))).astype(np.float32),
        }
        for _ in range(24)
    ]
    result = onnxprune.prune(model, feeds, ratio=0.25, align=1, resize_io="state")
    assert result.compensation is not None
    assert result.model.proto.graph.input[1].type.tensor_type.shape.dim[2].dim_value == 12
    (entry,) = [e.value for e in result.model.proto.metadata_props if e.key == "onnxprune.resized"]
    assert entry == "state axis 2: 16 -> 12; stateN axis 2: 16 -> 12"
    assert any("'stateN' has another shape now" in warning for warning in result.warnings)


def test_states_by_hand_and_what_does_not_fit() -> None:
    model, _ = gru()
    by_hand = prune(model, PruneOptions(ratio=0.5, states=("stateN=state",), compensate="none"))
    assert by_hand.border.kept and by_hand.plan.states == ["stateN=state"]
    assert onnxprune.apply(model, by_hand.plan, run=onnxprune.Run(threads=1)).model.proto == by_hand.model.proto
    for options, words in (
        ({"resize_io": "stat"}, "did you mean"),
        ({"states": "stateN=x"}, "differ in type or size"),
        ({"resize_io": "state", "latency": 0.5, "ratio": None}, "give macs instead"),
    ):
        with pytest.raises(UsageError, match=words):
            prune(model, PruneOptions(**options))  # type: ignore[arg-type]
