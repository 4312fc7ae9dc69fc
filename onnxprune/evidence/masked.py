"""Masked parity: a pruned model must do what the original does with the removed slices zeroed, up to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxprune.errors import ModelError
from onnxprune.evidence.compare import Reference
from onnxprune.evidence.disturb import disturbed
from onnxprune.evidence.held import CannotHoldError, Kept, Pieces, narrowed
from onnxprune.evidence.jumps import Steps, find_squashed, find_steps
from onnxprune.evidence.parity import Meters
from onnxprune.graph.model import Model, load
from onnxprune.graph.session import Feeds, Session, open_session
from onnxprune.graph.view import View

TOLERANCE = 2e-5
"""Relative error that is always allowed: what sums in another order do in float32 (they read 1e-7 to 1e-6)."""

CEILING = 1e-2
"""What is allowed at most: nothing that is measured on the models themselves may raise it above."""

NOISE_FACTOR = 30.0
"""A model that differs from itself under a disturbance of rounding size is allowed this many times that difference."""

SUSPICIOUS = 1e-9
"""An error below it may mean that nothing was looked at."""

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
    blind: nothing that was compared depends on the weights, so nothing is judged.
    """

    errors: dict[str, float]
    tolerance: float
    failed: tuple[str, ...]
    unsure: tuple[str, ...]
    inner: tuple[str, ...] = ()
    blind: bool = False

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why what is not judged is not, as phrases."""
        if self.blind:
            return ("any output (on these inputs none depends on the weights)",)
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
    run = _Run(reference, masked, pruned, threads, provider)
    found = run.by_pieces(steps) if steps.held else None
    found = found or run.whole()
    if not found.failed and found.worst < SUSPICIOUS:
        found = run.by_pieces(steps, find_squashed(view), found) or found
    if reference.repeatable:
        return found
    return replace(found, failed=(), unsure=(*found.failed, *found.unsure))


@dataclass(frozen=True, eq=False)
class _Run:
    """The models to compare, and how they are run."""

    reference: Reference
    masked: Model
    pruned: Model | Path
    threads: int
    provider: str | None

    @property
    def samples(self) -> tuple[Feeds, ...]:
        return self.reference.samples[:SAMPLES]

    @property
    def kept(self) -> Kept:
        """What the masked original tells of its tensors."""
        return self.masked.kept if isinstance(self.masked, MaskedOriginal) else lambda name: None

    def by_pieces(
        self, steps: Steps, seen: tuple[str, ...] = (), before: MaskedParity | None = None
    ) -> MaskedParity | None:
        """Compare at the outputs, at every step and at the tensors `seen`; None where the pieces do not fit.

        Args:
            before: an outcome so good that nothing may have been looked at: where nothing that is compared depends on
                the weights, nothing is judged.
        """
        kept = self.kept
        try:
            after = self.pruned if isinstance(self.pruned, Model) else load(self.pruned)
            with Pieces(self.masked, after, steps, kept, self.threads, self.provider, seen) as pieces:
                meters = Meters(slices=True)
                for feeds in self.samples:
                    pieces.compare(meters, feeds)
                found = _judged(meters.relative_errors(), lambda: self._noise_of(pieces), pieces.inner)
                if before is not None and not found.failed and not pieces.looks(self.samples[0]):
                    return replace(found, unsure=tuple(found.errors), blind=True)
                return found
        except (CannotHoldError, ModelError):
            return None

    def _noise_of(self, pieces: Pieces) -> dict[str, float]:
        meters = Meters(slices=True)
        for feeds in self.samples:
            pieces.add_noise(meters, feeds)
        return meters.relative_errors()

    def whole(self) -> MaskedParity:
        """Compare at the outputs."""
        with (
            self._opened(self.masked, "the masked original") as zeroed,
            self._opened(self.pruned, "the pruned model") as other,
        ):
            meters = Meters(slices=True)
            for feeds in self.samples:
                taken = {port.name: feeds[port.name] for port in other.inputs if port.name in feeds}
                meters.add(narrowed(zeroed.run(feeds), self.kept), other.run(narrowed(taken, self.kept)))
            return _judged(meters.relative_errors(), lambda: self._noise(zeroed), ())

    def _noise(self, zeroed: Session) -> dict[str, float]:
        """Return output -> relative error of the masked original against itself, run literally or with weights moved.

        A masked model may give values so small (a saturated sigmoid) that rounding alone is a large share of them.
        """
        with (
            self._opened(self.masked, "the masked original", "none") as literal,
            self._opened(disturbed(self.masked), "the masked original") as moved,
        ):
            return self._errors(zeroed, literal, moved)

    def _errors(self, zeroed: Session, *others: Session) -> dict[str, float]:
        """Return output -> the largest relative error of the other models over the samples."""
        meters = Meters(slices=True)
        for feeds in self.samples:
            expected = zeroed.run(feeds)
            for other in others:
                meters.add(expected, other.run(feeds))
        return meters.relative_errors()

    def _opened(self, model: Model | Path, label: str, level: str = "all") -> Session:
        return open_session(model, threads=self.threads, provider=self.provider, label=label, level=level)


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
        holds_no_number = math.isnan(error) or math.isnan(explained)
        (unsure if error <= explained or holds_no_number else failed).append(name)
    return MaskedParity(errors, tolerance, tuple(failed), tuple(unsure), inner)
