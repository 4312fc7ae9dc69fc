"""Masked parity: a pruned model must do what the original does with the removed slices zeroed, up to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from onnxprune.errors import ModelError
from onnxprune.graph.model import Model, load
from onnxprune.graph.view import View
from onnxprune.validate.compare import Reference
from onnxprune.validate.disturb import disturbed
from onnxprune.validate.held import CannotHoldError, Kept, Pieces
from onnxprune.validate.parity import Meters
from onnxprune.validate.session import Session, open_session
from onnxprune.validate.steps import Steps, find_steps

TOLERANCE = 2e-5
"""Relative error that is always allowed: what sums in another order do in float32 (they read 1e-7 to 1e-6)."""

CEILING = 1e-2
"""What is allowed at most: nothing that is measured on the models themselves may raise it above."""

NOISE_FACTOR = 30.0
"""A model that differs from itself under a disturbance of rounding size is allowed this many times that difference."""

SAMPLES = 5


@dataclass(frozen=True)
class MaskedParity:
    """Outcome of the comparison with the masked original.

    errors: output, or tensor that a step reads -> relative error: the largest difference over the largest value, of
        the whole and, a tenth of it, of every slice that is not small, so that scores beside large boxes count.
    tolerance: the largest that was allowed.
    failed: what differs by more than rounding explains.
    unsure: what differs by more than is allowed, while a disturbance of rounding size does as much, and what holds no
        number in the masked original: not judged.
    inner: tensors among the errors that enter a sort, a rounding or a comparison; they were compared there, and behind
        it both models went on with the same values.
    """

    errors: dict[str, float]
    tolerance: float
    failed: tuple[str, ...]
    unsure: tuple[str, ...]
    inner: tuple[str, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why what is not judged is not, as phrases."""
        return tuple(
            f"'{name}' ({'it holds no number' if math.isnan(self.errors[name]) else 'rounding alone does as much'})"
            for name in self.unsure
        )

    @property
    def worst(self) -> float:
        """The largest error of what is judged."""
        return max((error for name, error in self.errors.items() if name not in self.unsure), default=0.0)


@dataclass(frozen=True, eq=False)
class MaskedOriginal(Model):
    """The original with the removed slices zeroed.

    kept: tells for its tensors which positions the pruned model keeps.
    """

    kept: Kept = field(default=lambda name: None)


def masked_parity(
    reference: Reference,
    masked: Model,
    pruned: Model | Path,
    view: View,
    *,
    threads: int = 0,
    provider: str | None = None,
) -> MaskedParity:
    """Compare the pruned model with the masked original on the samples of the reference.

    Args:
        view: the original.

    Raises:
        ModelError: a model does not load.
        DataError: a model does not run.
    """
    steps = find_steps(view)
    if steps.held:
        try:
            return _by_pieces(reference, masked, _loaded(pruned), steps, threads, provider)
        except CannotHoldError:
            pass
    with ExitStack() as stack:
        zeroed, other = (
            stack.enter_context(open_session(model, threads=threads, provider=provider, label=label))
            for model, label in ((masked, "the masked original"), (pruned, "the pruned model"))
        )
        errors = _errors(reference, zeroed, other)

        def noise() -> dict[str, float]:
            return _noise(reference, masked, zeroed, threads, provider)

        found = _judged(errors, noise, ())
    if not reference.repeatable:
        above = tuple(name for name in (*found.failed, *found.unsure))
        return MaskedParity(found.errors, found.tolerance, (), above)
    return found


def _loaded(model: Model | Path) -> Model:
    try:
        return model if isinstance(model, Model) else load(model)
    except ModelError as error:
        raise CannotHoldError(str(error)) from error


def _by_pieces(
    reference: Reference, masked: Model, pruned: Model, steps: Steps, threads: int, provider: str | None
) -> MaskedParity:
    kept = masked.kept if isinstance(masked, MaskedOriginal) else lambda name: None
    with Pieces(masked, pruned, steps, kept, threads, provider) as pieces:
        meters = Meters(slices=True)
        for feeds in reference.samples[:SAMPLES]:
            pieces.compare(meters, feeds)

        def noise() -> dict[str, float]:
            found = Meters(slices=True)
            for feeds in reference.samples[:SAMPLES]:
                pieces.add_noise(found, feeds)
            return found.relative_errors()

        return _judged(meters.relative_errors(), noise, pieces.inner)


def _errors(reference: Reference, zeroed: Session, *others: Session) -> dict[str, float]:
    """Return output -> the largest relative error of the other models over the samples."""
    meters = Meters(slices=True)
    for feeds in reference.samples[:SAMPLES]:
        expected = zeroed.run(feeds)
        for other in others:
            meters.add(expected, other.run(feeds))
    return meters.relative_errors()


def _noise(
    reference: Reference, masked: Model, zeroed: Session, threads: int, provider: str | None
) -> dict[str, float]:
    """Return output -> relative error of the masked original against itself, run literally or disturbed.

    A masked model may give values so small (a saturated sigmoid) that rounding alone is a large share of them.
    """
    with (
        open_session(masked, threads=threads, provider=provider, level="none") as literal,
        open_session(disturbed(masked), threads=threads, provider=provider) as moved,
    ):
        return _errors(reference, zeroed, literal, moved)


def _judged(
    errors: dict[str, float], measure_noise: Callable[[], dict[str, float]], inner: tuple[str, ...]
) -> MaskedParity:
    """Judge output by output: within the tolerance, beyond what rounding does, or neither."""
    noise = measure_noise() if any(not error <= TOLERANCE for error in errors.values()) else {}
    failed: list[str] = []
    unsure: list[str] = []
    tolerance = TOLERANCE
    for name, error in errors.items():
        explained = NOISE_FACTOR * noise.get(name, 0.0)
        allowed = min(max(TOLERANCE, explained), CEILING)
        tolerance = max(tolerance, allowed)
        if error <= allowed:
            continue
        (unsure if error <= explained or math.isnan(error) else failed).append(name)
    return MaskedParity(errors, tolerance, tuple(failed), tuple(unsure), inner)
