"""Original against compressed model: outputs side by side, judged against the noise that the original has itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import DataError, ModelError
from onnxprune.evidence.border import Border
from onnxprune.evidence.decisions import Decision, Decisions
from onnxprune.evidence.kinds import Kind, output_kinds
from onnxprune.evidence.lists import before_sorts, compare_before_sorts
from onnxprune.evidence.parity import SQNR_LIMIT_DB, Meters, Parity, Variety
from onnxprune.evidence.verdict import Samples, Verdict, judge
from onnxprune.graph.session import Feeds, Session, open_session
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.graph.model import Model
    from onnxprune.graph.trace import Shape, Trace
    from onnxprune.graph.view import View

RANDOM_SAMPLES = 3
"""Random samples that are drawn when no number is given: they show a defect, they do not measure accuracy."""

MOST_DRAWN, DRAWN_BYTES = 4096, 1 << 30
"""More random feeds than this say nothing more, whatever number is asked for."""


@dataclass(frozen=True)
class Comparison:
    """Figures of one comparison.

    parity: output -> figures, None where the shapes of the two sides differ.
    inputs: where the samples came from, in words for the user.
    made_up: they are random.
    noise: figures of the original against itself, where they were measured.
    changed: samples whose top-1 class is another, the most confident first; changed_counts: output -> how many.
    """

    parity: dict[str, Parity | None]
    samples: int
    inputs: str
    warnings: tuple[str, ...] = ()
    made_up: bool = False
    noise: Mapping[str, Parity | None] = field(default_factory=dict)
    changed: tuple[Decision, ...] = ()
    changed_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """What is thought of the second model, to which nothing was fitted here."""
        return self.judged()

    def judged(self, failures: Sequence[str] = ()) -> Verdict:
        """Return the verdict, with limits that were not kept."""
        samples = Samples("made-up" if self.made_up else "all", self.samples)
        return judge(self.parity, samples, command="validate", noise=self.noise, failures=failures)


@dataclass(frozen=True)
class Reference:
    """The original model ready to be compared with: its session, the feeds, and how long one of them takes.

    samples: feeds, of one or several samples each; `count` is the number of samples in all.
    kinds: what the outputs are, see `onnxprune.evidence.kinds`.
    made_up: the samples are random.
    before_sorts: output that is a sorted list -> tensors that enter the sort, at which it is compared.
    stress: feeds at a second batch size, only to see that a model runs there; None where the samples have two sizes
        already or none is dynamic.
    border: how inputs and outputs of the compressed model follow from the original's, where they changed.
    """

    session: Session
    source: Path | Model
    samples: tuple[Feeds, ...]
    count: int
    inputs: str
    stress: Feeds | None
    seconds: float
    repeatable: bool
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    made_up: bool = False
    before_sorts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    border: Border = field(default_factory=Border)


def open_reference(
    model: Model,
    *,
    file: Path | None = None,
    traced: tuple[View, Trace] | None = None,
    data: Iterable[Feeds] | None = None,
    data_name: str = "the given inputs",
    data_count: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Shape] | None = None,
    threads: int = 0,
    provider: str | None = None,
    border: Border | None = None,
) -> Reference:
    """Return the original with samples that it has been seen to run.

    Args:
        traced: the model as it was read and traced already.
        file: where the model stands unchanged, if it does: onnxruntime then reads it by itself.
        data: feeds of the user, all of which are used; None draws random ones.
        data_name: how reports name them.
        data_count: how many samples they are, where a feed is a batch of several.
        samples: how many random feeds are drawn.
        border: see `Reference`.

    Raises:
        ModelError: onnxruntime refuses the model.
        DataError: the data do not fit, or no random inputs were found that run.
    """
    opened = file or model
    session = open_session(opened, threads=threads, provider=provider)
    view, sizes = traced or _trace(model, input_shapes)
    drawn, stress = _random_samples(view, sizes, session, drawn_of(samples, data is None), seed, data is None)
    feeds: tuple[Feeds, ...] = drawn
    inputs = f"{len(drawn)} random inputs (seed {seed})"
    if data is not None:
        feeds = tuple(session.fit(sample) for sample in data)
        inputs = data_name
        if not feeds:
            raise DataError("the data have no samples.")
    first = session.run(feeds[0])
    start = time.perf_counter()
    second = session.run(feeds[0])
    seconds = time.perf_counter() - start
    count = data_count or len(feeds)
    kinds, same = output_kinds(view, sizes), _equal(first, second)
    made_up, lists, border = data is None, before_sorts(view), border or Border()
    lists = lists if border.is_open else {}
    return Reference(session, opened, feeds, count, inputs, stress, seconds, same, kinds, made_up, lists, border)


def compare(reference: Reference, compressed: Session) -> Comparison:
    """Run both models on every sample and return how close the outputs are.

    Raises:
        ModelError: the compressed model lacks an output or an input, or does not run where the original does.
    """
    border = reference.border
    _check_ports(reference.session, compressed, border)
    meters = Meters(reference.kinds)
    variety, decisions = Variety(), Decisions(reference.kinds)
    for feeds in reference.samples:
        outputs = border.restricted(reference.session.run(border.assumed(feeds)))
        variety.add(outputs)
        others = border.compared(_run(compressed, border.narrowed(feeds)))
        meters.add(outputs, others)
        decisions.add(feeds, outputs, others)
    if reference.stress is not None:
        _run(compressed, border.narrowed(reference.stress))
    results = meters.results()
    lists = compare_before_sorts(reference.before_sorts, reference.session, compressed, reference.samples, results)
    results |= lists
    warnings = [
        f"output '{name}': its shape is {list(other)} instead of {list(original)} on some inputs; it is not compared"
        for name, (original, other) in meters.shapes().items()
        if name not in lists
    ]
    warnings += [
        f"output '{name}' is empty on these inputs (nothing found in them?), so it says nothing; give --data"
        for name in meters.empty()
    ]
    warnings += [
        f"output '{name}' is a sorted list that could be compared only place by place: the order may differ"
        for name in reference.before_sorts
        if name not in lists and (figures := results.get(name)) is not None and figures.sqnr_db < SQNR_LIMIT_DB
    ]
    warnings += [
        f"output '{name}' holds NaN or infinite values ({figures.not_finite[0]:.1%} in the original, "
        f"{figures.not_finite[1]:.1%} in the other model): nothing is right there"
        for name, figures in results.items()
        if figures is not None and not figures.is_finite
    ]
    if variety.is_missing:
        warnings.append(
            "the original gives the same outputs for every one of these inputs, so they show little; give --data"
        )
    if not reference.repeatable:
        warnings.append("the original gives different outputs for the same input (random operators?): figures vary")
    deciding = {name for name, figures in results.items() if figures is not None and figures.agreement is not None}
    return Comparison(
        results,
        reference.count,
        reference.inputs,
        tuple(warnings),
        reference.made_up,
        changed=decisions.results(deciding),
        changed_counts={name: number for name, number in decisions.counts.items() if name in deciding},
    )


def self_noise(reference: Reference, *, threads: int = 0, provider: str | None = None) -> Meters:
    """Compare the original with itself run without graph optimisation, on the first sample."""
    meters = Meters()
    with open_session(reference.source, threads=threads, provider=provider, level="none") as literal:
        meters.add(reference.session.run(reference.samples[0]), literal.run(reference.samples[0]))
    return meters


def _trace(model: Model, input_shapes: Mapping[str, Shape] | None) -> tuple[View, Trace]:
    from onnxprune.graph.trace import trace
    from onnxprune.graph.view import View

    view = View(model)
    return view, trace(view, dict(input_shapes or {}))


def drawn_of(samples: int | None, only: bool) -> int:
    """Return how many random feeds to draw; a few where there are data besides."""
    return min(samples or RANDOM_SAMPLES, MOST_DRAWN) if only else RANDOM_SAMPLES


def _random_samples(
    view: View, sizes: Trace, session: Session, count: int, seed: int, wanted: bool
) -> tuple[tuple[Feeds, ...], Feeds | None]:
    from onnxprune.evidence.inputs import random_inputs

    try:
        source = random_inputs(view, sizes, session, seed=seed)
    except DataError:
        if wanted:
            raise
        return (), None
    tables = len(source.tables)
    size = sum(array.nbytes for array in source.sample(0).values())
    count = max(1, min(count, DRAWN_BYTES // max(size, 1)))
    samples = tuple(source.sample(number, number % tables) for number in range(count))
    seen = wanted and count > 1
    return samples, source.sample(count, 1) if tables > 1 and not seen else None


def _run(session: Session, feeds: Feeds) -> dict[str, Array]:
    try:
        return session.run(session.fit(feeds))  # a compressed model may take another type
    except DataError as error:
        raise ModelError(f"the compressed model does not run where the original does: {error}") from error


def _check_ports(original: Session, compressed: Session, border: Border) -> None:
    inputs = {port.name for port in original.inputs} - border.gone
    outputs = {port.name for port in original.outputs}
    for kind, before, after in (
        ("input", inputs, compressed.inputs),
        ("output", outputs if border.outputs is None else outputs & border.outputs, compressed.outputs),
    ):
        missing = before ^ {port.name for port in after}
        if missing:
            raise ModelError(
                f"{original.label} and {compressed.label} differ in the {kind} '{min(missing)}'; "
                "compare models with the same inputs and outputs."
            )


def _equal(one: Mapping[str, Array], two: Mapping[str, Array]) -> bool:
    return all(
        one[name].shape == two[name].shape
        and np.array_equal(one[name], two[name], equal_nan=one[name].dtype.kind == "f")
        for name in one
    )
