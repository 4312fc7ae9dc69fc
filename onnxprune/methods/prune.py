"""Remove channels: analyse, score, allocate, rewrite.

With data, what stays is refitted to give what the original gave (`compensate`); without, to made-up inputs if asked.
Exact, before that, for groups marked exact: the pruned network computes what the original computes with the parameters
of the removed channels set to zero. Where an operator normalises over the pruned axis the mean and the norm are taken
over what stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.allocate.measures import Shaped
from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import DataError, ModelError, NothingToPruneError, UsageError
from onnxprune.graph.count import WEIGHT_BITS
from onnxprune.graph.drop import Shortened, shorten
from onnxprune.graph.model import Model, Source, load
from onnxprune.graph.substitute import Substitute
from onnxprune.methods.branch_choice import BranchChoice
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.choice import Clock, choose
from onnxprune.methods.compensate_options import require_data
from onnxprune.methods.depth import border_left, data_left, notes_of, plan_of, sizes_left, whole_of
from onnxprune.methods.latency_target import TOLERANCE, time_both
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.refit_parts import refit
from onnxprune.methods.resize import loose_border, shape_notes, with_shapes
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import look
from onnxprune.methods.short_trial import Thin, trial_of
from onnxprune.methods.substitutes import choose_substitutes, goal_left
from onnxprune.methods.synthetic import WEAKER
from onnxprune.methods.synthetic import synthetic as make_up
from onnxprune.methods.unfitted import Unfitted, unfitted
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.data import Data
from onnxprune.statistics.suspicion import suspicions
from onnxprune.statistics.turning import turned_if_few

LARGEST_BYTES = 512 << 20
"""Larger models are not refitted to made-up inputs unless that is asked for: it may take hours."""
TOO_LARGE = (
    "not refitted: there are no data, and the model is large; give --data, or --compensate lstsq for made-up inputs"
)


@on_one_thread
def prune(
    source: Source,
    options: PruneOptions | None = None,
    data: DataSource | None = None,
    *,
    synthetic: bool = False,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> PruneResult:
    """Remove the channels that matter least.

    Args:
        source: path, bytes, ModelProto, onnx-graphsurgeon Graph or Model; it is not changed.
        options: how much, where, by which score; 40 % of every group by l2 if None.
        data: inputs of the kind that the model is used on, without labels.
        synthetic: without data, choose and refit on made-up inputs where that can be done. False: only if
            `options.compensate` asks for a refit.
        runtime: how models are run on the data.
        progress: told what is being done.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read, or has no weights.
        NothingToPruneError: nothing can be removed as asked, or a target cannot be reached.
        UsageError: an option does not fit the model.
    """
    options = options or PruneOptions()
    require_data(options.effort, data)
    clock, runtime = Clock(), replace(runtime or Runtime(), memory=options.memory)
    with clock.stage("load"):
        model = load(source)
        given = calibration(model, data) if data is not None else None
        samples = turned_if_few(given) if given is not None else None
    tries, notes = _with_branches(model, options, samples, runtime, clock, progress)
    for last in tries[:-1]:
        try:
            return _pruned(model, last, given, samples, synthetic, runtime, clock, progress, notes)
        except NothingToPruneError:
            notes = [*notes, f"widths did not reach the target with {len(last.drop)} branches dropped; one more went"]
    return _pruned(model, tries[-1], given, samples, synthetic, runtime, clock, progress, notes)


def _pruned(
    model: Model,
    options: PruneOptions,
    given: Data | None,
    samples: Data | None,
    synthetic: bool,
    runtime: Runtime,
    clock: Clock,
    progress: Callable[[str], None],
    chosen: list[str],
) -> PruneResult:
    """Return the model without the branches that are named, and without channels."""
    with clock.stage("analyse"):
        short = shorten(model, options.drop, options.input_shapes)
        whole, model = model, short.model if short is not None else model
        if short is not None and short.inputs and options.latency is not None:
            raise UsageError("latency is measured on the original's inputs, which change here; give macs instead.")
        border = loose_border(model, options.resize_io, options.states)
        shapes = sizes_left(short, options.input_shapes)
        sizes = given.sizes if given is not None else None
        channels = analyse(model, shapes, options.heads, options.head_dim, border, sizes)
        require_weights(channels)
        doubts = suspicions(whole, given, runtime.threads, runtime.provider) if given is not None else []
    work = _Pruning(channels, options, clock, runtime, progress, short)
    asked = options.compensate not in (None, "none")
    wished = synthetic and options.compensate is None
    if samples is not None or not work.removes or not (asked or wished):
        return work.run(samples, (*doubts, *chosen))
    if not asked and whole.size_bytes > LARGEST_BYTES:
        return work.run(None, (TOO_LARGE,))
    try:
        with clock.stage("inputs"):
            made_up = make_up(work.whole, options.input_shapes, options.seed, runtime)
        return work.run(made_up)
    except (DataError, ModelError) as error:
        if asked:
            raise
        return work.run(None, (f"not refitted: {error}",))


def _with_branches(
    model: Model,
    options: PruneOptions,
    samples: Data | None,
    runtime: Runtime,
    clock: Clock,
    progress: Callable[[str], None],
) -> tuple[list[PruneOptions], list[str]]:
    """Return the options with the branches that go, the best choice first, and what is to be said of it."""
    if not options.depth:
        return [options], []
    if samples is None:
        raise UsageError("depth measures what branches are worth on inputs of the model: give --data.")
    with clock.stage("branches"), np.errstate(over="ignore", invalid="ignore"):
        choices, notes = BranchChoice(model, options, samples, runtime, progress).run()
    return [replace(options, drop=(*options.drop, *names), depth=None) for names in choices], notes


@dataclass(frozen=True)
class _Pruning:
    """One prune of an analysed model."""

    channels: Channels
    options: PruneOptions
    clock: Clock
    runtime: Runtime
    progress: Callable[[str], None]
    short: Shortened | None = None

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
        return options.target is not None or options.level > 0 or any(options.ratios.values())

    def run(self, samples: Data | None, warnings: tuple[str, ...] = ()) -> PruneResult:
        """Choose, rewrite, refit and, where that is the target, time."""
        channels, options, clock, runtime = self.channels, self.options, self.clock, self.runtime
        real = samples is not None and not samples.synthetic
        looks = samples is not None and (real or (options.score is None and options.scope != "sensitivity"))
        left = data_left(self.short, samples)
        seen = look(channels.view, left, runtime) if left is not None else None
        activity = seen.activity(runtime) if seen is not None and looks else None
        fits = seen is not None and real and options.compensate != "none" and self.thins
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

        substitutes = self._substitutes(samples, thin if options.target is not None else None)
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
                raise NothingToPruneError(f"{error} {alone.note}".strip()) from error
        activity = None  # its Gram matrices have been used
        with clock.stage("rewrite"):
            plan = plan_of(self.short, channels, keep)
            plan = replace(plan, resize_io=[*options.resize_io], states=[*options.states])
            border = border_left(self.short, channels, keep)
            cut = with_shapes(rewrite(channels, keep), channels, border)
        notes = [
            *warnings,
            *([alone.note] if alone.note else []),
            *unfit.cut(keep),
            *notes,
            *([WEAKER] if samples is not None and samples.synthetic else []),
        ]
        notes += [*shape_notes(channels, border), *notes_of(self.short)]
        result = PruneResult(
            cut,
            plan,
            channels,
            keep,
            reasons,
            tuple(notes),
            clock.seconds,
            cut,
            border=border,
            short=self.short,
            substitutes=substitutes,
            curves_seconds=clock.curves,
        )
        with clock.stage("compensate"), np.errstate(over="ignore", invalid="ignore"):
            self.progress("refitting what stays")
            # gradient steps towards what the original gives on noise are not what was measured to help
            mode = options.compensate or ("lstsq" if samples is not None and samples.synthetic else None)
            seen = seen if self.short is None else None  # targets are what the whole model gives
            effort = options.wanted_effort
            result = refit(result, samples, mode, runtime, options.steps, seen, self.progress, effort)
            result = replace(result, warnings=(*result.warnings, *refit_notes(result)), samples=samples)
        if options.latency is None or not result.removes:
            return result
        return self._timed(result, samples if real else None)

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
        goal, original, runtime = self.options.latency or 1.0, self.whole.view.model, self.runtime
        with self.clock.stage("measure"):
            self.progress("measuring the result")
            timed = time_both(original, result.model, goal, samples, runtime)
            if abs(timed.share - goal) > TOLERANCE:
                timed = time_both(original, result.model, goal, samples, runtime, effort=3)
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


def require_weights(channels: Channels) -> None:
    parameters = channels.view.parameters.values()
    if not any(parameter.data_type in WEIGHT_BITS and len(parameter.dims) for parameter in parameters):
        raise ModelError("the model has no weights, so there is nothing to prune; give a model with its parameters.")
