"""Gradient steps after the refit: the pruned network learns to give what the original gives, without labels.

The loss is the squared distance of the outputs (before a last Softmax or Sigmoid) and of inner sums at their kept
positions, each relative to its variance in the original. onnx-ad writes the gradient as an ONNX graph, onnxruntime runs
it, numpy takes the steps. Samples are varied (shifted, mirrored) where the original stays sure of them; it says what is
right for them, so no label is needed.
Source: function matching on varied samples (Beyer et al., 2022, section 3); inner tensors as in FitNets (Romero et al.,
2015, equation 3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import onnx

from onnxprune.compensate.augment import MANY, bearable
from onnxprune.compensate.descent import Descent, rate_of_walk
from onnxprune.compensate.draws import Draws, draws_of
from onnxprune.compensate.effort import Effort
from onnxprune.compensate.gradient import Gradient, gradient_graph
from onnxprune.compensate.long_walk import PATIENCE, LongWalk, Pace, comes_back, outlook
from onnxprune.compensate.objective import HeldOut
from onnxprune.compensate.pool import PASSES, Pool
from onnxprune.compensate.slopes import FIRST_HELP, Cut, Judged, Slopes, Teacher
from onnxprune.compensate.weights import Weights
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.statistics.feeds import Feed, input_specs
from onnxprune.types import Array

SLOWER = (1, 8, 64)
"""The rate is divided by these, one after the other, until held-out samples say that steps are of use."""
LOOKS = 10
"""How often held-out samples are looked at."""
HELD_RUNS, SEEN = 4, 32
"""Held-out samples of so many runs are looked at; of so many feeds where a feed cannot hold several samples."""
WORSE = 2.0
"""A loss this many times that before the steps is beyond hope."""
FEWEST_STEPS, FEWEST_AGAIN = 40, 20
"""With fewer, steps are left out: the rate has hardly risen and fallen. Slower ones need less time to come to rest."""
LAST = ("Softmax", "LogSoftmax", "Sigmoid", "Identity")
"""What is before these tells more than what is behind them."""
Price = tuple[float, float]
"""Predicted CPU seconds of a step, and of asking the original for it."""


class TooDearError(ModelError):
    """The seconds are enough for so few steps of the whole network."""

    def __init__(self, message: str, steps: int) -> None:
        super().__init__(message)
        self.steps = steps


@dataclass(frozen=True)
class DistilOptions:
    """How long and how fast.

    seconds: CPU seconds, as predicted, that all steps may take; None: as many as `steps`.
    forced: at least `FEWEST_STEPS` are taken whatever they cost. least: with fewer, none are.
    dear: what is said where steps of the whole network cost so much more that they need not be tried.
    samples: for a step. batch: of one run, at most; runs go side by side on `threads` cores (None: on all).
    rate: size of the largest step, relative to the root mean square of the weights that it changes; less on walks of
    fewer than `FULL_RATE` steps.
    inner: weight of all inner tensors together in the loss; the outputs together have 1.
    augment: how samples are varied, out of `augment.KINDS`; None: as the original bears it.
    effort: a long one goes on for as long as it says, whatever stands above.
    provider: execution provider of onnxruntime that runs both networks; None: the CPU.
    """

    steps: int = 600
    samples: int = 64
    batch: int = 32
    rate: float = 0.01
    inner: float = 4.0
    augment: tuple[str, ...] | None = None
    seed: int = 0
    threads: int | None = None
    seconds: float | None = None
    forced: bool = False
    least: int = FEWEST_STEPS
    dear: str = ""
    effort: Effort | None = None
    provider: str | None = None


@dataclass(frozen=True)
class Distilled:
    """Distance of outputs on held-out samples before and after some steps, relative to their variance in the original.

    curve: (steps, loss) of every look. outlook: what more of them would probably give. notes: what went otherwise.
    """

    before: float
    after: float
    steps: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    outlook: str = ""
    notes: tuple[str, ...] = ()


def distil(
    original: Model,
    pruned: Model,
    outputs: Mapping[str, Cut],
    inner: Mapping[str, Cut],
    feeds: Sequence[Feed],
    options: DistilOptions,
    progress: Callable[[str], None] = lambda text: None,
    aside: Sequence[Feed] = (),
) -> tuple[Model, Distilled]:
    """Return the pruned model after gradient steps, or as it was if held-out samples say that it got worse.

    Args:
        outputs: outputs of both networks to compare.
        inner: tensors inside both networks to compare.
        progress: told step k of n, the held-out loss and the time left.
        aside: samples to hold out; without any, one in eight of the feeds is.

    Raises:
        ModelError: onnx-ad is missing or has no gradient of the model, there are fewer than three samples, or fewer
            than `FEWEST_STEPS` steps fit into the seconds.
    """
    draws = draws_of(feeds, input_specs(original.proto), options.samples, options.batch, aside)
    teacher = Teacher(original, {**outputs, **inner}, options.provider)
    example = draws.example()
    probe = {name: value for name, value in teacher(example).items() if value.dtype == np.float32}
    variance = variances(probe, (teacher(feed) for feed in islice(draws.examples(), 1 if draws.stacked else SEEN)))
    ends, inside = ([name for name in names if name in probe] for names in (outputs, inner))
    compared = loss_weights(variance, ends, inside, options.inner)
    shapes = {name: probe[name].shape for name in compared}
    gradient = gradient_graph(pruned, compared, shapes, example, helping=helping(ends, inside))
    slopes = Slopes.open(gradient, teacher, options.threads, options.provider)
    price = _price(slopes, draws, options)
    many = _about(price, min(slopes.workers, draws.runs), options) >= MANY
    draws.kinds = _kinds(options, draws, lambda feed: [teacher(feed)[name] for name in ends], many)
    held = list(islice(draws.held_out(), HELD_RUNS if draws.stacked else SEEN))
    distance = HeldOut.over(slopes, held)
    if options.effort is not None and options.effort.is_long:
        return _as_long_as_asked(pruned, distance, draws, options, progress)
    pool = Pool.of(draws, slopes, 0 if many and draws.kinds else PASSES)
    before, left = distance.held_out(gradient.weights), _affordable(price, pool, options)
    for slower in SLOWER:
        rate = rate_of_walk(options.rate / slower, left)
        descent = Descent(gradient.weights, gradient.matrices, rate, left, slopes.workers)
        walk = StepWalk(descent, distance, pool, before, Progress(progress, left))
        weights, after, steps = walk.down(np.random.default_rng(options.seed))
        if steps:
            curve = tuple(walk.curve)
            found = Distilled(before.aim, after, steps, curve, outlook(before.aim, curve))
            return with_weights(pruned, gradient, weights), found
        left -= walk.taken if options.seconds is not None else 0
        if left < FEWEST_AGAIN and options.seconds is not None:
            break
    return pruned, Distilled(before.aim, before.aim)


def _price(slopes: Slopes, draws: Draws, options: DistilOptions) -> Price:
    """Return the predicted CPU seconds of a step and of asking the original for it; nothing where steps are counted."""
    if options.seconds is None and _pace(options).seconds is None:
        return 0.0, 0.0
    step, teacher = slopes.seconds(draws.example(), draws.runs)
    return step, draws.runs * teacher


def _about(price: Price, workers: int, options: DistilOptions) -> float:
    """Return about how many steps there will be if each asks the original."""
    if options.effort is not None and options.effort.is_long:
        return _pace(options).about(sum(price) / workers)
    return options.steps if options.seconds is None else min(options.steps, options.seconds / sum(price))


def _pace(options: DistilOptions) -> Pace:
    return Pace(seconds=options.effort.seconds if options.effort else None, rate=options.rate, seed=options.seed)


def _kinds(
    options: DistilOptions, draws: Draws, network: Callable[[Feed], Sequence[Array]], mixing: bool
) -> Sequence[str]:
    """Return how samples are varied: as asked, or as the network bears it."""
    if options.augment is not None or not draws.stacked:
        return options.augment or ()
    return bearable(network, draws.example(), mixing=mixing)


def _as_long_as_asked(
    pruned: Model, distance: HeldOut, draws: Draws, options: DistilOptions, progress: Callable[[str], None]
) -> tuple[Model, Distilled]:
    found = LongWalk(distance, draws, _pace(options), tell=progress, workers=distance.slopes.workers).run()
    told = Distilled(
        found.before, found.after, found.steps, found.curve, outlook(found.before, found.curve), found.notes
    )
    return (with_weights(pruned, distance.slopes.gradient, found.weights) if found.steps else pruned), told


def _affordable(price: Price, pool: Pool, options: DistilOptions) -> int:
    """Return how many steps fit into the seconds."""
    if options.seconds is None:
        return options.steps
    step, asked = price
    steps = int(options.seconds / (step + asked))
    if pool.asked(steps) < steps * pool.draws.runs:  # the original is asked no more once the pool is full
        steps = int((options.seconds - pool.size / pool.draws.runs * asked) / step)
    if steps < options.least and not options.forced:
        raise TooDearError(too_dear(FEWEST_STEPS * (step + asked), options.seconds), steps)
    return max(min(steps, options.steps), FEWEST_STEPS)


def too_dear(cost: float, left: float) -> str:
    """Say why no steps are taken."""
    return (
        f"{FEWEST_STEPS} would take about {cost:.0f} CPU seconds, more than the {max(left, 0.0):.0f} that are left; "
        "compensate distil takes them all the same."
    )


def before_last(graph: onnx.GraphProto, name: str) -> str:
    """Return what a last Softmax or Sigmoid reads, if the tensor is made by one."""
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers and makers[name].op_type in LAST and not makers[name].domain:
        name = makers[name].input[0]
    return name


def variances(names: Iterable[str], values: Iterable[Mapping[str, Array]]) -> dict[str, float]:
    """Return the variance of tensors over all values of several feeds: that of one sample may be of one number."""
    wanted = list(names)
    sums = {name: np.zeros(3) for name in wanted}
    first: dict[str, float] = {}
    for part in values:
        for name in wanted:
            # measured from a value of its own, so that squares of a large mean do not hide the spread
            away = part[name].astype(np.float64) - first.setdefault(name, float(part[name].flat[0]))
            sums[name] += away.size, away.sum(), np.square(away).sum()
    return {name: max(0.0, square / count - (total / count) ** 2) for name, (count, total, square) in sums.items()}


def loss_weights(
    variance: Mapping[str, float], outputs: Sequence[str], inner: Sequence[str], share: float
) -> dict[str, float]:
    weights = {name: share / len(inner) for name in inner if share}
    for name in outputs:
        weights[name] = weights.get(name, 0.0) + 1.0 / len(outputs)
    if not weights:
        raise ModelError("no floating-point tensor can be compared with the original.")
    return {name: weight / max(variance[name], 1e-12) for name, weight in weights.items()}


def helping(outputs: Collection[str], inner: Collection[str]) -> frozenset[str]:
    """Return the tensors that steps compare so that outputs come nearer, and that nobody asks for."""
    return frozenset(inner) - frozenset(outputs) if outputs else frozenset()


class Feeding(Protocol):
    """Gives the feeds of steps."""

    def step(self, generator: np.random.Generator) -> list[Feed]:
        """Return the feeds of one step."""
        ...


@dataclass
class StepWalk:
    """One walk down, looking at held-out samples on the way.

    taken: steps so far. curve, wholes: (steps, what is aimed at) and (steps, the whole loss) of every look.
    """

    descent: Descent
    distance: HeldOut
    pool: Feeding
    before: Judged
    progress: Progress
    taken: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    wholes: list[tuple[int, float]] = field(default_factory=list)

    def down(self, generator: np.random.Generator) -> tuple[dict[str, Array], float, int]:
        """Return the weights that were best on held-out samples, their loss, and after how many steps; 0: none were."""
        best: tuple[dict[str, Array], float, int] = (dict(self.descent.weights), self.before.aim, 0)
        steps, share = self.progress.steps, self.before.help(FIRST_HELP)
        look = max(1, steps // LOOKS)
        for step in range(1, steps + 1):
            self.progress.tell(step, best[1])
            self.descent.step(self.distance.mean(self.descent.weights, self.pool.step(generator), share))
            self.taken = step
            if step % look and step < steps:
                continue
            aim, whole = self.distance.held_out(self.descent.weights)
            self.curve.append((step, aim if np.isfinite(aim) else -1.0))
            self.wholes.append((step, whole))
            if aim < best[1]:
                best = (dict(self.descent.weights), aim, step)
            if not best[2] and self._is_in_vain(step):
                break
        return best

    def _is_in_vain(self, step: int) -> bool:
        """Tell whether a walk whose outputs came no nearer need not go on: what is inside did not, and will not."""
        steps, whole = self.progress.steps, self.before.whole
        if any(loss < whole for _, loss in self.wholes):
            return False
        late = step >= PATIENCE * steps and not comes_back(self.wholes, steps, whole)
        return late or not self.wholes[-1][1] < WORSE * whole


@dataclass
class Progress:
    """Tells how far a walk is; the clock is for the eyes only."""

    tell_text: Callable[[str], None]
    steps: int
    start: float = field(default_factory=time.monotonic)

    def tell(self, step: int, loss: float) -> None:
        """Say which step comes next, how far the networks are apart, and the time left."""
        done, spent = step - 1, time.monotonic() - self.start
        left = f", {spent / done * (self.steps - done):.0f} s left" if done else ""
        self.tell_text(f"gradient step {step} of {self.steps}, held-out distance {loss:.3g}{left}")


def with_weights(model: Model, gradient: Gradient, weights: Mapping[str, Array]) -> Model:
    """Return a copy of a model with the weights that changed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    store = Weights(Model(proto, model.path, dict(model.pending)))
    for name, value in weights.items():
        if np.isfinite(value).all() and not np.array_equal(value, gradient.weights[name]):
            store.replace(name, value)
    return store.model
