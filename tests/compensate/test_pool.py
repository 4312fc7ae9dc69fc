"""Feeds that are kept: the original is asked once for each, and a walk takes its samples pass after pass."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import helper

from onnxprune.compensate import draws as draws_room
from onnxprune.compensate.descent import Descent
from onnxprune.compensate.distil import DistilOptions, Progress, StepWalk, distil
from onnxprune.compensate.draws import Draws, draws_of
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.compensate.objective import HeldOut
from onnxprune.compensate.pool import Pool
from onnxprune.compensate.slopes import Judged, Slopes, Teacher
from onnxprune.graph.model import Model
from onnxprune.statistics.feeds import Feed, InputSpec
from tests.compensate.small import network

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def line(width: int, inputs: int = 3) -> Model:
    weights = {"w0": normal(inputs, width), "w1": normal(width, 2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Tanh", ["a"], ["h"]),
        helper.make_node("MatMul", ["h", "w1"], ["y"]),
    ]
    return network(nodes, weights, ["n", inputs], ["n", 2])


class Counted(Teacher):
    """An original that counts how often it is asked."""

    asked = 0

    def __call__(self, feed: Feed) -> dict[str, np.ndarray]:
        self.asked += 1
        return super().__call__(feed)


def opened(batch: int) -> tuple[Slopes, Counted]:
    teacher = Counted(line(8), {"y": lambda y: y})
    gradient = gradient_graph(line(4), {"y": 1.0}, {"y": (batch, 2)}, {"x": normal(batch, 3)})
    return Slopes.open(gradient, teacher, 1), teacher


def drawn(count: int, samples: int = 4, batch: int = 4) -> Draws:
    return draws_of([{"x": normal(count, 3)}], [InputSpec("x", np.dtype(np.float32), (None, 3))], samples, batch)


def test_the_original_is_asked_once_for_every_kept_feed_and_the_gradient_is_the_same() -> None:
    (slopes, teacher), draws = opened(4), drawn(16)
    pool, generator = Pool.of(draws, slopes, passes=2), np.random.default_rng(0)
    assert pool.size == 2 * 4  # 14 samples in feeds of 4, twice
    before = teacher.asked
    for _ in range(20):
        (feed,) = pool.step(generator)
        slopes.mean(slopes.gradient.weights, [feed])
    assert teacher.asked - before == pool.size == pool.asked(20)
    plain = slopes.mean(slopes.gradient.weights, [{"x": feed["x"]}])
    for kept, new in zip(slopes.mean(slopes.gradient.weights, [feed]), plain, strict=True):
        np.testing.assert_array_equal(kept, new)


def test_a_full_pool_gives_every_feed_once_in_a_pass() -> None:
    (slopes, _), draws = opened(2), drawn(9, samples=4, batch=2)
    pool, generator = Pool.of(draws, slopes, passes=1), np.random.default_rng(0)
    first = [feed["x"].tobytes() for _ in range(2) for feed in pool.step(generator)]
    again = [feed["x"].tobytes() for _ in range(2) for feed in pool.step(generator)]
    assert len(set(first)) == 4
    assert sorted(first) == sorted(again)


@pytest.mark.parametrize(("memory", "size"), [(0, 0), (3 * 4 * 20, 0), (4 * 4 * 20, 4), (6 * 4 * 20, 6)])
def test_what_does_not_fit_is_not_kept(memory: int, size: int) -> None:
    (slopes, _), draws = opened(4), drawn(16)  # a sample and what is right for it: 3 + 2 numbers, 4 bytes each
    pool = Pool.of(draws, slopes, passes=2, memory=memory)
    assert pool.size == size
    assert pool.asked(100) == (size or 100)
    assert pool.step(np.random.default_rng(0))[0]["x"].shape == (4, 3)


def test_a_pass_shows_every_sample_before_one_comes_again() -> None:
    draws, generator = drawn(16, samples=7, batch=7), np.random.default_rng(1)
    rows = [row.tobytes() for _ in range(2) for feed in draws.step(generator) for row in feed["x"]]
    assert len(set(rows)) == len(rows) == draws.samples == 14


def test_samples_of_a_fixed_batch_come_again_where_they_are_too_few() -> None:
    draws = draws_of([{"x": normal(8, 3)}] * 2, [InputSpec("x", np.dtype(np.float32), (8, 3))], 64, 64)
    assert [feed["x"].shape for feed in draws.step(np.random.default_rng(0))] == [(8, 3)] * draws.runs


@dataclass
class Told:
    """A distance whose looks are told beforehand."""

    looks: list[float | Judged]
    gradient: list[np.ndarray] = field(default_factory=lambda: [np.ones(2, np.float32)])

    def mean(self, weights: dict[str, np.ndarray], feeds: list[Feed], share: float) -> list[np.ndarray]:
        return self.gradient

    def held_out(self, weights: dict[str, np.ndarray]) -> Judged:
        look = self.looks.pop(0)
        return look if isinstance(look, Judged) else Judged(look, look)


class NoFeeds:
    def step(self, generator: np.random.Generator) -> list[Feed]:
        return []


@pytest.mark.parametrize(
    ("looks", "taken", "best"),
    [
        ([1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5, 0.4], 50, 50),  # large steps lead away first, then back
        ([1.1, 1.2, 1.3, 0.5], 15, 0),  # still going away at a third
        ([1.5, 1.49, 1.48, 0.5], 15, 0),  # back, but not soon enough
        ([1.5, 1.3, 1.2, 1.15, 1.14, 1.13, 1.12, 1.12, 0.1], 40, 0),  # came back, then stood still
        ([2.1, 0.1], 5, 0),  # beyond hope
        ([0.9, 1.5, 1.6, 1.7, 1.8, 1.9, 1.9, 1.9, 1.9, 1.9], 50, 5),  # was better once
    ],
)
def test_a_walk_goes_on_only_where_it_returns(looks: list[float], taken: int, best: int) -> None:
    descent = Descent({"w": np.ones(2, np.float32)}, {}, 0.01, 50)
    walk = StepWalk(descent, Told(list(looks)), NoFeeds(), Judged(1.0, 1.0), Progress(lambda text: None, 50))  # type: ignore[arg-type]
    _, loss, step = walk.down(np.random.default_rng(0))
    assert (walk.taken, step) == (taken, best)
    assert loss == (min(looks) if best else 1.0)


def test_what_is_aimed_at_chooses_and_the_whole_loss_tells_whether_to_go_on() -> None:
    aims, wholes = [1.8, 2.5, 1.9, 1.4, 0.9, 0.7, 0.8, 0.75, 0.9, 0.72], np.linspace(0.9, 0.5, 10)
    looks = [Judged(*look) for look in zip(aims, wholes, strict=True)]
    descent = Descent({"w": np.ones(2, np.float32)}, {}, 0.01, 50)
    walk = StepWalk(descent, Told(looks), NoFeeds(), Judged(1.0, 1.0), Progress(lambda text: None, 50))  # type: ignore[arg-type]
    assert walk.down(np.random.default_rng(0))[1:] == (0.7, 30)
    assert [loss for _, loss in walk.curve] == aims


FALLING = [0.9**look for look in range(1, 11)]


@pytest.mark.parametrize(
    ("aims", "wholes", "taken", "best"),
    [
        (FALLING, [100.0 + look for look in range(10)], 50, 50),  # inside leads away, outputs come nearer all the time
        ([1.1] * 9 + [0.5], [0.9] * 10, 50, 50),  # inside comes nearer, outputs at last
        ([1.5, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6], [0.9] * 10, 50, 50),
    ],
)
def test_a_walk_goes_on_while_outputs_come_nearer_or_promise_to(
    aims: list[float], wholes: list[float], taken: int, best: int
) -> None:
    looks = [Judged(*look) for look in zip(aims, wholes, strict=True)]
    descent = Descent({"w": np.ones(2, np.float32)}, {}, 0.01, 50)
    start = Judged(1.0, 99.0) if best == 50 and wholes[0] > 1 else Judged(1.0, 1.0)
    walk = StepWalk(descent, Told(looks), NoFeeds(), start, Progress(lambda text: None, 50))  # type: ignore[arg-type]
    assert (walk.down(np.random.default_rng(0))[2], walk.taken) == (best, taken)


def images(rows: np.ndarray) -> Model:
    """Says how bright images of 24 x 24 are, each place weighed: all alike, or left against right."""
    weights = {"w0": rows.astype(np.float32), "w1": np.array([[1.0], [0.5]], np.float32)}
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w0"], ["h"]),
        helper.make_node("MatMul", ["h", "w1"], ["y"]),
    ]
    return network(nodes, weights, ["n", 1, 24, 24], ["n", 1])


ALIKE = np.ones((24 * 24, 2))
SIDES = np.repeat(np.tile([[1.0], [-1.0]], (24, 1)), 12, axis=0) * np.ones((1, 2))


@pytest.mark.parametrize(
    ("model", "asked", "kinds"),
    [
        (images(ALIKE), None, ("flip", "shift")),
        (images(SIDES), None, ("shift",)),
        (images(SIDES), ("flip",), ("flip",)),
        (images(ALIKE), (), ()),
    ],
    ids=["any side", "left against right", "asked", "none"],
)
def test_samples_are_varied_as_the_original_bears_it(
    model: Model, asked: tuple[str, ...] | None, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    varied = draws_room.varied

    def recorded(feed: Feed, names: tuple[str, ...], generator: np.random.Generator) -> Feed:
        seen.append(tuple(names))
        return varied(feed, names, generator)

    monkeypatch.setattr(draws_room, "varied", recorded)
    bright = RNG.normal(size=(32, 1, 1, 2)).repeat(12, axis=3).repeat(24, axis=2).astype(np.float32)
    options = DistilOptions(2, 8, 8, augment=asked, threads=1)
    distil(model, model, {"y": lambda y: y}, {}, [{"x": bright}], options)
    assert set(seen) == {kinds}


@pytest.mark.parametrize(("steps", "fresh"), [(5, False), (6, True)])
def test_where_steps_are_many_samples_are_drawn_anew_for_each_and_mixed(
    steps: int, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.compensate.distil.MANY", 6)
    monkeypatch.setattr("onnxprune.compensate.distil.PASSES", 1)
    asked: list[str] = []
    for name in ("varied", "mixed"):
        known = getattr(draws_room, name)
        monkeypatch.setattr(draws_room, name, lambda *a, name=name, known=known: asked.append(name) or known(*a))
    model, other = images(ALIKE), images(1.1 * ALIKE)
    bright = RNG.normal(size=(32, 1, 24, 24)).astype(np.float32)
    distil(model, other, {"y": lambda y: y}, {}, [{"x": bright}], DistilOptions(steps, 14, 14, threads=1))
    assert asked == (["varied", "mixed"] * steps if fresh else ["varied"] * 2)


def test_a_distance_asks_the_original_once_for_what_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    slopes, teacher = opened(4)
    held = [{"x": normal(4, 3)} for _ in range(3)]
    distance, start = HeldOut.over(slopes, held), slopes.gradient.weights
    losses = [distance.held_out(start) for _ in range(5)]
    assert teacher.asked == 3
    monkeypatch.setattr("onnxprune.compensate.objective.REMEMBERED_BYTES", 4 * 20)
    short = HeldOut.over(slopes, held)
    assert teacher.asked == 3 + 2  # the second is the first too many
    assert short.held_out(start) == losses[0] == losses[-1] == slopes.over(start, held)
