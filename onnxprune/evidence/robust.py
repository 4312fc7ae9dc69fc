"""Whether a compressed model is more brittle than its original: how often small changes of inputs change what it says.

Each model is compared with itself, on inputs as they are and changed; an error that both make counts against neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import DataError, ModelError
from onnxprune.evidence.compare import Reference
from onnxprune.evidence.parity import Meters, Parity
from onnxprune.evidence.perturbed import CHANGES, changeable, changed, open_attack, unmoved
from onnxprune.graph.model import Model, Source, load
from onnxprune.graph.session import Feeds, Session, file_of, open_session
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.graph.trace import Shape

LEAST = 0.01
"""Differences that are smaller make no model brittle."""
SURE = 2.0
"""Standard errors from which on a difference is more than chance."""


@dataclass(frozen=True)
class Robustness:
    """How steady two models are under one change of one output.

    figure: "agreement" (top-1) or "cosine". original, compressed: each with itself on inputs that are as they were.
    both: the compressed model with the original, on the changed inputs (those changed against the original for fgsm).
    brittle: the compressed model is less steady by more than chance and by more than a hundredth.
    """

    change: str
    output: str
    figure: str
    original: float
    compressed: float
    both: float
    samples: int
    brittle: bool

    def to_json(self) -> dict[str, object]:
        """Return the fields that the report shows."""
        return {**vars(self), **{name: round(getattr(self, name), 5) for name in ("original", "compressed", "both")}}


@dataclass(frozen=True)
class Steadiness:
    """Everything that was measured, and what could not be."""

    lines: tuple[Robustness, ...]
    warnings: tuple[str, ...] = ()

    @property
    def is_brittle(self) -> bool:
        """Tell whether any change changes more of what the compressed model says."""
        return any(line.brittle for line in self.lines)

    @property
    def sentence(self) -> str:
        """What came of it, in one sentence."""
        worst = [line for line in self.lines if line.brittle]
        if not worst:
            count = max((line.samples for line in self.lines), default=0)
            steady = "Small changes of inputs change no more of what the compressed model says than of the original"
            return f"{steady}, as far as {count} samples tell."
        told = max(worst, key=lambda line: line.original - line.compressed)
        return (
            f"The compressed model is more brittle: under {told.change} output '{told.output}' keeps "
            f"{told.compressed:.3f} of what it says ({told.figure}), the original {told.original:.3f}."
        )


def robustness(
    original: Source,
    compressed: Source,
    *,
    data: str | Path | Iterable[object] | object = None,
    samples: int | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Shape] | None = None,
    threads: int = 0,
    provider: str | None = None,
) -> Steadiness:
    """Return how steady two models are under small changes of their inputs.

    Args:
        data, samples, seed, input_shapes, threads, provider: see `validate`.

    Raises:
        DataError, ModelError: see `validate`; also where no input is a float that varies.
    """
    from onnxprune.evidence.validation import reference_on

    before = load(original)
    reference = reference_on(original, before, data, samples, seed, input_shapes, threads, provider)
    with reference.session:
        return steadiness(reference, before, load(compressed), seed=seed, threads=threads, provider=provider)


def steadiness(
    reference: Reference, before: Model, after: Model, *, seed: int = 0, threads: int = 0, provider: str | None = None
) -> Steadiness:
    """Return the same of models that are read, on the samples of the reference.

    Raises:
        DataError: no input is a float that varies.
        ModelError: the compressed model does not run.
    """
    feeds = [reference.session.fit(feed) for feed in reference.samples]
    spreads = changeable(feeds)
    if not spreads:
        raise DataError("no input is a float that varies, so there is nothing to change a little.")
    with open_session(file_of(after.path) or after, threads=threads, provider=provider) as session:
        work = _Work(reference, session, feeds, spreads, seed)
        skipped = [*unmoved(feeds, spreads)]
        lines = [line for name in CHANGES if name not in skipped for line in work.under(name)]
        warnings = ["no input is an image, so none was shifted"] if skipped else []
        try:
            lines += work.attacked(before, after, threads)
        except ModelError as error:
            warnings.append(f"steps against the gradient were not taken: {error}")
    return Steadiness(tuple(lines), tuple(warnings))


@dataclass(eq=False)
class _Work:
    reference: Reference
    compressed: Session
    feeds: Sequence[Feeds]
    spreads: Mapping[str, float]
    seed: int

    def __post_init__(self) -> None:
        self.clean = [(self.reference.session.run(feed), self._other(feed)) for feed in self.feeds]

    def _other(self, feed: Feeds) -> dict[str, Array]:
        return self.compressed.run(self.compressed.fit(feed))

    def under(self, name: str) -> Iterator[Robustness]:
        """Measure one change."""
        chance, kinds = np.random.default_rng([self.seed, len(name)]), self.reference.kinds
        own, others, both = Meters(kinds), Meters(kinds), Meters(kinds)
        for feed, (first, second) in zip(self.feeds, self.clean, strict=True):
            moved = changed(feed, self.spreads, CHANGES[name], chance)
            one, two = self.reference.session.run(moved), self._other(moved)
            own.add(first, one)
            others.add(second, two)
            both.add(one, two)
        yield from self._lines(name, own, others, both)

    def attacked(self, before: Model, after: Model, threads: int) -> Iterator[Robustness]:
        """Measure steps against each model's own gradient."""
        kinds = self.reference.kinds
        own, others, both = Meters(kinds), Meters(kinds), Meters(kinds)
        (first, second), feed = self.clean[0], self.feeds[0]
        one = open_attack(before, feed, first, self.spreads, threads)
        with one.session, (two := open_attack(after, feed, second, self.spreads, threads)).session:
            for feed, (first, second) in zip(self.feeds, self.clean, strict=True):
                against, other = one(feed, first, kinds), two(feed, second, kinds)
                if against is None or other is None:
                    continue
                given = self.reference.session.run(against)
                own.add(first, given)
                others.add(second, self._other(other))
                both.add(given, self._other(against))
        yield from self._lines("fgsm", own, others, both)

    def _lines(self, change: str, own: Meters, others: Meters, both: Meters) -> Iterator[Robustness]:
        tables = (own.results(), others.results(), both.results())
        for output in tables[0]:
            found = [table.get(output) for table in tables]
            figure = "agreement" if all(_figure(item, "agreement") is not None for item in found) else "cosine"
            values = [_figure(item, figure) for item in found]
            one, two, three = values
            if one is None or two is None or three is None:
                continue
            brittle = is_less(two, one, self.reference.count if figure == "agreement" else None)
            yield Robustness(change, output, figure, one, two, three, self.reference.count, brittle)


def is_less(share: float, than: float, samples: int | None) -> bool:
    """Tell whether a share is smaller by more than a hundredth and, of so many samples, by more than chance."""
    chance = 0.0
    if samples is not None:
        chance = SURE * math.sqrt((share * (1 - share) + than * (1 - than)) / max(samples, 1))
    return than - share > max(LEAST, chance)


def _figure(parity: Parity | None, name: str) -> float | None:
    value: float | None = getattr(parity, name) if parity is not None else None
    return value if value is not None and math.isfinite(value) else None
