"""One prune of an analysed model: first what goes is chosen, then it is removed and what stays refitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.allocate.measures import Shaped
from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.compensate.effort import Effort
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.drop import Shortened
from onnxprune.graph.model import Model
from onnxprune.graph.substitute import Substitute
from onnxprune.methods.choice import Clock, choose
from onnxprune.methods.closed_refit import closed_refit
from onnxprune.methods.depth import border_left, data_left, notes_of, plan_of, whole_of
from onnxprune.methods.gather import KnownSums
from onnxprune.methods.latency_target import TOLERANCE, time_both
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.refit_parts import refit
from onnxprune.methods.resize import shape_notes, with_shapes
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import Seen, look
from onnxprune.methods.short_trial import Thin, trial_of
from onnxprune.methods.substitutes import choose_substitutes, goal_left
from onnxprune.methods.synthetic import said_of
from onnxprune.methods.unfitted import Unfitted, unfitted
from onnxprune.methods.width_rule import Rounding, for_integers, rounding
from onnxprune.statistics.data import Data


@dataclass(frozen=True, eq=False)
class Chosen:
    """What goes: the masks of channels, what takes the place of branches, and what is to be said of it.

    reasons: group name -> why it was left alone. seen: the model as the samples see it, None without samples.
    rounding: which widths groups may keep.
    """

    keep: Keep
    reasons: dict[str, str]
    notes: tuple[str, ...]
    substitutes: tuple[Substitute, ...] = ()
    seen: Seen | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Pruning:
    """One prune of an analysed model. aside: samples that nothing is fitted to, for steps to be judged on."""

    channels: Channels
    options: PruneOptions
    clock: Clock
    runtime: Runtime
    progress: Callable[[str], None]
    short: Shortened | None = None
    aside: Data | None = None

    @property
    def whole(self) -> Shaped:
        """The model with all its branches."""
        return whole_of(self.short) or self.channels

    @property
    def removes(self) -> bool:
        """Whether anything is to be removed."""
        return self.short is not None or self.thins

    @property
    def thins(self) -> bool:
        """Whether channels are to be removed."""
        options = self.options
        return options.budget is not None or options.level > 0 or any(options.ratios.values())

    def run(self, samples: Data | None, warnings: tuple[str, ...] = ()) -> PruneResult:
        """Choose, rewrite, refit and, where that is the target, time."""
        return self.finish(self.choose(samples), samples, warnings)

    def choose(self, samples: Data | None) -> Chosen:
        """Return what goes.

        Raises:
            NothingToPruneError: nothing can be removed as asked, or a target cannot be reached.
        """
        channels, options, clock, runtime = self.channels, self.options, self.clock, self.runtime
        real = samples is not None and not samples.synthetic
        looks = samples is not None and (real or (options.score is None and options.scope != "sensitivity"))
        left = data_left(self.short, samples)
        seen = look(channels.view, left, runtime) if left is not None else None
        known = self._known
        if known is not None and seen is None:
            seen = known.seen(channels.view)
        activity = seen.activity(runtime) if seen is not None and (looks or known is not None) else None
        if known is not None and activity is not None and seen is not None:
            activity = known.tell(activity, seen)
        fits = seen is not None and (real or known is not None) and options.compensate != "none" and self.thins
        unfit = unfitted(channels, seen) if seen is not None and fits else Unfitted()
        alone = Unfitted() if options.cut_unfitted else unfit
        # errors of groups on made-up inputs are no ground to spend a budget on
        wanted = options if real or options.scope else replace(options, scope="uniform")

        def thin(substitutes: tuple[Substitute, ...]) -> Keep:
            left, quiet = goal_left(wanted, self.short, substitutes), lambda text: None
            whole = whole_of(self.short)
            return choose(channels, left, Clock(), activity, runtime, quiet, alone.reasons, whole, quick=True)[0]

        def met(substitutes: tuple[Substitute, ...]) -> tuple[Keep, dict[str, str], list[str]]:
            left, whole = goal_left(wanted, self.short, substitutes), whole_of(self.short)
            return choose(channels, left, clock, activity, runtime, self.progress, alone.reasons, whole)

        substitutes = self._substitutes(samples, thin if options.budget is not None else None)
        self.progress("choosing channels")
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                try:
                    keep, reasons, notes = met(substitutes)
                except NothingToPruneError:  # no widths, as measured, leave room for substitutes
                    if not substitutes:
                        raise
                    substitutes = ()
                    keep, reasons, notes = met(substitutes)
            except NothingToPruneError as error:
                if for_integers(options):
                    return self._as_for_floats(samples, error)
                raise NothingToPruneError(f"{error} {alone.note}".strip()) from error
        said = [*([alone.note] if alone.note else []), *unfit.cut(keep), *notes]
        rounded = rounding(options, channels.view, latency=options.latency is not None)
        return Chosen(keep, reasons, tuple(said), substitutes, seen, rounded)

    def _as_for_floats(self, samples: Data | None, error: NothingToPruneError) -> Chosen:
        """Return what goes where no width that integer kernels want could be kept."""
        chosen = replace(self, options=replace(self.options, precision=None)).choose(samples)
        note = f"widths are those of float kernels, as no others could be kept: {error}"
        return replace(chosen, notes=(note, *chosen.notes))

    def finish(self, chosen: Chosen, samples: Data | None, warnings: tuple[str, ...] = ()) -> PruneResult:
        """Return the result of what was chosen, refitted and, where that is the target, timed."""
        channels, options, clock = self.channels, self.options, self.clock
        result = self._cut(chosen)
        notes = [
            *warnings,
            *chosen.notes,
            *said_of(samples),
            *shape_notes(channels, result.border),
            *notes_of(self.short),
        ]
        result = replace(result, warnings=tuple(notes), seconds=clock.seconds, curves_seconds=clock.curves)
        with clock.stage("compensate"), np.errstate(over="ignore", invalid="ignore"):
            self.progress("refitting what stays")
            seen = chosen.seen if self.short is None else None  # targets are what the whole model gives
            result = self._refitted(result, samples, seen, options.wanted_effort)
            result = replace(result, warnings=(*result.warnings, *refit_notes(result)), samples=samples)
        if options.latency is None or not result.removes:
            return result
        return self._timed(result, samples if samples is not None and not samples.synthetic else None)

    def trial(self, chosen: Chosen, samples: Data) -> Model:
        """Return what was chosen, refitted to some samples with no more steps than the default takes."""
        result, effort = replace(self._cut(chosen), curves_seconds=self.clock.curves), self.options.wanted_effort
        with np.errstate(over="ignore", invalid="ignore"):
            return self._refitted(result, samples, None, None if effort and effort.is_long else effort).model

    def _cut(self, chosen: Chosen) -> PruneResult:
        channels, options, keep = self.channels, self.options, chosen.keep
        with self.clock.stage("rewrite"):
            plan = plan_of(self.short, channels, keep)
            plan = replace(plan, resize_io=[*options.resize_io], states=[*options.states])
            border = border_left(self.short, channels, keep)
            cut = with_shapes(rewrite(channels, keep), channels, border)
        return PruneResult(
            cut,
            plan,
            channels,
            keep,
            chosen.reasons,
            uncompensated=cut,
            border=border,
            short=self.short,
            substitutes=chosen.substitutes,
            rounding=chosen.rounding,
        )

    def _refitted(
        self, result: PruneResult, samples: Data | None, seen: Seen | None, effort: Effort | None
    ) -> PruneResult:
        options, made_up = self.options, samples is not None and samples.synthetic
        if self._known is not None and samples is None and options.compensate in (None, "lstsq"):
            return closed_refit(result, self._known, self.runtime)
        # gradient steps towards what the original gives on noise are not what was measured to help
        mode = options.compensate or ("lstsq" if made_up else None)
        return refit(result, samples, mode, self.runtime, options.steps, seen, self.progress, effort, self.aside)

    @cached_property
    def _known(self) -> KnownSums | None:
        """The statistics that are given.

        Raises:
            UsageError: they are of another model, or not of what branches leave.
        """
        given = self.options.stats
        if given is None:
            return None
        if self.short is not None:
            raise UsageError("statistics are of the whole model, and branches go: give data instead of stats.")
        return KnownSums.of(given, self.channels.view.model)

    def _substitutes(self, samples: Data | None, thin: Thin | None) -> tuple[Substitute, ...]:
        """Return what takes the place of dropped branches."""
        if self.short is None or samples is None or self.options.compensate == "none":
            return ()
        with self.clock.stage("substitutes"), np.errstate(over="ignore", invalid="ignore"):
            self.progress("looking for what takes the place of branches")
            trial, kind = trial_of(self.channels, self.short, self.runtime, thin), self.options.substitute
            return choose_substitutes(self.short, samples, kind, self.runtime, trial, at_target=thin is not None)

    def _timed(self, result: PruneResult, samples: Data | None) -> PruneResult:
        """Return the result with the latency of both models."""
        goal, original, runtime = float(self.options.latency or 1.0), self.whole.view.model, self.runtime
        with self.clock.stage("measure"):
            self.progress("measuring the result")
            timed = time_both(original, result.model, goal, samples, runtime, energy=True)
            if abs(timed.share - goal) > TOLERANCE:
                timed = time_both(original, result.model, goal, samples, runtime, effort=3, energy=True)
        if abs(timed.share - goal) > TOLERANCE:
            note = f"--latency {goal:g}: {timed.share:.2f} was measured at last; the machine may be busy"
            result = replace(result, warnings=(*result.warnings, note))
        return replace(result, latency=timed)


def refit_notes(result: PruneResult) -> list[str]:
    """Say what the refit did less well to stay within the memory bound, and which layers it could not see."""
    layers = result.compensation.layers if result.compensation else []
    notes = Counter(layer.bounded for layer in layers)
    lost = sum(not np.isfinite([layer.before, layer.after]).all() for layer in layers)
    overflow = (
        f"{lost} layer{'s' * (lost > 1)} could not be refitted: activations overflow on these data; "
        "are they scaled as the model expects?"
    )
    return [overflow] * (lost > 0) + [
        f"{count} layer{'s' * (count > 1)} {note}: --memory allows no more; raise it for a better fit"
        for note, count in notes.items()
        if note
    ]
