"""Classes taken from heads of random networks: outputs that stay are the original's at the positions that stay."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import NothingToPruneError
from onnxprune.methods.trim import trim
from onnxprune.methods.trim_options import TrimOptions
from tests.micro.build import Net
from tests.oracle import random_inputs, session
from tests.properties.graphs import ANY, IMAGE, TOKENS, VECTOR, Canvas, axis_of, mixed, onward, start
from tests.properties.test_random_graphs import FEW

CLASSES = 11
EXACT = 2e-5
"""Relative: sums are taken in another order by kernels of another width, through a few layers."""


@dataclass
class Scores:
    """A tensor with one axis over classes. ids: the class at each position of the axis, -1 for what is none."""

    name: str
    axis: int
    rank: int
    ids: np.ndarray = field(default_factory=lambda: np.arange(CLASSES))
    width: int = CLASSES


@dataclass(frozen=True)
class Head:
    """scores: the output that is trimmed. softmax: it is one over the classes. best, top: further outputs or ""."""

    model: onnx.ModelProto
    scores: Scores
    softmax: bool
    best: str = ""
    top: str = ""


def along(s: Scores) -> tuple[int, ...]:
    """Return the shape of a constant with one value for every position of the axis."""
    return (s.width, *(1,) * (s.rank - s.axis - 1))


def step(c: Canvas, s: Scores) -> Scores:
    """Draw something that leaves every class a position of its own."""
    net, kind = c.net, c.pick("unary", "constant", "move", "permute", "first", "threshold", "halves", "cast")
    ids, name, axis, rank = s.ids, s.name, s.axis, s.rank
    if kind == "unary":
        name = net.op(c.pick("Sigmoid", "Relu", "Tanh", "Abs", "Neg", "HardSigmoid"), name)
    elif kind == "constant":
        name = net.op(c.pick("Mul", "Add", "Sub"), name, net.vector(s.width, shape=along(s)))
    elif kind == "move":
        order = [0, *(1 + np.random.default_rng(c.pick(*range(9))).permutation(rank - 1)).tolist()]
        name, axis = net.transpose(name, *order), order.index(axis)
    elif kind == "permute":
        index = np.random.default_rng(c.pick(*range(9))).permutation(s.width)
        name, ids = net.Gather(name, index, axis=axis), ids[index]
    elif kind == "first" and s.width > 6:
        name, ids = net.slice(name, 1, 1 << 30, axis), ids[1:]
        return Scores(name, axis, rank, ids, s.width - 1)
    elif kind == "threshold":
        name = net.Where(net.Greater(name, net.number(0.1)), name, net.op("Mul", name, net.number(0.5)))
    elif kind == "halves":
        parts = net.split(name, [s.width // 2, s.width - s.width // 2], axis=axis)
        back = c.pick(True, False)
        half = s.width // 2
        ids = np.concatenate([ids[half:], ids[:half]]) if back else ids
        name = net.Concat(*(parts[::-1] if back else parts), axis=axis)
    elif kind == "cast":
        name = net.Cast(net.Cast(name, to=11), to=1)
    return Scores(name, axis, rank, ids, s.width)


@st.composite
def heads(draw) -> Head:
    """Draw a short network, a layer over classes, some steps behind it, and what is ranked."""
    net = Net(draw(st.sampled_from((13, 17, 21))), draw(st.sampled_from(("initializer", "constant"))), seed=1)
    canvas = Canvas(net, draw)
    stream = start(canvas)
    for _ in range(draw(st.integers(0, 2))):
        canvas.earlier.append(stream)
        stream = canvas.pick(*(VECTOR, TOKENS, IMAGE)[len(stream.size)], *ANY)(canvas, stream)
    while stream.size and canvas.pick(True, False):
        stream = onward(canvas, stream)
    s = Scores(mixed(canvas, stream, CLASSES), axis_of(stream), 2 + len(stream.size))
    if canvas.pick(True, False, False):
        name = net.Concat(mixed(canvas, stream, 2), s.name, axis=s.axis)
        s = Scores(name, s.axis, s.rank, np.concatenate([[-1, -1], s.ids]), CLASSES + 2)
    for _ in range(draw(st.integers(0, 4))):
        s = step(canvas, s)
    softmax = bool((s.ids >= 0).all()) and canvas.pick(True, False)
    name = net.Softmax(s.name, axis=s.axis) if softmax else net.Identity(s.name)
    s = Scores(name, s.axis, s.rank, s.ids, s.width)
    net.output(name)
    best = top = ""
    if canvas.pick(True, False):
        best = net.ArgMax(name, axis=s.axis, keepdims=canvas.pick(0, 1), select_last_index=canvas.pick(0, 1))
        net.output(best)
    if canvas.pick(True, False):
        _, top = net.TopK(name, net.constant(np.array([canvas.pick(1, 3)])), axis=s.axis, outputs=2)
        net.output(top)
    return Head(net.model(), s, softmax, best, top)


def outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    opened = session(model, "basic")
    return dict(zip([o.name for o in opened.get_outputs()], opened.run(None, feeds), strict=True))


def test_kept_positions_give_what_they_gave_and_ranks_give_old_numbers() -> None:
    outcomes: list[bool] = []

    @FEW
    @given(heads(), st.sets(st.integers(0, CLASSES - 1), min_size=3, max_size=6), st.integers(0, 9))
    def check(head: Head, classes: set[int], seed: int) -> None:
        s = head.scores
        kept = [place for place, number in enumerate(s.ids) if number < 0 or number in classes]
        if len(kept) < 3:
            return
        feeds = random_inputs(head.model, np.random.default_rng(seed), 3)
        try:
            result = trim(head.model, TrimOptions(keep={f"{s.name}:{s.axis}": kept})).model.proto
        except NothingToPruneError as error:
            outcomes.append(False)
            assert "cannot lose positions" in str(error) or "share" in str(error)
            return
        outcomes.append(True)
        onnx.checker.check_model(result, full_check=True)
        old, new = outputs(head.model, feeds), outputs(result, feeds)
        wanted = np.take(old[s.name], kept, axis=s.axis)
        if head.softmax:
            wanted = wanted / wanted.sum(axis=s.axis, keepdims=True)
        assert new[s.name].shape == wanted.shape
        assert np.abs(new[s.name] - wanted).max() <= EXACT * np.abs(wanted).max() + 1e-7
        for ranked in filter(None, (head.best, head.top)):
            numbers = new[ranked]
            assert np.isin(numbers, kept).all()
            whole = numbers if numbers.ndim == s.rank else np.expand_dims(numbers, s.axis)
            given_ = np.take_along_axis(old[s.name], whole, axis=s.axis)
            count = whole.shape[s.axis]
            best = -np.sort(-np.take(old[s.name], kept, axis=s.axis), axis=s.axis)
            best = np.take(best, range(count), axis=s.axis)
            assert np.abs(given_ - best).max() <= EXACT * np.abs(best).max() + 1e-7  # ties may fall otherwise

    check()
    assert np.mean(outcomes) >= 0.85
