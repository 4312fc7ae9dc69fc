"""Steps of one block after the other: where networks are cut, what is learned, what stays."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxprune.compensate import block_lesson
from onnxprune.compensate import compensate as room
from onnxprune.compensate.block_steps import block_steps
from onnxprune.compensate.distil import Distilled, DistilOptions
from onnxprune.compensate.joints import Chain
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.types import Array
from tests.compensate.small import network, run

WIDTH = 12
OPTIONS = DistilOptions(threads=1, seconds=5.0)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_lesson, "MOST", 60)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


FEEDS = [{"x": normal(number, 16, WIDTH)} for number in range(8)]
UNSEEN = [{"x": normal(99, 200, WIDTH)}]


def chain(kind: str = "plain", noise: float = 0.0) -> Model:
    """Six layers with sums; its siblings: one matrix in two blocks, weights in nodes, a mask that all layers read."""
    weights = {f"w{i}": normal(50 + i, WIDTH, WIDTH) / np.float32(np.sqrt(WIDTH)) for i in range(6)}
    weights = {name: w + np.float32(noise) * normal(7, *w.shape) for name, w in weights.items()}
    nodes, h = [], "x"
    if kind == "mask":
        nodes.append(helper.make_node("Sigmoid", ["x"], ["mask"]))
    for i in range(6):
        w = {("one matrix", 5): "w0"}.get((kind, i), f"w{i}")
        nodes.append(helper.make_node("MatMul", [h, w], [f"p{i}"], f"p{i}"))
        nodes.append(helper.make_node("Relu", [f"p{i}"], [f"r{i}"], f"r{i}"))
        h, last = f"s{i}", h
        if kind == "mask":
            nodes.append(helper.make_node("Mul", [f"r{i}", "mask"], [f"m{i}"], f"m{i}"))
        nodes.append(helper.make_node("Add", [f"m{i}" if kind == "mask" else f"r{i}", last], [h], h))
    nodes.append(helper.make_node("Identity", [h], ["y"]))
    if kind == "one matrix":
        del weights["w5"]
    if kind == "nodes":
        stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
        nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in stored] + nodes
        weights = {}
    return network(nodes, weights, ["n", WIDTH], ["n", WIDTH])


def same(name: str, array: Array) -> Array:
    return array


def walked(kind: str, options: DistilOptions = OPTIONS, told: list[str] | None = None) -> tuple[Model, Distilled]:
    cuts = {"s5": lambda array: array}
    note = told.append if told is not None else lambda text: None
    return block_steps(chain(kind), chain(kind, 0.05), cuts, same, FEEDS, options, note)


def far(model: Model, kind: str) -> float:
    return float(np.square(run(model, UNSEEN)[0] - run(chain(kind), UNSEEN)[0]).mean())


@pytest.mark.parametrize("kind", ["plain", "one matrix", "nodes", "mask"])
def test_blocks_come_nearer_to_the_original_on_samples_that_were_not_seen(kind: str) -> None:
    told: list[str] = []
    found, distance = walked(kind, told=told)
    assert far(found, kind) < 0.6 * far(chain(kind, 0.05), kind)
    assert distance.after < distance.before and distance.steps > 0
    learned = dict.fromkeys(int(text.split()[1]) for text in told)
    assert [*learned] == ([2, 3] if kind == "one matrix" else [1, 2, 3, 4])  # the others have nothing of their own
    assert not distance.notes


def test_a_matrix_that_two_blocks_read_stays() -> None:
    before = {t.name: t.raw_data for t in chain("one matrix", 0.05).proto.graph.initializer}
    after = {t.name: t.raw_data for t in walked("one matrix")[0].proto.graph.initializer}
    assert before["w0"] == after["w0"]
    assert all(before[name] != after[name] for name in ("w1", "w2", "w3", "w4"))


def test_the_result_is_the_same_bytes_on_one_and_on_three_cores() -> None:
    one, three = (walked("plain", replace(OPTIONS, threads=threads))[0] for threads in (1, 3))
    assert one.proto.SerializeToString(deterministic=True) == three.proto.SerializeToString(deterministic=True)


def test_networks_are_cut_where_one_tensor_that_weights_made_goes_on() -> None:
    joints = Chain(chain("mask").proto.graph).joints()
    assert [joint.name for joint in joints if joint.name.startswith("s")] == [f"s{i}" for i in range(6)][: len(joints)]
    assert not {"p1", "r2", "m3"} & {joint.name for joint in joints}  # a sum passes beside them
    assert all("mask" in joint.beside for joint in joints if joint.name in ("s0", "s4"))
    assert "x" in next(joint for joint in joints if joint.name == "p0").beside


def test_what_cannot_be_walked_is_said() -> None:
    with pytest.raises(ModelError, match="need 8 runs of samples, there are 0"):
        walked("plain", replace(OPTIONS, seconds=1e-6))
    one = network(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(1, WIDTH, WIDTH)}, ["n", WIDTH], ["n", WIDTH]
    )
    with pytest.raises(ModelError, match="no single tensor"):
        block_steps(one, one, {"y": lambda array: array}, same, FEEDS, OPTIONS)


@pytest.mark.parametrize(("enough", "dear", "blocks"), [(10**9, "", True), (1, "", False), (1, "too much", True)])
def test_blocks_learn_where_the_seconds_are_not_enough_for_the_whole(
    enough: int, dear: str, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "ENOUGH_STEPS", enough)
    told: list[str] = []
    options = DistilOptions(40, 16, 8, threads=1, seconds=2.0, dear=dear)
    done = room.compensate(chain(), chain("plain", 0.05), {}, FEEDS, "distil", None, options, told.append)
    assert any(text.startswith("block 2 of 4") for text in told) is blocks
    assert done.distilled is not None and done.distilled.after < done.distilled.before
    assert ("one after the other" in done.distilled.outlook) is blocks


def test_a_network_that_cannot_be_cut_takes_no_steps_and_says_what_they_would_cost() -> None:
    one = network(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(1, WIDTH, WIDTH)}, ["n", WIDTH], ["n", WIDTH]
    )
    done = room.compensate(one, one, {}, FEEDS, "distil", None, DistilOptions(threads=1, seconds=1.0, dear="too dear"))
    assert done.distilled is None and done.warnings == ("no gradient steps: too dear",)
