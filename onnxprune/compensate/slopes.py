"""Loss and gradient of a step: feeds of one size run side by side, one thread each, and are added up in order.

So the result is the same, bit by bit, on any number of cores; threads inside an operator gain next to nothing at these
sizes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import NamedTuple, TypeVar

import numpy as np

from onnxprune.compensate.gradient import Gradient
from onnxprune.graph.cost import MAC64, REPEATED, cost_of
from onnxprune.graph.cost_rules import NANO
from onnxprune.graph.model import Model
from onnxprune.graph.session import Session, open_session
from onnxprune.processes.crew import Crew
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.collect import observed
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array

FIRST_HELP, LAST_HELP = 30.0, 1.0
"""Helpers count at most so many times what is aimed at, as both were before the first step: at first, and at last."""
Cut = Callable[[Array], Array]
"""Takes a tensor of the original to the positions of the pruned network."""
Value = TypeVar("Value")
BACKWARD = 8
"""A gradient that goes back step by step takes at least so many times what the original takes, whatever is counted."""
PASSES = 30
"""How often an optimiser goes over every number of a weight."""
ROUNDS = 5
"""Of the iteration that makes singular values equal."""


class Teacher:
    """The original, asked for the tensors that are compared."""

    def __init__(self, model: Model, cuts: Mapping[str, Cut], provider: str | None = None) -> None:
        self._session = open_session(observed(model, cuts), threads=1, folder=model.folder, provider=provider)
        self._model, self._cuts = model, cuts

    def __reduce__(self) -> tuple[object, ...]:
        """Travel without a session."""
        return type(self), (self._model, self._cuts, self._session.provider)

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """Return the compared tensors, what was cut left out."""
        values = self._session.values(list(self._cuts), feed)
        return {name: cut(value) for (name, cut), value in zip(self._cuts.items(), values, strict=True)}

    def seconds(self, feed: Feed) -> float:
        """Return the predicted CPU seconds of a run."""
        return cost_of(self._model, {name: array.shape for name, array in feed.items()}).seconds


class Judged(NamedTuple):
    """A loss on samples that are held out. aim: without what only shows the way, such as tensors inside."""

    aim: float
    whole: float

    def with_help(self, share: float) -> float:
        """Return the loss in which what only shows the way counts so much."""
        return self.aim + share * (self.whole - self.aim)

    def help(self, most: float) -> float:
        """Return the share of what only shows the way that counts, where this is the loss before the first step.

        What is inside a network is often much farther from the original than its outputs are.

        Args:
            most: it counts at most so many times what is aimed at.
        """
        inside = self.whole - self.aim
        return min(1.0, most * self.aim / inside) if self.aim > 0 and inside > 0 else 1.0


@dataclass(frozen=True)
class Slopes:
    """Runs both networks on feeds and tells the loss and its gradient by every weight.

    judge: gives losses alone. crew: takes a part of the feeds of every step; None: they run here.
    """

    session: Session
    judge: Session
    gradient: Gradient
    teacher: Teacher
    workers: int
    crew: Crew | None = field(default=None, kw_only=True)

    @staticmethod
    def open(gradient: Gradient, teacher: Teacher, threads: int | None, provider: str | None = None) -> Slopes:
        """Return the runner; `threads` feeds run side by side, None: as many as there are cores."""
        graphs = gradient.proto, gradient.without_slopes()
        session, judge = (open_session(graph, threads=1, literal_rounding=True, provider=provider) for graph in graphs)
        return Slopes(session, judge, gradient, teacher, threads or os.cpu_count() or 1)

    def mean(self, weights: Mapping[str, Array], feeds: Sequence[Feed]) -> list[Array]:
        """Return the gradient by every weight, averaged over feeds.

        Args:
            weights: and `gradient.help` if helpers do not count as much as they may.
        """
        if self.crew is not None:
            pieces = [(dict(weights), feed) for feed in feeds]
            found = iter(self.crew.map(_slopes, self, pieces, lambda n: f"batch {n + 1} of {len(pieces)} of a step"))
        else:
            held = self.session.placed(weights)
            found = self._side_by_side(lambda feed: self.slopes(held, feed), feeds)
        return _mean(found)

    def slopes(self, weights: Mapping[str, Array], feed: Feed) -> list[Array]:
        """Return the gradient by every weight on one feed."""
        return self.session.values(self.gradient.outputs(), self._whole(weights, feed))[1:]

    def __reduce__(self) -> tuple[object, ...]:
        """Travel without sessions: they are opened again where it arrives."""
        more = {item.name: getattr(self, item.name) for item in fields(self)[5:] if item.name != "crew"}
        return _opened_again, (type(self), self.gradient, self.teacher, self.session.provider, more)

    def over(self, weights: Mapping[str, Array], feeds: Iterable[Feed]) -> Judged:
        """Return the loss, averaged over feeds."""
        names = [self.gradient.aim, self.gradient.loss]
        held = self.judge.placed(weights)
        found = list(self._side_by_side(lambda feed: self.judge.values(names, self._whole(held, feed)), feeds))
        aim, whole = (float(np.mean(losses)) for losses in zip(*found, strict=True))
        return Judged(aim, whole)

    def answered(self, feeds: Iterable[Feed]) -> list[Feed]:
        """Return the feeds with what the original gives on them, so that it need not be asked again."""
        return list(self._side_by_side(lambda feed: {**feed, **self._targets(feed)}, feeds))

    def seconds(self, feed: Feed, runs: int) -> tuple[float, float]:
        """Return the predicted CPU seconds of a step of so many runs, and of asking the original once."""
        whole = self._whole(self.gradient.weights, feed)
        run = cost_of(Model(self.gradient.proto), {name: array.shape for name, array in whole.items()}).seconds
        teacher = self.teacher.seconds(feed)
        if any(node.op_type in REPEATED for node in self.gradient.proto.graph.node):
            run = max(run, BACKWARD * teacher)
        return runs * run + update_seconds(self.gradient), teacher

    def _side_by_side(self, work: Callable[[Feed], Value], feeds: Iterable[Feed]) -> Iterator[Value]:
        """Yield what comes of the feeds, in their order; no more of it is there at one time than there are workers."""
        if self.workers == 1:
            yield from map(work, feeds)
            return
        waiting: deque[Future[Value]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for feed in feeds:
                if len(waiting) == self.workers:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, feed))
            while waiting:
                yield waiting.popleft().result()

    def _whole(self, weights: Mapping[str, Array], feed: Feed) -> Feed:
        return {**self.gradient.seed(), **feed, **self._targets(feed), **weights}

    def _targets(self, feed: Feed) -> Feed:
        """Return what the compared tensors should be: nothing where the feed has that already."""
        if all(target in feed for target in self.gradient.targets.values()):
            return {}
        wanted = self.teacher(feed)
        return {target: wanted[name] for name, target in self.gradient.targets.items()}


def _opened_again(
    kind: type[Slopes], gradient: Gradient, teacher: Teacher, provider: str, more: Mapping[str, object]
) -> Slopes:
    plain = Slopes.open(gradient, teacher, 1, provider)
    return kind(plain.session, plain.judge, gradient, teacher, 1, **more)  # type: ignore[arg-type]  # fields of that kind


@on_one_thread
def _slopes(slopes: Slopes, piece: tuple[Mapping[str, Array], Feed]) -> list[Array]:
    return slopes.slopes(*piece)


def _mean(found: Iterator[list[Array]]) -> list[Array]:
    """Return the means over what comes, added up in order in doubles: never more than one sum in memory."""
    totals = [np.asarray(array, np.float64).copy() for array in next(found)]
    count = 1
    for arrays in found:
        count += 1
        for total, array in zip(totals, arrays, strict=True):
            total += array
    return [np.asarray(total / count, np.float32) for total in totals]


def update_seconds(gradient: Gradient) -> float:
    """Return the predicted CPU seconds that an optimiser takes for one step."""
    products = 0.0
    for blocks, rows, columns in gradient.matrices.values():
        small, large = sorted((rows, columns))
        products += blocks * ROUNDS * (2 * small * small * large + small**3)
    return MAC64 * products + NANO * PASSES * sum(weight.size for weight in gradient.weights.values())
