"""Layers in bodies of If: scored and refitted like those of the same network written without control flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxprune.channels.analyse import analyse
from onnxprune.errors import NothingToPruneError
from onnxprune.evidence.oracle import masked_model
from onnxprune.graph.model import Model, load
from onnxprune.methods.calibration import calibration
from onnxprune.methods.factorize import factorize
from onnxprune.methods.factorize_options import FactorizeOptions
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import look
from onnxprune.methods.sparsify import sparsify
from onnxprune.methods.sparsify_options import SparsifyOptions
from onnxprune.types import Array
from tests.methods import bodies

OPTIONS = PruneOptions(ratio=0.5, compensate="lstsq", align=1)
ALL = replace(OPTIONS, cut_unfitted=True)
RUNTIME = Runtime(threads=1)
TOLERANCE = 1e-4
"""Of the outputs' largest value: single precision, summed in another order."""


def run(model: Model | onnx.ModelProto, feeds: list[dict[str, Array]]) -> Array:
    proto = model.proto if isinstance(model, Model) else model
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


def same(one: Array, two: Array) -> bool:
    return bool(np.abs(one - two).max() <= TOLERANCE * np.abs(two).max())


@pytest.mark.parametrize("make", bodies.FOLLOWED)
def test_a_prune_with_data_gives_what_it_gives_without_control_flow(make: Callable[[], onnx.ModelProto]) -> None:
    proto = make()
    plain = bodies.plain(proto)
    wanted = prune(plain, ALL, bodies.samples(plain), runtime=RUNTIME)
    result = prune(proto, ALL, bodies.samples(proto), runtime=RUNTIME)
    onnx.checker.check_model(result.model.proto)
    fresh = bodies.samples(proto, seed=5)
    given, expected = run(result.model, fresh), run(wanted.model, bodies.samples(plain, seed=5))
    assert same(given, expected)
    assert not same(expected, run(plain, bodies.samples(plain, seed=5)))  # something was removed
    assert wanted.compensation and result.compensation
    assert sum(layer.used for layer in result.compensation.layers) == sum(e.used for e in wanted.compensation.layers)


@pytest.mark.parametrize("make", bodies.FOLLOWED)
def test_what_is_removed_in_a_body_equals_zeroing(make: Callable[[], onnx.ModelProto]) -> None:
    proto = make()
    result = prune(proto, ALL, bodies.samples(proto), runtime=RUNTIME)
    assert result.uncompensated is not None
    masked = masked_model(result.channels, result.keep)
    for mode in (16, 8):
        feeds = bodies.samples(proto, mode)
        assert same(run(result.uncompensated, feeds), run(masked, feeds))


@pytest.mark.parametrize("make", [bodies.by_input, bodies.captured, bodies.in_constants, bodies.same_names])
def test_a_branch_that_no_sample_takes_is_left_alone_and_named(make: Callable[[], onnx.ModelProto]) -> None:
    proto = make()
    result = prune(proto, OPTIONS, bodies.samples(proto), runtime=RUNTIME)
    other = bodies.samples(proto, 8)
    assert np.array_equal(run(result.model, other), run(proto, other))
    assert list(result.reasons.values()) == ["in a branch that no sample takes"] * 2
    assert any("2 groups" in note and "% of the parameters" in note for note in result.warnings)


def test_what_no_sample_takes_is_cut_when_asked_for() -> None:
    proto = bodies.by_input()
    result = prune(proto, ALL, bodies.samples(proto), runtime=RUNTIME)
    assert not result.reasons and len(result.keep) == 4


def test_nothing_but_what_cannot_be_refitted_ends_with_the_reason_and_the_cure() -> None:
    proto = bodies.by_input()
    options = PruneOptions(ratio=0.5, only=("oconv*",))
    with pytest.raises(NothingToPruneError, match=r"no sample takes.*cut_unfitted"):
        prune(proto, options, bodies.samples(proto), runtime=RUNTIME)


def test_a_weight_that_another_branch_reads_too_is_not_refitted() -> None:
    """The last layer of both branches is one: it is seen in one of them only."""
    table = bodies.weights() | {n: a for n, a in bodies.weights(7, "o").items() if n[-1] != "3"}
    table["w4"] = np.eye(5, dtype=np.float32)[:, :, None]
    shared = onnx.helper.make_node("Conv", ["c3", "w4"], ["out"], name="shared")
    again = onnx.helper.make_node("Conv", ["x3", "w4"], ["oout"], name="shared_again")
    head = onnx.helper.make_node("Conv", ["or2", "w3", "b3"], ["x3"], name="head", pads=[1, 1])
    then = bodies.graph([*bodies.layers("x", "c3"), shared], output="out")
    relu = onnx.helper.make_node("Relu", ["oc2"], ["or2"])
    other = bodies.graph([*bodies.layers("x", "oc2", "o", (1, 2)), relu, head, again], output="oout")
    nodes = [bodies.IS_SIXTEEN, bodies.choice("taken", then, other)]
    proto = bodies.model(nodes, [bodies.SIXTEEN, *bodies.stored(table)], [bodies.MODE])
    result = prune(proto, OPTIONS, bodies.samples(proto), runtime=RUNTIME)
    feeds = bodies.samples(proto, 8)
    assert np.array_equal(run(result.model, feeds), run(proto, feeds))
    assert not same(run(result.model, bodies.samples(proto)), run(proto, bodies.samples(proto)))


def test_a_weight_that_two_layers_and_another_branch_read_is_not_refitted() -> None:
    table = bodies.weights() | {"w4": np.tile(np.eye(5, dtype=np.float32)[:, :, None], 1)}
    table["w4"] = np.concatenate([table["w4"], np.zeros((5, 5, 399), np.float32)], axis=2)  # too large for a copy
    twice = [
        onnx.helper.make_node("Conv", ["c3", "w4"], ["d3"], name="once", pads=[0, 399]),
        onnx.helper.make_node("Conv", ["d3", "w4"], ["out"], name="twice", pads=[0, 399]),
    ]
    then = bodies.graph([*bodies.layers("x", "c3"), *twice], output="out")
    head = onnx.helper.make_node("Conv", ["x", "ow"], ["o3"], name="other", pads=[1, 1])
    other = bodies.graph(
        [head, onnx.helper.make_node("Conv", ["o3", "w4"], ["oout"], name="again", pads=[0, 399])], output="oout"
    )
    table["ow"] = np.full((5, 3, 3), 0.1, np.float32)
    proto = bodies.model(
        [bodies.IS_SIXTEEN, bodies.choice("taken", then, other)],
        [bodies.SIXTEEN, *bodies.stored(table)],
        [bodies.MODE],
    )
    result = prune(proto, OPTIONS, bodies.samples(proto), runtime=RUNTIME)
    feeds = bodies.samples(proto, 8)
    assert np.array_equal(run(result.model, feeds), run(proto, feeds))
    assert not same(run(result.model, bodies.samples(proto)), run(proto, bodies.samples(proto)))


def test_the_branches_that_data_take_are_found_one_inside_the_other() -> None:
    proto = bodies.nested()
    channels = analyse(load(proto))
    data = calibration(load(proto), bodies.samples(proto))
    seen = look(channels.view, data, RUNTIME)
    assert sorted(seen.routes.taken.values()) == ["else_branch", "then_branch"]
    assert not any(node.op_type == "If" for node in seen.model.proto.graph.node)
    feeds = bodies.samples(proto)
    assert np.array_equal(run(seen.model, feeds), run(proto, feeds))


def test_a_model_without_bodies_is_looked_at_as_it_is() -> None:
    proto = bodies.plain(bodies.by_data())
    channels = analyse(load(proto))
    seen = look(channels.view, calibration(load(proto), bodies.samples(proto)), RUNTIME)
    assert seen.model is channels.model and seen.view is channels.view


@pytest.mark.parametrize("make", [bodies.by_input, bodies.nested, bodies.in_constants, bodies.same_names])
def test_zeros_in_a_body_follow_the_data(make: Callable[[], onnx.ModelProto]) -> None:
    proto = make()
    plain, options = bodies.plain(proto), SparsifyOptions(sparsity=0.5)
    wanted = sparsify(plain, options, bodies.samples(plain), runtime=RUNTIME)
    result = sparsify(proto, options, bodies.samples(proto), runtime=RUNTIME)
    onnx.checker.check_model(result.model.proto)
    assert (
        sum(layer.method == "obc" for layer in result.layers) == sum(one.method == "obc" for one in wanted.layers) > 0
    )
    fresh = bodies.samples(proto, seed=5)
    given, expected = run(result.model, fresh), run(wanted.model, bodies.samples(plain, seed=5))
    magnitude = run(sparsify(proto, replace(options, score="magnitude")).model, fresh)
    original = run(proto, fresh)
    # shares of zeros go by the sizes of all layers, those of the other branch included
    assert np.square(given - original).mean() < 0.7 * np.square(magnitude - original).mean()
    assert np.square(given - original).mean() < 1.5 * np.square(expected - original).mean()


@pytest.mark.parametrize("make", [bodies.by_input, bodies.nested, bodies.in_constants, bodies.same_names])
def test_factors_in_a_body_follow_the_data(make: Callable[[], onnx.ModelProto]) -> None:
    proto = make()
    plain, options = bodies.plain(proto), FactorizeOptions(energy=0.7, only=("conv2",), align=1)
    wanted = factorize(plain, options, bodies.samples(plain), runtime=RUNTIME)
    result = factorize(proto, options, bodies.samples(proto), runtime=RUNTIME)
    onnx.checker.check_model(result.model.proto)
    given = run(result.model, bodies.samples(proto, seed=5))
    assert same(given, run(wanted.model, bodies.samples(plain, seed=5)))
    assert not same(given, run(factorize(proto, options).model, bodies.samples(proto, seed=5)))


ALTERNATING = [16, 8] * (bodies.SAMPLES // 2)


@pytest.mark.parametrize("make", [bodies.by_input, bodies.captured, bodies.in_constants, bodies.same_names])
def test_branches_that_different_samples_take_are_each_refitted_to_theirs(make: Callable[[], onnx.ModelProto]) -> None:
    proto, options = make(), replace(OPTIONS, score="lstsq")  # derivatives are of networks that do not part
    feeds = bodies.samples(proto, ALTERNATING)
    result = prune(proto, options, feeds, runtime=RUNTIME)
    onnx.checker.check_model(result.model.proto)
    assert not result.reasons and len(result.keep) == 4
    for start, (mode, seed) in enumerate(((16, 0), (8, 7))):
        plain = bodies.plain(proto, seed)
        wanted = prune(plain, options, feeds[start::2], runtime=RUNTIME)
        fresh = bodies.samples(proto, mode, seed=5)
        assert same(run(result.model, fresh), run(wanted.model, fresh))


def test_layers_around_branches_are_refitted_to_all_samples() -> None:
    proto = bodies.around()
    feeds, fresh = bodies.samples(proto, ALTERNATING), bodies.samples(proto, ALTERNATING, seed=5)
    result = prune(proto, OPTIONS, feeds, runtime=RUNTIME)
    assert not result.reasons and result.compensation and result.uncompensated
    assert {layer.name for layer in result.compensation.layers if layer.used} >= {"conv2", "oconv2", "conv3"}
    original, before = run(proto, fresh), run(result.uncompensated, fresh)
    for start in range(2):
        errors = [np.square(run(m, fresh) - original)[start::2].mean() for m in (result.model, result.uncompensated)]
        assert errors[0] < 0.5 * errors[1]
    assert not same(before, original)


def test_samples_part_inside_of_a_branch_too() -> None:
    proto = bodies.nested()
    body = next(a.g for a in proto.graph.node[1].attribute if a.name == "then_branch")
    next(node for node in body.node if node.op_type == "ReduceMin").op_type = "ReduceMax"
    low = next(tensor for tensor in body.initializer if tensor.name == "low")
    low.CopyFrom(onnx.numpy_helper.from_array(np.array(5.0, np.float32), "low"))
    feeds = bodies.samples(proto)
    for number, feed in enumerate(feeds):
        feed["x"] = feed["x"] * np.float32(0.1) + np.float32(number % 2) * 20
    seen = look(analyse(load(proto)).view, calibration(load(proto), feeds), RUNTIME)
    assert list(seen.routes.taken.values()) == ["then_branch"] and len(seen.parts) == 2
    for part in seen.parts:
        assert np.array_equal(run(part.model, list(part.data)), run(proto, list(part.data)))
    result = prune(proto, OPTIONS, feeds, runtime=RUNTIME)
    onnx.checker.check_model(result.model.proto)
    assert result.compensation and {e.name for e in result.compensation.layers if e.used} >= {"oconv2", "conv2"}


@pytest.mark.parametrize("whiten", [False, True])
def test_factors_outside_and_inside_of_a_body(whiten: bool) -> None:
    proto = bodies.around()
    feeds = bodies.samples(proto)
    options = FactorizeOptions(energy=0.5, only=("conv2", "conv3"), align=1, whiten=whiten, refit=whiten)
    result = factorize(proto, options, feeds if whiten else None, runtime=RUNTIME)
    onnx.checker.check_model(result.model.proto)
    assert all(layer.form for layer in result.layers if layer.name in ("conv2", "conv3"))
    assert np.isfinite(run(result.model, feeds)).all()
