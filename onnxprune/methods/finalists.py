"""Choices of branches that came near in the closed form, each carried out as it would be written, and compared.

Gradient steps bring back more of what shallow networks lost than of what thin ones did, or less: what is nearest before
them is often not so behind them. So the choices meet the target as measured, are refitted with the steps that the
result will have, to a part of the samples, and compared on the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxprune.errors import NothingToPruneError
from onnxprune.graph.model import Model
from onnxprune.methods.distances import Distance
from onnxprune.methods.pruning import Chosen, Pruning
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.data import Data
from onnxprune.statistics.split import first, split

HELD = 512
"""Samples at most that finalists are compared on."""

Names = tuple[str, ...]
Reached = tuple[Pruning, Chosen]


@dataclass(frozen=True)
class Choices:
    """Names of branches that may go together, the best first as far as is known.

    contenders: worth a trial. more: tried in their order where no contender reaches the target. notes: what was found.
    """

    contenders: Sequence[Names]
    more: Sequence[Names] = ()
    notes: tuple[str, ...] = ()


def carried_out(
    model: Model,
    choices: Choices,
    ready: Callable[[Names], Pruning],
    samples: Data,
    runtime: Runtime,
    progress: Callable[[str], None],
    warnings: tuple[str, ...] = (),
) -> PruneResult:
    """Return the result of the choice that is nearest to the original on samples that it was not fitted to.

    Args:
        ready: names of branches -> the prune without them.

    Raises:
        NothingToPruneError: none reaches the target.
    """
    reached, missed = reached_of(choices.contenders, ready, samples)
    notes = [*warnings, *choices.notes, *(_missed(names) for names in missed)]
    if reached:
        work, chosen, said = nearest(model, reached, samples, runtime, progress)
        return work.finish(chosen, samples, (*notes, *said))
    refused = next(iter(missed.values()), NothingToPruneError("no choice reaches the target."))
    for names in choices.more:
        try:
            return ready(names).run(samples, tuple(notes))
        except NothingToPruneError as error:
            refused = error
            notes.append(_missed(names))
    raise refused


def reached_of(
    contenders: Sequence[Names], ready: Callable[[Names], Pruning], samples: Data
) -> tuple[list[Reached], dict[Names, NothingToPruneError]]:
    """Return the choices that reach the target, as measured, and why others do not."""
    reached: list[Reached] = []
    missed: dict[Names, NothingToPruneError] = {}
    for names in contenders:
        try:
            work = ready(names)
            reached.append((work, work.choose(samples)))
        except NothingToPruneError as error:
            missed[names] = error
    return reached, missed


def _missed(names: Names) -> str:
    return f"widths did not reach the target with {len(names)} branches dropped; another choice was taken"


def nearest(
    model: Model,
    reached: Sequence[Reached],
    samples: Data,
    runtime: Runtime,
    progress: Callable[[str], None],
) -> tuple[Pruning, Chosen, list[str]]:
    """Return the work whose outputs are nearest after a trial, what it chose, and what was found."""
    if len(reached) == 1:
        return *reached[0], []
    fit, held = split(samples)
    distance = Distance(model, first(held if held is not None else fit, HELD), runtime)
    errors = []
    for number, (work, chosen) in enumerate(reached, 1):
        progress(f"trying choice {number} of {len(reached)} with its steps")
        errors.append(distance.of(work.trial(chosen, fit)))
    work, chosen = reached[min(range(len(errors)), key=lambda number: errors[number])]
    tried = ", ".join(f"{_dropped(other)}: {error:.3g}" for (other, _), error in zip(reached, errors, strict=True))
    return work, chosen, [f"{_dropped(work)} branches were dropped; error after trials, by branches dropped: {tried}"]


def _dropped(work: Pruning) -> int:
    return len(work.short.names) if work.short is not None else 0
