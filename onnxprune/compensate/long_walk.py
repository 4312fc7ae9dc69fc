"""Gradient steps for as long as they help, or as long as the user has time, going on where they were interrupted.

Without a time there are rounds: the rate falls along a cosine to nothing in each, the next one is several times as long
and begins at the best weights; a round that gains little is the last. With a time there is one round, whose rate falls
with the time that is left.
Source: warm restarts of rising length (Loshchilov and Hutter, 2017, SGDR, section 3).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from onnxprune.compensate.descent import Blocks, Descent
from onnxprune.compensate.effort import shown
from onnxprune.compensate.slopes import FIRST_HELP, LAST_HELP, Judged
from onnxprune.compensate.snapshot import Snapshot
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array, BoolArray

GAIN = 0.05
"""A round that brings what is aimed at down by a smaller share than this is the last."""
ROUNDS, LONGER = 3, 3
"""Rounds at most, and how many times as long as the last one the next is."""
LOOKS, OFTEN = 10, 100
"""Held-out samples are looked at so many times a round, and at least once in so many steps."""
FALLS = 4
"""How often the rate is lowered because steps lead nowhere, before it is given up."""
LOWER = 4.0
HOPELESS = 10.0
"""A loss this many times what it was at first is no way to go on from."""
WRITTEN, COST = 1.0, 50.0
"""The state is written whenever so many seconds have passed, and so many times what writing it takes."""
PATIENCE = 0.3
"""The share of all steps by which held-out samples must show or promise a gain."""
HINTED = 300
"""Steps in which what is inside a network counts most: it shows the way."""
LITTLE = 0.02
"""A share of the loss, for twice the steps, that is not worth them."""
FIRST = 20
"""Steps in which hardly anything happens yet: doublings are counted from there."""
WARM = 3
"""Steps that are measured for the estimate."""


class Objective(Protocol):
    """What is made smaller. weights: where it begins. matrices: (blocks, rows, columns) of those that are matrices."""

    @property
    def weights(self) -> Mapping[str, Array]: ...
    @property
    def matrices(self) -> Mapping[str, Blocks]: ...
    def mean(self, weights: Mapping[str, Array], feeds: Sequence[Feed], share: float) -> list[Array]:
        """Return the gradient by every weight, with helpers that count so much."""
        ...

    def held_out(self, weights: Mapping[str, Array]) -> Judged:
        """Return the loss on samples that no step sees."""
        ...


class Batches(Protocol):
    """Where steps take their samples from."""

    def step(self, generator: np.random.Generator) -> list[Feed]:
        """Return the feeds of one step."""
        ...

    def skip(self, steps: int) -> None:
        """Go on behind so many steps."""
        ...


@dataclass(frozen=True)
class Pace:
    """How long and how fast.

    steps: of the first round. rounds: at most. seconds: of the clock, instead of rounds.
    rate: of the largest step, relative to the root mean square of what it changes.
    """

    steps: int = 1000
    rounds: int = ROUNDS
    seconds: float | None = None
    rate: float = 0.01
    seed: int = 0

    def about(self, each: float) -> float:
        """Return about how many steps there will be at so many seconds each; of rounds the longest."""
        return self.seconds / max(each, 1e-9) if self.seconds is not None else self.steps * LONGER ** (self.rounds - 1)


@dataclass
class Standing:
    """How far it is, as numbers: what the state keeps besides arrays.

    before, best: of what is aimed at. whole: the loss with all that shows the way, before.
    curve: (steps, what is aimed at) of every look.
    began, since, looks: the best when this round first began; seconds spent and looks taken when it last did.
    """

    rate: float
    round: int = 0
    step: int = 0
    taken: int = 0
    falls: int = 0
    spent: float = 0.0
    since: float = 0.0
    looks: int = 0
    before: float = math.inf
    best: float = math.inf
    whole: float = math.inf
    first_help: float = 1.0
    last_help: float = 1.0
    began: float = math.inf
    best_step: int = 0
    over: bool = False
    curve: list[tuple[int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    generator: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Walked:
    """What came of it: the best weights on held-out samples, and the loss there before and after."""

    weights: dict[str, Array]
    before: float
    after: float
    steps: int
    taken: int
    curve: tuple[tuple[int, float], ...]
    notes: tuple[str, ...]


@dataclass(eq=False)
class LongWalk:
    """Walks down an objective.

    zeros: weight -> True where it must stay zero.
    snapshot: keeps how far it is; None: nowhere.
    tell: told step, loss and time left.
    workers: threads that change weights side by side.
    """

    objective: Objective
    batches: Batches
    pace: Pace
    zeros: Mapping[str, BoolArray] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    tell: Callable[[str], None] = lambda text: None
    workers: int = 1

    def run(self) -> Walked:
        """Walk until it is over; the best weights so far are never worse than those it began with."""
        self.generator = np.random.default_rng(self.pace.seed)
        if not self._resumed():
            start = dict(self.objective.weights)
            self.standing = Standing(self.pace.rate)
            judged = self.objective.held_out(start)
            self.standing.best, self.standing.whole = judged
            self.standing.first_help, self.standing.last_help = judged.help(FIRST_HELP), judged.help(LAST_HELP)
            self.standing.before = self.standing.best
            self.standing.over = judged == (0.0, 0.0)
            self.best = start
            self._begin_round(0)
        self._clock = self._written = time.monotonic()
        self._writing = 0.0
        while not self.standing.over:
            self._step()
        self._write()
        found = self.standing
        curve, notes = tuple((int(step), loss) for step, loss in found.curve), tuple(found.notes)
        return Walked(self.best, found.before, found.best, found.best_step, found.taken, curve, notes)

    @property
    def _length(self) -> int:
        """Steps of this round, where they are counted."""
        return int(self.pace.steps * LONGER**self.standing.round)

    @property
    def _fraction(self) -> float:
        """How much of this round is done."""
        if self.pace.seconds is not None:
            since = self.standing.since
            return min(1.0, (self.standing.spent - since) / max(self.pace.seconds - since, 1e-9))
        return (self.standing.step + 1) / (self._length + 1)

    @property
    def _help(self) -> float:
        """How much what is inside counts."""
        return self.standing.first_help if self.standing.taken < HINTED else self.standing.last_help

    @property
    def _foreseen(self) -> float | None:
        """How many steps the clock leaves time for, by those that were taken; None: steps are counted."""
        if self.pace.seconds is None:
            return None
        at = self.standing
        return (self.pace.seconds - at.since) / (at.spent / at.taken) if at.taken and at.spent else 1.0

    def _begin_round(self, number: int) -> None:
        self.standing.round, self.standing.step, self.standing.began = number, 0, self.standing.best
        self.standing.since, self.standing.looks = self.standing.spent, len(self.standing.curve)
        self._start = self.best
        self.descent = Descent(self.best, self.objective.matrices, self.standing.rate, self._length, self.workers)

    def _step(self) -> None:
        at = self.standing
        self._tell()
        slopes = self.objective.mean(self.descent.weights, self.batches.step(self.generator), self._help)
        self.descent.step(slopes, self._fraction, self._foreseen)
        for name, zero in self.zeros.items():
            self.descent.weights[name] = np.where(zero, np.float32(0), self.descent.weights[name])
        at.step += 1
        at.taken += 1
        self._spend()
        ends = at.spent >= self.pace.seconds if self.pace.seconds is not None else at.step >= self._length
        astray = self._look() if ends or self._is_due() else False
        self._spend()
        if ends and not astray:
            self._end_round()
        elif ends and self.pace.seconds is not None:
            at.over = True
        if time.monotonic() - self._written > max(WRITTEN, COST * self._writing):
            self._write()

    def _is_due(self) -> bool:
        if self.pace.seconds is None:
            return self.standing.step % max(1, min(OFTEN, self._length // LOOKS)) == 0
        last = self.standing.curve[-1][0] if self.standing.curve else 0
        pace = self.standing.spent / self.standing.taken
        share = max(1, min(OFTEN, int(self.pace.seconds / pace / (2 * LOOKS))))
        return self.standing.taken - last >= share

    def _look(self) -> bool:
        """Look at held-out samples; tell whether steps went astray, and it began again from the best, more slowly."""
        at = self.standing
        judged = self.objective.held_out(self.descent.weights)
        aim, loss, first = judged.aim, judged.with_help(self._help), Judged(at.before, at.whole).with_help(self._help)
        at.curve.append((at.taken, aim if math.isfinite(aim) else -1.0))
        if aim < at.best:
            at.best, at.best_step, self.best = aim, at.taken, dict(self.descent.weights)
        elif not loss <= first + (HOPELESS - 1) * abs(first):
            told = "no number" if not math.isfinite(loss) else f"{loss:.3g}"
            self._lower(f"the loss was {told} at step {at.taken}")
            return True
        if self._is_in_vain():
            self._lower(f"no gain on held-out samples by step {at.taken}")
            return True
        return False

    def _is_in_vain(self) -> bool:
        """Tell whether a good part of the time brought no gain and promises none."""
        at = self.standing
        if self.pace.seconds is None or at.best < at.began or self._fraction < PATIENCE or at.falls >= FALLS - 1:
            return False
        left = (self.pace.seconds - at.spent) * at.taken / at.spent
        return not comes_back(at.curve[at.looks :], at.taken + left, at.best)

    def _end_round(self) -> None:
        at = self.standing
        gained = (at.began - at.best) / abs(at.began) if at.began else 0.0
        if self.pace.seconds is not None:
            at.over = True
        elif gained <= 0 and at.best_step == 0:
            self._lower(f"{at.step} steps brought nothing on held-out samples")
        elif gained < GAIN or at.round + 1 >= self.pace.rounds:
            at.over = True
        else:
            self._begin_round(at.round + 1)

    def _lower(self, why: str) -> None:
        at = self.standing
        at.falls += 1
        if at.falls >= FALLS:
            at.notes.append(f"{why}: given up, with the best so far kept")
            at.over = True
            return
        at.rate /= LOWER
        at.notes.append(f"{why}: begun again at the best so far with a rate of {at.rate:.2g}")
        began = at.began
        self._begin_round(at.round)
        at.began = began

    def _spend(self) -> None:
        now = time.monotonic()
        self.standing.spent += now - self._clock
        self._clock = now

    def _tell(self) -> None:
        at, seconds = self.standing, self.pace.seconds
        text = f"gradient step {at.taken + 1}"
        if at.taken < WARM:
            self.tell(f"{text}, held-out distance {at.best:.3g}" + (f", {shown(seconds)} in all" if seconds else ""))
            return
        each = at.spent / at.taken
        if seconds is not None:
            about = max(at.taken + 1, int(seconds / each))
            left = seconds - at.spent
        else:
            about = at.taken - at.step + self._length
            left = (self._length - at.step) * each
        more = ", at least" if seconds is None and at.round + 1 < self.pace.rounds else ""
        self.tell(f"{text} of about {about}, held-out distance {at.best:.3g}, {shown(max(0.0, left))} left{more}")

    def _write(self) -> None:
        if self.snapshot is None:
            return
        self._spend()
        start = time.monotonic()
        self.standing.generator = dict(self.generator.bit_generator.state)
        sets = {"w": self.descent.weights, "b": self.best, "r": self._start, **self.descent.memory()}
        arrays = {f"{kind}{number}": a for kind, values in sets.items() for number, a in enumerate(values.values())}
        self.snapshot.write({**vars(self.standing), "memory": self.descent.steps_taken}, arrays)
        self._written = time.monotonic()
        self._writing = self._written - start

    def _resumed(self) -> bool:
        """Go on where the state says."""
        found = self.snapshot.read() if self.snapshot is not None else None
        if found is None:
            return False
        values, arrays = found
        names = list(self.objective.weights)

        def taken(kind: str, among: Sequence[str] = names) -> dict[str, Array]:
            return {name: arrays[f"{kind}{number}"] for number, name in enumerate(among)}

        steps = values.pop("memory")
        self.standing = Standing(**values)
        self.batches.skip(self.standing.taken)
        self.generator.bit_generator.state = self.standing.generator
        self.best, self._start = taken("b"), taken("r")
        self.descent = Descent(self._start, self.objective.matrices, self.standing.rate, self._length, self.workers)
        among = list(self.descent.memory()["v"])
        self.descent.resume(taken("w"), taken("m"), taken("v", among), steps)
        if self.pace.seconds is not None:
            self.standing.over = self.standing.spent >= self.pace.seconds
        return True


def comes_back(looks: Sequence[tuple[int, float]], steps: float, goal: float) -> bool:
    """Tell whether a line from the worst look on ends below a goal: large steps first lead away.

    Args:
        looks: (steps, loss) so far. steps: how many there will be.
    """
    top, worst = max(looks, key=lambda look: look[1])
    step, loss = looks[-1]
    return step > top and loss - (worst - loss) / (step - top) * (steps - step) < goal


def outlook(before: float, curve: Sequence[tuple[int, float]]) -> str:
    """Say what as many steps again would probably give: the loss has fallen by some share for each doubling so far.

    A guess: it takes the best loss as a power of the number of steps.
    """
    looks = [(step, loss) for step, loss in curve if loss >= 0]
    if len(looks) < 2 or not before > 0:
        return ""
    last = looks[-1][0]
    best = min(loss for _, loss in looks)
    early = min(loss for step, loss in looks if step <= max(looks[0][0], last // 4))
    if best <= 0 or best >= before:
        return "Held-out samples show no gain from steps; more of them would probably bring none."
    doublings = math.log2(last / max(1, min(step for step, loss in looks if loss == early)))
    share = (best / early) ** (1 / doublings) if doublings > 0.5 else best / before
    # the end of a round, where the rate falls, shows more than the next steps will: the slower of two rates counts
    share = max(share, (best / before) ** (1 / max(1.0, math.log2(last / FIRST))))
    guess = best * max(share, 0.5)
    if share > 1 - LITTLE:
        return f"{last} steps: held-out samples gain little by now; more effort would probably bring next to nothing."
    told = f"bring the held-out distance from {best:.3g} to about {guess:.3g}"
    return f"{last} steps: twice as many would probably {told}."
