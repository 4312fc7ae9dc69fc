"""What a freshly pruned file must show before it gets its name: it runs, at two batch sizes, and as it should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.errors import DataError, GateError, ModelError, OnnxpruneError
from onnxprune.evidence.compare import Comparison, Reference, compare
from onnxprune.evidence.masked import MaskedParity, masked_parity
from onnxprune.graph.session import Session, open_session

if TYPE_CHECKING:
    from onnxprune.graph.model import Model
    from onnxprune.graph.view import View

LARGE_BYTES = 1_000_000_000
"""Models above this size are not compared unless asked for: onnxruntime would hold two of them in memory."""

QUICK_SECONDS = 2.0
"""Masked parity is the default for models that run in less."""

NOT_RUN = "The original was not seen to run, so nothing was written; --no-verify writes the result all the same."

REPORT_IT = "nothing was written. This is a defect of onnxprune, please report it; --no-verify writes the model anyway."


@dataclass(frozen=True)
class Evidence:
    """What was found out.

    masked: None where masked parity was not checked.
    lines: what was checked, in sentences for the user.
    """

    comparison: Comparison | None = None
    masked: MaskedParity | None = None
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def unjudged(self) -> tuple[str, ...]:
        """What masked parity could not judge, as phrases: under a gate, that is not a pass."""
        return _unsure(self.masked) if self.masked is not None else ()


def examine(
    source: Model,
    compressed: Path | Model,
    open_source: Callable[[], Reference],
    close_source: Callable[[], None],
    make_masked: Callable[[], Model] | None,
    *,
    verify: bool | None = None,
    required: bool = False,
    own_data: bool = False,
    threads: int = 0,
    provider: str | None = None,
    uncompensated: Model | None = None,
    left: View | None = None,
) -> Evidence:
    """Run the original and the compressed file and compare them.

    Args:
        open_source: gives the original in a session, with its samples; whoever opened it closes it.
        close_source: lets that session go before the compressed model is opened, where both are large.
        make_masked: makes the original with the removed slices zeroed; None where there is no such thing.
        verify: check masked parity; None leaves it to the size and speed of the model, False runs nothing at all.
        required: a gate needs the outputs, so they are compared whatever `verify` says.
        uncompensated: the compressed model before what stays was refitted, if it was: masked parity is checked on it.
        left: what is left of the original where parts of it went whole; None: all of it.
        own_data: the samples are the user's, so it is an error if they do not fit.

    Raises:
        OnnxpruneError: the compressed model does not run or differs from the masked original: our defect.
        DataError: the data of the user do not fit, the original runs at no sizes that were tried, or its inputs cannot
            be made up.
        ModelError: onnxruntime refuses the original, or does not have its operators.
        GateError: the compressed model gives NaN or infinities where the original gives numbers.
    """
    if verify is False and not required:
        return Evidence(lines=("Not run (--no-verify): only the ONNX checker has seen the result.",))
    try:
        reference = open_source()
    except (ModelError, DataError) as error:
        if own_data and isinstance(error, DataError):
            raise
        raise type(error)(f"{str(error).rstrip('.')}. {NOT_RUN}") from error
    if verify is None and not required and source.size_bytes > LARGE_BYTES:
        close_source()
        return _alone(reference, compressed, threads, provider)
    with _open(compressed, threads, provider) as session:
        comparison = _compare(reference, session)
        _check_numbers(comparison)
        lines = [_ran(reference)]
        if make_masked is None or not (verify or (verify is None and reference.seconds < QUICK_SECONDS)):
            return Evidence(comparison, lines=tuple(lines))
        law = hold_to_law(reference, uncompensated or compressed, left or source, make_masked(), threads, provider)
    if uncompensated is not None and law.masked is not None:
        law = replace(law, lines=(_verdict(law.masked, True),))
    return replace(law, comparison=comparison, lines=(*lines, *law.lines))


def _alone(reference: Reference, compressed: Path | Model, threads: int, provider: str | None) -> Evidence:
    """Run a large model on what the original has been seen to run on, which is not in memory any more."""
    with _open(compressed, threads, provider) as session:
        feed = reference.border.narrowed(reference.samples[0])
        try:
            session.run(session.fit(feed))
        except DataError as error:
            raise OnnxpruneError(f"{str(error).rstrip('.')}; {REPORT_IT}") from error
    ran = _ran(replace(reference, samples=reference.samples[:1], stress=None))
    return Evidence(lines=(f"{ran} Not compared, as it is larger than 1 GB: --verify does that.",))


def hold_to_law(
    reference: Reference,
    pruned: Model | Path,
    source: Model | View,
    masked: Model,
    threads: int = 0,
    provider: str | None = None,
) -> Evidence:
    """Return the evidence that a model does what `source` does with what was removed zeroed.

    Args:
        reference: gives the samples, as `source` takes them.

    Raises:
        OnnxpruneError: it does not: our defect.
    """
    outcome = _masked(reference, pruned, source, masked, threads, provider)
    return Evidence(masked=outcome, lines=(_verdict(outcome, False),), warnings=_unsure(outcome))


def _open(path: Path | Model, threads: int, provider: str | None) -> Session:
    try:
        return open_session(path, threads=threads, provider=provider, label="the pruned model")
    except ModelError as error:
        raise OnnxpruneError(f"{str(error).rstrip('.')}; {REPORT_IT}") from error


def _compare(reference: Reference, session: Session) -> Comparison:
    try:
        return compare(reference, session)
    except ModelError as error:
        raise OnnxpruneError(f"{str(error).rstrip('.')}; {REPORT_IT}") from error


def _check_numbers(comparison: Comparison) -> None:
    """Refuse a model that gives NaN or infinities where the original gives numbers."""
    for name, figures in comparison.parity.items():
        if figures is not None and figures.not_finite[1] > figures.not_finite[0]:
            raise GateError(
                f"output '{name}' has NaN or infinite values ({figures.not_finite[1]:.1%}) where the original has "
                "numbers; nothing was written. Keep what overflows in float32, or change less; --no-verify writes it "
                "anyway."
            )


def _masked(
    reference: Reference,
    pruned: Model | Path,
    source: Model | View,
    masked: Model,
    threads: int,
    provider: str | None,
) -> MaskedParity:
    from onnxprune.graph.view import View

    try:
        view = source if isinstance(source, View) else View(source)
        outcome = masked_parity(reference, masked, pruned, view, threads=threads, provider=provider)
    except (ModelError, DataError) as error:
        raise OnnxpruneError(f"{str(error).rstrip('.')}; {REPORT_IT}") from error
    if outcome.failed:
        name = max(outcome.failed, key=lambda output: outcome.errors[output])
        what = (
            f"'{name}', which enters a sort, a rounding or a comparison,"
            if name in outcome.inner
            else f"output '{name}'"
        )
        raise OnnxpruneError(
            f"{what} differs from the original with the removed channels zeroed by {outcome.errors[name]:.1e} "
            f"of its largest value (allowed {outcome.tolerance:.1e}); {REPORT_IT}"
        )
    return outcome


def _ran(reference: Reference) -> str:
    feeds = [*reference.samples, *([reference.stress] if reference.stress is not None else [])]
    sizes = dict.fromkeys(str(list(next(iter(feed.values())).shape)) for feed in feeds if feed)
    return f"It runs in onnxruntime, at {' and '.join(list(sizes)[:3])}." if sizes else "It runs in onnxruntime."


def _verdict(masked: MaskedParity, before_refit: bool) -> str:
    error = f"{masked.worst:.1e}" if masked.worst else "0"
    when = ", before what stays was refitted" if before_refit else ""
    if masked.unsure:
        return f"Masked parity{when}: not judged for {', '.join(masked.doubts)}."
    where = (
        f", also at {len(masked.inner)} tensors that enter a sort, a rounding or a comparison" if masked.inner else ""
    )
    return (
        f"Masked parity{when}: it does what the original does with the removed channels zeroed "
        f"(relative error {error}, allowed {masked.tolerance:.1e}{where})."
    )


def _unsure(masked: MaskedParity) -> tuple[str, ...]:
    return (f"masked parity is not judged for {', '.join(masked.doubts)}",) if masked.unsure else ()
