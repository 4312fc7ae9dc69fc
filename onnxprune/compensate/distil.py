"""Gradient steps after the refit: the pruned network learns to give what the original gives, without labels.

The loss is the squared distance of the outputs (before a last Softmax or Sigmoid) and of inner sums at their kept
positions, each relative to its variance in the original. onnx-ad writes the gradient as an ONNX graph, onnxruntime runs
it, numpy takes the steps. Samples are varied (shifted, mirrored, mixed in pairs); the original says what is right for
them, so no label is needed.
Source: function matching on varied samples (Beyer et al., 2022, section 3); inner tensors as in FitNets (Romero et al.,
2015, equation 3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import onnx

from onnxprune.compensate.descent import Descent
from onnxprune.compensate.draws import Draws, draws_of
from onnxprune.compensate.effort import Effort
from onnxprune.compensate.gradient import Gradient, gradient_graph
from onnxprune.compensate.long_walk import LongWalk, Pace, outlook
from onnxprune.compensate.objective import HeldOut
from onnxprune.compensate.slopes import SEEN, Cut, Slopes, Teacher
from onnxprune.compensate.weights import Weights
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.statistics.feeds import Feed, input_specs
from onnxprune.types import Array

SLOWER = (1, 8, 64)
"""The rate is divided by these, one after the other, until held-out samples say that steps are of use."""
LOOKS, PATIENCE = 10, 0.3
"""How often held-out samples are looked at, and the share of the steps by which they must have shown a gain."""
WORSE = 2.0
"""A loss this many times that before the steps is beyond hope."""
FEWEST_STEPS, FEWEST_AGAIN = 40, 20
"""With fewer, steps are left out: the rate has hardly risen and fallen. Slower ones need less time to come to rest."""
LAST = ("Softmax", "LogSoftmax", "Sigmoid", "Identity")
"""What is before these tells more than what is behind them."""


@dataclass(frozen=True)
class DistilOptions:
    """How long and how fast.

    seconds: CPU seconds, as predicted, that all steps may take; None: as many as `steps`.
    forced: at least `FEWEST_STEPS` are taken whatever they cost.
    samples: for a step. batch: of one run, at most; runs go side by side on `threads` cores (None: on all).
    rate: size of the largest step, relative to the root mean square of the weights that it changes.
    inner: weight of all inner tensors together in the loss; the outputs together have 1.
    effort: a long one goes on for as long as it says, whatever stands above.
    """

    steps: int = 600
    samples: int = 64
    batch: int = 32
    rate: float = 0.01
    inner: float = 4.0
    mix: bool = False
    shift: bool = True
    seed: int = 0
    threads: int | None = None
    seconds: float | None = None
    forced: bool = False
    effort: Effort | None = None


@dataclass(frozen=True)
class Distilled:
    """Loss on held-out samples before and after some steps, relative to the variance of the original's tensors.

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
) -> tuple[Model, Distilled]:
    """Return the pruned model after gradient steps, or as it was if held-out samples say that it got worse.

    Args:
        outputs: outputs of both networks to compare.
        inner: tensors inside both networks to compare.
        progress: told step k of n, the held-out loss and the time left.

    Raises:
        ModelError: onnx-ad is missing or has no gradient of the model, there are fewer than three samples, or fewer
            than `FEWEST_STEPS` steps fit into the seconds.
    """
    specs = input_specs(original.proto)
    draws = draws_of(feeds, specs, options.samples, options.batch, shift=options.shift, mix=options.mix)
    teacher = Teacher(original, {**outputs, **inner})
    example = draws.example()
    probe = {name: value for name, value in teacher(example).items() if value.dtype == np.float32}
    variance = variances(probe, (teacher(feed) for feed in islice(draws.examples(), 1 if draws.stacked else SEEN)))
    compared = loss_weights(
        variance, [n for n in outputs if n in probe], [n for n in inner if n in probe], options.inner
    )
    gradient = gradient_graph(pruned, compared, {name: probe[name].shape for name in compared}, example)
    slopes = Slopes.open(gradient, teacher, options.threads)
    if options.effort is not None and options.effort.is_long:
        return _as_long_as_asked(pruned, slopes, draws, options, progress)
    before, left = slopes.loss(gradient.weights, draws), _affordable(slopes, draws, options)
    for slower in SLOWER:
        descent = Descent(gradient.weights, gradient.matrices, options.rate / slower, left)
        walk = StepWalk(descent, slopes, draws, before, Progress(progress, left))
        weights, after, steps = walk.down(np.random.default_rng(options.seed))
        if steps:
            curve = tuple(walk.curve)
            found = Distilled(before, after, steps, curve, outlook(before, curve))
            return with_weights(pruned, gradient, weights), found
        left -= walk.taken if options.seconds is not None else 0
        if left < FEWEST_AGAIN and options.seconds is not None:
            break
    return pruned, Distilled(before, before)


def _as_long_as_asked(
    pruned: Model, slopes: Slopes, draws: Draws, options: DistilOptions, progress: Callable[[str], None]
) -> tuple[Model, Distilled]:
    pace = Pace(seconds=options.effort.seconds if options.effort else None, rate=options.rate, seed=options.seed)
    found = LongWalk(HeldOut(slopes, draws), draws, pace, tell=progress).run()
    told = Distilled(
        found.before, found.after, found.steps, found.curve, outlook(found.before, found.curve), found.notes
    )
    return (with_weights(pruned, slopes.gradient, found.weights) if found.steps else pruned), told


def _affordable(slopes: Slopes, draws: Draws, options: DistilOptions) -> int:
    """Return how many steps fit into the seconds."""
    if options.seconds is None:
        return options.steps
    step = slopes.seconds(draws.example(), draws.runs)
    steps = int(min(options.steps, options.seconds / step))
    if steps < FEWEST_STEPS and not options.forced:
        raise ModelError(too_dear(FEWEST_STEPS * step, options.seconds))
    return max(steps, FEWEST_STEPS)


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
    parts = list(values)
    return {name: float(np.concatenate([part[name].ravel() for part in parts]).var()) for name in names}


def loss_weights(
    variance: Mapping[str, float], outputs: Sequence[str], inner: Sequence[str], share: float
) -> dict[str, float]:
    weights = {name: share / len(inner) for name in inner if share}
    for name in outputs:
        weights[name] = weights.get(name, 0.0) + 1.0 / len(outputs)
    if not weights:
        raise ModelError("no floating-point tensor can be compared with the original.")
    return {name: weight / max(variance[name], 1e-12) for name, weight in weights.items()}


@dataclass
class StepWalk:
    """One walk down, looking at held-out samples on the way. taken: steps so far."""

    descent: Descent
    slopes: Slopes
    draws: Draws
    before: float
    progress: Progress
    taken: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def down(self, generator: np.random.Generator) -> tuple[dict[str, Array], float, int]:
        """Return the weights that were best on held-out samples, their loss, and after how many steps; 0: none were."""
        best: tuple[dict[str, Array], float, int] = (dict(self.descent.weights), self.before, 0)
        steps = self.progress.steps
        look = max(1, steps // LOOKS)
        for step in range(1, steps + 1):
            self.progress.tell(step, best[1])
            self.descent.step(self.slopes.mean(self.descent.weights, self.draws.step(generator)))
            self.taken = step
            if step % look and step < steps:
                continue
            loss = self.slopes.loss(self.descent.weights, self.draws)
            self.curve.append((step, loss if np.isfinite(loss) else -1.0))
            if loss < best[1]:
                best = (dict(self.descent.weights), loss, step)
            elif not best[2] and (step >= PATIENCE * steps or not loss < WORSE * self.before):
                break
        return best


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
