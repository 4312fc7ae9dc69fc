"""Steps of one block: what it is given, and what it should give, are at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxprune.compensate.block_stream import BlockStream
from onnxprune.compensate.descent import Descent, rate_of_walk
from onnxprune.compensate.distil import (
    LOOKS,
    DistilOptions,
    Progress,
    StepWalk,
    loss_weights,
    variances,
    with_weights,
)
from onnxprune.compensate.gradient import Gradient, gradient_graph
from onnxprune.compensate.joints import Joint, block_model
from onnxprune.compensate.objective import HeldOut
from onnxprune.compensate.slopes import BACKWARD, Cut, Slopes, Teacher, update_seconds
from onnxprune.errors import ModelError
from onnxprune.graph.bodies import reads
from onnxprune.graph.cost import REPEATED, cost_of
from onnxprune.graph.model import Model
from onnxprune.statistics.feeds import Feed

FEWEST, MOST = 30, 400
"""Steps of a block."""
FEW_NUMBERS = 16
"""Integers of more are no sizes of a tensor."""
LOOKED_AT = 8
"""Feeds whose targets say how large differences count."""


class KnownTargets(Teacher):
    """Stands for an original that is asked nothing: targets come with the feeds."""

    def __init__(self) -> None:
        return

    def seconds(self, feed: Feed) -> float:
        """Return what it costs to ask."""
        return 0.0


@dataclass(eq=False)
class Turns:
    """Feeds of a block, pass after pass, `runs` for each step."""

    feed: Callable[[int], Feed]
    count: int
    runs: int
    _order: list[int] = field(default_factory=list)

    def step(self, generator: np.random.Generator) -> list[Feed]:
        """Return the feeds of one step."""
        if len(self._order) < self.runs:
            self._order = generator.permutation(self.count).tolist()
        return [self.feed(self._order.pop()) for _ in range(min(self.runs, len(self._order)))]


@dataclass(frozen=True, eq=False)
class Lesson:
    """One block that learns.

    new: the pruned network before the block. old: the original behind it. start, end: of the block, in the pruned one.
    compared: what it should give, with what takes that of the original there.
    count: feeds that it learns from; those behind are held out. runs: feeds of a step.
    """

    new: BlockStream
    old: BlockStream
    start: Joint
    end: int
    compared: Mapping[str, Cut]
    count: int
    runs: int
    options: DistilOptions

    def learned(self, seconds: float, tell: Callable[[str], None]) -> tuple[Model, int, float]:
        """Return the network with what the block learned, after how many steps, and the predicted seconds of all.

        Raises:
            ModelError: there is no gradient of the block, or the seconds are not enough.
        """
        gradient = self._gradient()
        if not gradient.weights:
            return self.new.model, 0, 0.0
        runs, steps, each, looks = self._affordable(gradient, seconds)
        slopes = Slopes.open(gradient, KnownTargets(), self.options.threads, self.options.provider)
        held = range(self.count, len(self.old.feeds))
        distance = HeldOut(slopes, [self._feed(gradient, number) for number in held])
        rate = rate_of_walk(DistilOptions.rate, steps)
        descent = Descent(gradient.weights, gradient.matrices, rate, steps, slopes.workers)
        turns = Turns(lambda number: self._feed(gradient, number), self.count, runs)
        walk = StepWalk(descent, distance, turns, distance.held_out(gradient.weights), Progress(tell, steps))
        weights, _, best = walk.down(np.random.default_rng(self.options.seed))
        model = with_weights(self.new.model, gradient, weights) if best else self.new.model
        return model, best, walk.taken * each + looks

    def _affordable(self, gradient: Gradient, seconds: float) -> tuple[int, int, float, float]:
        """Return the runs of a step, how many steps, the seconds of each, and those of looking at held-out samples."""
        example = self._feed(gradient, 0)
        sizes = {n: a.shape for n, a in (example | gradient.weights | gradient.seed()).items()}
        forward = cost_of(Model(gradient.without_slopes()), sizes).seconds
        run = cost_of(Model(gradient.proto), sizes).seconds
        if any(node.op_type in REPEATED for node in gradient.proto.graph.node):
            run = max(run, BACKWARD * forward)
        looks = (LOOKS + 1) * (len(self.old.feeds) - self.count) * forward
        update, runs = update_seconds(gradient), self.runs
        while runs > 1 and seconds - looks < FEWEST * (runs * run + update):
            runs = -(-runs // 2)
        each = runs * run + update
        steps = int((seconds - looks) / each)
        if steps < FEWEST:
            raise ModelError(f"{FEWEST} would take about {FEWEST * each + looks:.0f} CPU seconds.")
        return runs, min(steps, MOST), each, looks

    def _gradient(self) -> Gradient:
        """Return the gradient by the weights that no other block reads."""
        gradient = self._gradient_but({})
        shared = self.new.chain.shared(self.start, self.end) & gradient.weights.keys()
        return self._gradient_but({n: gradient.weights[n] for n in sorted(shared)}) if shared else gradient

    def _gradient_but(self, stay: Feed) -> Gradient:
        wanted = [self._targets(number) for number in range(min(self.count, LOOKED_AT))]
        weights = loss_weights(variances(self.compared, wanted), list(self.compared), [], 0.0)
        self._stay.clear()
        self._stay.update(stay)
        given = self._given(0)
        block = block_model(self.new.model, self._nodes, given, list(self.compared), list(stay), self._fixed)
        return gradient_graph(block, weights, {name: wanted[0][name].shape for name in self.compared}, given)

    @cached_property
    def _stay(self) -> Feed:
        """Weights that others read too, which the block is given as they are."""
        return {}

    @cached_property
    def _nodes(self) -> list[onnx.NodeProto]:
        return self.new.chain.between(self.start, self.end)

    @cached_property
    def _read(self) -> list[str]:
        read = {name for node in self._nodes for name in reads(node)}
        return [name for name in self.start.names if name in read and name not in self._fixed]

    @cached_property
    def _fixed(self) -> Feed:
        """Sizes and the like that pass beside, the same for all samples: derivatives need to know them."""
        found = self.new.known(0, self.start.beside)
        small = [name for name, array in found.items() if array.dtype.kind in "iu" and array.size <= FEW_NUMBERS]
        all_feeds = range(len(self.new.feeds))
        same = [n for n in small if all(np.array_equal(found[n], self.new.known(k, [n])[n]) for k in all_feeds)]
        return {name: found[name] for name in same}

    def _given(self, number: int) -> Feed:
        return self.new.known(number, self._read) | self._stay

    def _targets(self, number: int) -> Feed:
        return {name: cut(self.old.known(number, [name])[name]) for name, cut in self.compared.items()}

    def _feed(self, gradient: Gradient, number: int) -> Feed:
        wanted = self._targets(number)
        feed = self._given(number) | {target: wanted[name] for name, target in gradient.targets.items()}
        known = {value.name for value in gradient.proto.graph.input}
        return {name: array for name, array in feed.items() if name in known}
