"""Recurrent layers: a hidden unit that repeats another costs nothing once the weights that read it are refitted."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.graph.model import Model
from tests.compensate.small import network, prune, run

RNG = np.random.default_rng(17)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def model_with(op_type: str, direction: str, **attributes: int) -> Model:
    """Hidden units 0 and 5 of a layer do the same; so do inputs 0 and 4 of what it reads."""
    directions, gates, hidden = 2 if direction == "bidirectional" else 1, GATES[op_type], 6
    w, r = 0.5 * normal(directions, gates, hidden, 5), 0.3 * normal(directions, gates, hidden, hidden)
    b = 0.3 * normal(directions, 2, gates, hidden)
    w[:, :, 5], r[:, :, 5], b[:, :, :, 5] = w[:, :, 0], r[:, :, 0], b[:, :, :, 0]
    first = normal(3, 5)
    first[:, 4] = first[:, 0]
    weights = {
        "first": first,
        "w": w.reshape(directions, -1, 5),
        "r": r.reshape(directions, -1, hidden),
        "b": b.reshape(directions, -1),
        "shape": np.array([0, 0, -1]),
        "last": normal(hidden * directions, 4),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node(op_type, ["a", "w", "r", "b"], ["s"], hidden_size=hidden, direction=direction, **attributes),
        helper.make_node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "last"], ["y"]),
    ]
    return network(nodes, weights, [7, "n", 3], None)


@pytest.mark.parametrize(
    ("op_type", "direction", "attributes"),
    [
        ("LSTM", "forward", {}),
        ("LSTM", "bidirectional", {}),
        ("GRU", "reverse", {"linear_before_reset": 1}),
        ("GRU", "bidirectional", {"linear_before_reset": 1}),
        ("RNN", "forward", {}),
    ],
)
def test_a_repeated_hidden_unit_and_a_repeated_input_cost_nothing(op_type, direction, attributes) -> None:
    model = model_with(op_type, direction, **attributes)
    feeds = [{"x": normal(7, 8, 3)} for _ in range(8)]
    channels = prune(model, {}, feeds).channels
    removed = {n: [group.size - 1] for n, group in enumerate(channels.groups) if group.size in (5, 6)}
    assert len(removed) >= 2
    result = prune(model, removed, feeds)
    (wanted,), (cut,), (given,) = (run(m, feeds) for m in (model, result.cut, result.refitted))
    assert np.abs(cut - wanted).max() > 0.05
    np.testing.assert_allclose(given, wanted, atol=2e-3 * np.abs(wanted).max())  # ridge, float32 moments


def test_a_gate_that_resets_first_keeps_its_recurrent_weights() -> None:
    model = model_with("GRU", "forward")
    feeds = [{"x": normal(7, 8, 3)} for _ in range(8)]
    channels = prune(model, {}, feeds).channels
    number = next(n for n, group in enumerate(channels.groups) if group.size == 6)
    result = prune(model, {number: [5]}, feeds)
    before, after = (next(t for t in m.proto.graph.initializer if t.name == "r") for m in (result.cut, result.refitted))
    before, after = (np.frombuffer(t.raw_data, np.float32).reshape(3, 5, 5) for t in (before, after))
    np.testing.assert_array_equal(before[2], after[2])
    assert np.abs(before[:2] - after[:2]).max() > 0.01
