"""Automatic mixed precision: layers ranked by the noise that each adds alone, the worst kept float as far as needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from onnxprune.errors import GateError
from onnxprune.evidence.compare import Comparison, Reference, compare
from onnxprune.evidence.limits import GateLimits, measured
from onnxprune.evidence.parity import SQNR_LIMIT_DB
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session

if TYPE_CHECKING:
    import onnx

Build = Callable[[Collection[str]], "onnx.ModelProto"]
"""Makes the quantized model from the names of the nodes that stay float."""

RANKING_FEEDS = 2
RANKING_SECONDS = 90.0
GIVEN_BACK = 12
"""How many layers are tried once more: the order by noise is not the order of what a limit looks at."""


@dataclass(frozen=True)
class Judge:
    """Tells whether a quantized model is good enough.

    drop: measures how much the user's own value falls; None without such a limit.
    """

    reference: Reference
    gates: GateLimits
    threads: int = 0
    drop: Callable[[Model], float] | None = None

    def failures(self, model: Model) -> list[str]:
        """Return the limits that a model does not keep."""
        comparison = self.compare(model) if self.gates.needs_outputs else None
        drop = self.drop(model) if self.drop is not None and self.gates.max_drop is not None else None
        return self.gates.failures(comparison.parity if comparison else {}, drop)

    def compare(self, model: Model, feeds: int | None = None) -> Comparison:
        """Return how close a model is to the original, on all feeds or the first few."""
        some = self.reference if feeds is None else replace(self.reference, samples=self.reference.samples[:feeds])
        with open_session(model, threads=self.threads, label="the quantized model") as session:
            return compare(some, session)


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    left: nodes that stay float besides those that the user named.
    alone: node -> SQNR in dB of the model's outputs when it alone is quantized.
    failures: limits that are not kept even so.
    """

    left: frozenset[str]
    alone: dict[str, float]
    failures: tuple[str, ...] = ()

    def require(self) -> None:
        """Stop where limits are not kept.

        Raises:
            GateError: they are not, with every layer in float.
        """
        if self.failures:
            raise GateError(f"{'; '.join(self.failures)}, with every layer in float. Nothing was written.")


class Limits(Protocol):
    """Tells what a quantized model does not keep."""

    def failures(self, model: Model) -> list[str]:
        """Return it in words; empty if the model is good enough."""
        ...


def guarded(build: Build, ranking: Callable[[], Sequence[str]], fixed: Collection[str], guard: Limits) -> Outcome:
    """Keep the noisiest layers float until a guard holds that does not without, as few as bisection finds.

    Args:
        ranking: gives the names of the layers, the noisiest first, if it comes to that.
    """
    order = list(ranking())
    low, count = 0, min(1, len(order))
    while count < len(order) and guard.failures(Model(build({*fixed, *order[:count]}))):
        low, count = count, min(2 * count, len(order))
    while count - low > max(1, count // 8):
        middle = (low + count) // 2
        low, count = (middle, count) if guard.failures(Model(build({*fixed, *order[:middle]}))) else (low, middle)
    return Outcome(frozenset(order[:count]), {})


def search(build: Build, names: Sequence[str], fixed: Collection[str], judge: Judge) -> Outcome:
    """Keep as few layers float as limits need that do not hold without.

    Args:
        names: nodes that could stay float, in the order of the graph.
        fixed: nodes that stay float in any case.
    """
    alone = rank(build, names, fixed, judge)
    order = sorted(names, key=lambda name: alone.get(name, SQNR_LIMIT_DB))

    def missing(count: int) -> list[str]:
        return judge.failures(Model(build({*fixed, *order[:count]})))

    low, count = 0, min(1, len(order))
    failures: list[str] = []
    while (failures := missing(count)) and count < len(order):
        low, count = count, min(2 * count, len(order))
    if failures:
        return Outcome(frozenset(order), alone, tuple(failures))
    while count - low > 1:
        middle = (low + count) // 2
        low, count = (middle, count) if missing(middle) else (low, middle)
    return Outcome(frozenset(_given_back(build, order[:count], fixed, judge)), alone)


def _given_back(build: Build, left: Sequence[str], fixed: Collection[str], judge: Judge) -> list[str]:
    """Return the layers that must stay float: those that the limits do not need are quantized after all."""
    needed = list(left)
    for name in reversed(left[-GIVEN_BACK:]):
        without = [other for other in needed if other != name]
        if not judge.failures(Model(build({*fixed, *without}))):
            needed = without
    return needed


def rank(build: Build, names: Sequence[str], fixed: Collection[str], judge: Judge) -> dict[str, float]:
    """Return the SQNR of the outputs with one layer alone quantized; layers that there is no time for are missing."""
    start = time.perf_counter()
    costs: dict[str, float] = {}
    everything = {*names}
    for name in names:
        model = Model(build({*fixed, *(everything - {name})}))
        parity = judge.compare(model, RANKING_FEEDS).parity
        values = measured("sqnr_db", parity).values()
        costs[name] = min((-SQNR_LIMIT_DB if value is None else value for value in values), default=SQNR_LIMIT_DB)
        if time.perf_counter() - start > RANKING_SECONDS:
            break
    return costs
