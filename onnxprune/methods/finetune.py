"""Improve a compressed model by gradient steps towards its original, and towards labels or a loss of the user's.

The loss is the distance of the outputs (before a last Softmax or Sigmoid) and of sums of branches inside, at the
positions that are left, each relative to its variance in the original; labels are not needed. What is zero in a matrix
or convolution stays zero. The best weights on held-out samples are taken, never worse there than those given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from onnxprune.compensate.augment import MANY, bearable, can_mix, read_kinds
from onnxprune.compensate.ctc import ctc_term
from onnxprune.compensate.distil import DistilOptions, helping, loss_weights, variances
from onnxprune.compensate.effort import Effort
from onnxprune.compensate.gradient import OPSET, gradient_graph
from onnxprune.compensate.long_walk import LongWalk, Pace, outlook
from onnxprune.compensate.objective import Asked, HeldOut, Labelled
from onnxprune.compensate.slopes import Slopes
from onnxprune.compensate.snapshot import Snapshot
from onnxprune.compensate.stream import LABELS, Stream, stream_of
from onnxprune.compensate.terms import Term, label_term, own_term
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.graph.model import Model, Source, load
from onnxprune.graph.session import open_session
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.finetune_options import DEFAULT_STEPS, FinetuneOptions
from onnxprune.methods.finetuning.correspond import Pairs, correspondence
from onnxprune.methods.finetuning.labels import Labels, fitted, fitted_sequences, labels_of
from onnxprune.methods.finetuning.plain import Plain, plain_form
from onnxprune.methods.finetuning.written import OnGrids, kept_zeros, written
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.selection import chosen
from onnxprune.methods.step_room import StepRoom, step_room
from onnxprune.processes.crew import at_work
from onnxprune.report import Report
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import Feed
from onnxprune.statistics.split import part, places
from onnxprune.types import Array
from onnxprune.version import __version__

MATCHED_FEEDS = 4
"""Feeds that the correspondence is read off, and variances are taken of."""


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """An improved model and how it came about.

    before, after: loss on held-out samples, relative to variances of the original. best_step: where the best weights
        were found; 0: none were better. steps: that were taken. curve: (steps, loss) of every look.
    compared: tensors of both models. lost: tensors inside that do not correspond. kinds: variations of samples.
    zeros: how many weights were held at zero.
    """

    model: Model
    before: float
    after: float
    best_step: int
    steps: int
    curve: tuple[tuple[int, float], ...] = ()
    compared: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    zeros: int = 0
    criterion: str | None = None
    outlook: str = ""
    warnings: tuple[str, ...] = ()
    report: Report | None = None


@on_one_thread
def finetune(
    original: Source,
    compressed: Source,
    data: DataSource,
    options: FinetuneOptions | None = None,
    *,
    samples: int | None = None,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> FinetuneResult:
    """Improve a compressed model.

    Args:
        original: what it was made from; it says what is right. compressed: the model to improve. Neither is changed.
        data: inputs of the kind that the models are used on.
        samples: how many of the data the user asked for, where labels may be more.
        runtime: how models are run. progress: told step, loss and time left.

    Raises:
        DataError: data or labels do not fit.
        ModelError: there is no gradient of the model.
        UsageError: the models do not correspond, the loss does not fit, or the state is of another run.
    """
    options = options or FinetuneOptions()
    before, after = load(original), load(compressed)
    plain = _plain(after)
    read = calibration(before, data)
    return _Finetuning(before, after, plain, read, options, samples, runtime or Runtime(), progress).run()


@dataclass(eq=False)
class _Finetuning:
    original: Model
    compressed: Model
    plain: Plain
    data: Data
    options: FinetuneOptions
    samples: int | None
    runtime: Runtime
    progress: Callable[[str], None]

    def run(self) -> FinetuneResult:
        options = self.options
        self.progress("looking for what corresponds")
        given = labels_of(options.labels, self.data, self.samples) if options.labels is not None else None
        stream = self._stream(given)
        feeds = stream.held[:MATCHED_FEEDS]
        pairs = correspondence(self.original, self.compressed, feeds)
        labels = self._labels(given, pairs, feeds)
        if labels is not None:
            stream = self._stream(labels.values)
        stream = replace(self._selected(stream), ready=labels.ready if labels is not None else np.asarray)
        slopes, compared = self._slopes(pairs, stream, labels)
        pace, workers = self._pace(), slopes.workers
        many = pace.about(0.0 if pace.seconds is None else _seconds(slopes, stream)) >= MANY
        stream = replace(stream, kinds=self._kinds(stream, pairs, labels, many))
        grids = self.plain.grids
        zeros = kept_zeros(slopes.gradient.weights, grids)
        plain = HeldOut.over(slopes, stream.held)
        distance = OnGrids(slopes, plain.held, grids) if grids else plain
        walk = LongWalk(distance, stream, pace, zeros, self._snapshot(), self.progress, workers)
        found = walk.run()
        model = written(self.compressed, slopes.gradient, found.weights, grids) if found.steps else self.compressed
        if not np.isfinite(found.before):
            raise ModelError("the loss is no number from the start: do the models overflow on these data?")
        told = outlook(found.before, found.curve)
        held = sum(int(np.count_nonzero(zero)) for zero in zeros.values())
        criterion = labels.criterion if labels is not None else None
        return FinetuneResult(
            *(model, found.before, found.after, found.steps, found.taken, found.curve, compared, pairs.lost),
            kinds=tuple(stream.kinds),
            zeros=held,
            criterion=criterion,
            outlook=told,
            warnings=(*self.data.warnings, *found.notes, *([self.room.note] if self.room.note else [])),
        )

    @cached_property
    def room(self) -> StepRoom:
        """How much runs at once."""
        runtime, view = self.runtime, View(self.plain.model)
        traced = trace(view, dict(self.options.input_shapes), self.data.sizes)
        return step_room(view, traced, runtime.memory, runtime.threads, DistilOptions.batch)

    def _stream(self, labels: Array | None) -> Stream:
        return stream_of(self.data, labels, DistilOptions.samples, self.room.size, seed=self.options.seed)

    def _selected(self, stream: Stream) -> Stream:
        """Return the stream of the samples that say most; those that are held out stay what they are."""
        if self.options.select is None:
            return stream
        self.progress("choosing samples")
        keep = chosen(self.original, stream.data, self.options.select, self.runtime)
        labels = None if stream.labels is None else stream.labels[keep]
        runs = max(1, min(stream.runs, int(keep.sum()) // stream.size)) if stream.stacked else stream.runs
        return replace(stream, data=part(stream.data, keep), labels=labels, runs=runs)

    def _pace(self) -> Pace:
        options, effort = self.options, Effort.of(self.options.effort or "default")
        steps = options.steps or DEFAULT_STEPS
        if effort.word == "default":
            return Pace(steps, 1, rate=options.rate, seed=options.seed)
        return Pace(seconds=effort.seconds, rate=options.rate, seed=options.seed)

    def _snapshot(self) -> Snapshot | None:
        options = self.options
        if options.state is None:
            return None
        parts = [part for part in (options.labels, options.loss) if part is not None]
        content = hashlib.sha256(b"".join(_content(part) for part in parts)).hexdigest()
        said = repr(sorted(options.to_dict().items()))
        key = (
            __version__,
            self.original.sha256,
            self.compressed.sha256,
            self.data.sha256,
            content,
            said,
            str(self.room.size),
        )
        return Snapshot(options.state, key)

    def _kinds(self, stream: Stream, pairs: Pairs, labels: Labels | None, many: bool) -> tuple[str, ...]:
        """Return the variations that are asked for, or that the original bears; no places change that labels have."""
        asked = read_kinds(self.options.augment)
        feed = {name: array for name, array in stream.example().items() if name != LABELS}
        mixes = stream.stacked and can_mix(feed) and (labels is None or (labels.can_mix and self.options.loss is None))
        if asked is not None:
            if "mix" in asked and not mixes:
                raise UsageError(
                    "augment mix: samples cannot be mixed: that takes inputs of floating-point numbers with samples "
                    "along axis 0, two of them or more in a run, and labels, if any, of cross-entropy, mse or bce "
                    "without a loss of your own."
                )
            return asked
        if not stream.stacked:
            return ()
        teacher = Asked(self.original, pairs.outputs)
        found = bearable(lambda varied: list(teacher(varied).values()), feed, mixing=mixes and many)
        placed = labels is not None and stream.held[0][LABELS].ndim > 2
        return tuple(kind for kind in found if kind == "mix") if placed else found

    def _labels(self, given: Array | None, pairs: Pairs, feeds: list[Feed]) -> Labels | None:
        """Return labels as the loss reads them: of an output, or, for a loss of the user's alone, as they are."""
        if given is None:
            return None
        own = self.options.loss is not None and self.options.criterion is None
        if own:
            return Labels(given, "as the loss graph says", np.asarray)
        name, end = self._label_output(pairs)
        shape = self._shape(end, feeds[0])
        if self.options.criterion == "ctc":
            steps = shape[0 if self._is_time_first(shape, feeds[0], name) else 1]
            return fitted_sequences(given, shape, steps, self.options.blank, name, places(self.data))
        return fitted(given, shape, self.options.criterion, name, places(self.data))

    def _is_time_first(self, shape: tuple[int, ...], feed: Feed, name: str) -> bool:
        """Tell whether an output is (steps, samples, classes), not (samples, steps, classes)."""
        count = len(next(array for key, array in feed.items() if key != LABELS))
        if len(shape) != 3 or count not in shape[:2]:
            raise DataError(
                f"ctc reads (samples, steps, classes) or (steps, samples, classes); '{name}' has {list(shape)} for "
                f"{count} samples."
            )
        return shape[0] != count

    def _label_output(self, pairs: Pairs) -> tuple[str, str]:
        wanted = self.options.label_output
        names = [wanted] if wanted else list(pairs.ends)
        if len(names) != 1 or names[0] not in pairs.ends:
            raise UsageError(
                f"labels are for one output out of {', '.join(map(repr, pairs.ends))}: name it (label_output)."
            )
        return names[0], pairs.ends[names[0]]

    def _shape(self, name: str, feed: Feed) -> tuple[int, ...]:
        """Return the shape of a tensor of the compressed model for a run."""
        teacher = Asked(self.compressed, {name: lambda array: array})
        return teacher(feed)[name].shape

    def _slopes(self, pairs: Pairs, stream: Stream, labels: Labels | None) -> tuple[Labelled, tuple[str, ...]]:
        cuts = {**pairs.outputs, **pairs.inner}
        teacher, example = Asked(self.original, cuts, self.runtime.provider), stream.example()
        probe = {name: value for name, value in teacher(example).items() if value.dtype == np.float32}
        spread = variances(probe, (teacher(feed) for feed in stream.held[:MATCHED_FEEDS]))
        outputs, inner = ([name for name in names if name in probe] for names in (pairs.outputs, pairs.inner))
        compared = loss_weights(spread, outputs, inner, DistilOptions.inner)
        shapes = {name: probe[name].shape for name in compared}
        inputs = {name: array for name, array in example.items() if name != LABELS}
        terms = self._terms(pairs, labels, example)
        told = helping(outputs, inner)
        gradient = gradient_graph(self.plain.model, compared, shapes, inputs, terms, self.plain.gates, told)
        if not gradient.weights:
            raise ModelError("the compressed model has no floating-point weights of its own that steps could change.")
        plain = Labelled.open(gradient, teacher, self.room.workers, self.runtime.provider)
        crew = at_work()
        slopes = Labelled(plain.session, plain.judge, gradient, teacher, plain.workers, stream.ready, crew=crew)
        return slopes, tuple(compared)

    def _terms(self, pairs: Pairs, labels: Labels | None, example: Feed) -> list[Term]:
        options, terms = self.options, []
        used = labels is not None and (options.loss is None or options.criterion is not None)
        if labels is not None and used:
            _, end = self._label_output(pairs)
            shape = self._shape(end, {name: array for name, array in example.items() if name != LABELS})
            weight = options.label_weight / labels.chance
            if labels.criterion == "ctc":
                turned, longest = self._is_time_first(shape, example, end), labels.values.shape[1]
                terms.append(ctc_term(end, shape, turned, LABELS, longest, weight))
            else:
                terms.append(label_term(labels.criterion, end, shape, LABELS, weight))
        if options.loss is not None:
            ready = labels.ready(example[LABELS]) if labels is not None else None
            version = max(OPSET, _opset(self.compressed.proto))
            term = own_term(_loss_graph(options.loss), list(pairs.ends), ready, LABELS, version)
            terms.append(replace(term, inputs=[] if terms else term.inputs))
        return terms


def _seconds(slopes: Slopes, stream: Stream) -> float:
    """Return the predicted seconds of a step."""
    step, teacher = slopes.seconds(stream.example(), stream.runs)
    return (step + stream.runs * teacher) / min(slopes.workers, stream.runs)


def _plain(model: Model) -> Plain:
    """Return the model as steps work on it; refuse weights that they cannot change."""
    if model.proto.graph.sparse_initializer:
        raise UsageError("the compressed model has sparse_initializer; finetune it stored dense: its zeros stay zero.")
    return plain_form(model)


def _loss_graph(given: Path | onnx.ModelProto) -> onnx.ModelProto:
    try:
        loss = load(given).proto
    except ModelError as error:
        raise UsageError(f"the loss graph: {error}") from error
    try:
        open_session(loss, threads=1)
    except ModelError as error:
        raise UsageError(f"the loss graph: {error}") from error
    return loss


def _opset(proto: onnx.ModelProto) -> int:
    return next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), OPSET)


def _content(part: object) -> bytes:
    if isinstance(part, Path):
        path = Path(str(part).rpartition(":")[0]) if not part.is_file() else part
        try:
            return str(part).encode() + path.read_bytes()
        except OSError as error:
            raise DataError(f"'{part}' cannot be read ({error.strerror or error}).") from error
    if isinstance(part, onnx.ModelProto):
        return bytes(part.SerializeToString(deterministic=True))
    return np.asarray(part).tobytes()
