"""Make single weights zero: by magnitude, or on data with the others changed to make up for it.

Nothing stays exact but shapes, names and what is not chosen. onnxruntime's CPU kernels are not faster for zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from onnxprune.compensate.refit import LayerError, RefitOptions
from onnxprune.compensate.weights import Weights
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.model import Model, Source, load
from onnxprune.graph.tensors import is_external
from onnxprune.graph.view import Parameter, View
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.compensate_options import require_data
from onnxprune.methods.finetune import FinetuneResult
from onnxprune.methods.finetuning.after import improved
from onnxprune.methods.gather import KnownSums
from onnxprune.methods.linear import Linear, chosen_layers, linear_layers, put, twins
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import Seen, look
from onnxprune.methods.sparsify_options import SparsifyOptions
from onnxprune.methods.sparsity.layer_walk import Goal, SparseWalk, mask, solve
from onnxprune.methods.sparsity.shares import SCOPES
from onnxprune.methods.sparsity.storage import stored_sparse
from onnxprune.report import Report
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.collect import Wanted, collect
from onnxprune.types import Array

LEAST_INPUTS = 16
"""Layers with fewer inputs for each output (depthwise, first) stay dense: each of their few weights counts."""
MOST_INPUTS = 6144
"""Second moments of wider layers take too much memory: they get their zeros by magnitude."""


@dataclass(frozen=True)
class SparseLayer:
    """What happened to one layer.

    error: mean squared error of its output on the data as a share of its variance; magnitude_error: with the zeros
    by magnitude instead, nothing reconstructed. reason: why it stayed dense.
    """

    name: str
    operator: str
    weights: int
    zeros: int
    method: str = ""
    error: float | None = None
    magnitude_error: float | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class SparsifyResult:
    """A sparse model and how it came about."""

    model: Model
    layers: tuple[SparseLayer, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    report: Report | None = None
    improved: FinetuneResult | None = None


@on_one_thread
def sparsify(
    source: Source,
    options: SparsifyOptions | None = None,
    data: DataSource | None = None,
    *,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> SparsifyResult:
    """Return the model with zeros in its weights.

    Args:
        source: path, bytes, ModelProto, onnx-graphsurgeon Graph or Model; it is not changed.
        data: inputs of the kind that the model is used on: which weights go and what the others become follow them.
            Statistics (`options.stats`) take their place.

    Raises:
        DataError: the data do not fit the model.
        NothingToPruneError: no layer can have the zeros that are asked for.
        UsageError: a pattern of names matches nothing, or a score needs data.
    """
    options, runtime, model = options or SparsifyOptions(), runtime or Runtime(), load(source)
    require_data(options.effort, data)
    known = KnownSums.of(options.stats, model) if options.stats is not None else None
    data = data if known is None else None
    score = options.score or ("magnitude" if data is None and known is None else "obc")
    if data is None and known is None and (score in ("obc", "wanda") or options.reconstruct):
        what = f"score {score}" if score in ("obc", "wanda") else "reconstruct"
        raise UsageError(f"{what} needs inputs of the model: give --data.")
    work = _Sparsifying(model, options, score, runtime)
    goals = work.goals()
    samples = calibration(model, data) if data is not None else None
    if known is not None:
        progress("choosing zeros and making up for them")
        work.known(known, goals)
    by_size = [c for c in work.chosen if samples is None or c.inputs > MOST_INPUTS]
    work.plain([c for c in by_size if not work.is_done(c.layer)], goals)
    if samples is not None:
        progress("choosing zeros and making up for them")
        seen = look(View(model), samples, runtime)
        work.recurrent(seen, goals)
        work.walk(seen, goals)
    result, warnings = work.result(), [*(samples.warnings if samples else ())]
    effort, shapes = options.effort, options.input_shapes
    better, notes = improved(model, result, effort, samples, runtime, options.seed, shapes, progress)
    result, warnings = better.model if better is not None else result, [*warnings, *notes]
    if options.storage == "sparse":
        result, note = stored_sparse(result)
        warnings.append(note)
    lines = tuple(work.report())
    return SparsifyResult(result, lines, work.settings(), tuple(dict.fromkeys(warnings)), improved=better)


@dataclass(eq=False)
class _Chosen:
    """A layer that takes part; `number` tells layers apart where numbers are drawn."""

    layer: Linear
    number: int

    @property
    def inputs(self) -> int:
        return _matrix_shape(self.layer)[2]


class _Sparsifying:
    """One model on its way: an edited copy, what is known of its layers, what was done to them."""

    def __init__(self, source: Model, options: SparsifyOptions, score: str, runtime: Runtime) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(source.proto)
        self._source, self._options, self._score, self._runtime = source, options, score, runtime
        self._weights = Weights(Model(proto, source.path, dict(source.pending)))
        self._model = self._weights.model
        self._view = View(self._model)
        self.layers = linear_layers(self._view)
        self._methods: dict[str, str] = {}
        self._errors: dict[str, LayerError] = {}
        open_ones, self._reasons = chosen_layers(self._view, self.layers, options.skip, options.only)
        for layer in open_ones:
            reason = _why_dense(layer, options)
            if reason is not None:
                self._reasons[layer.name] = reason
        taking = [layer for layer in open_ones if layer.name not in self._reasons]
        if not taking:
            raise NothingToPruneError(_why_nothing(self.layers, self._reasons, options))
        self.chosen = [_Chosen(layer, number) for number, layer in enumerate(taking)]

    def is_done(self, layer: Linear) -> bool:
        """Tell whether a layer has its zeros."""
        return layer.name in self._methods

    def goals(self) -> dict[str, Goal]:
        """Return what each layer is to become, by its name."""
        scores = {c.layer.name: self._magnitudes(c.layer) for c in self.chosen}
        sizes = {c.layer.name: c.layer.dims for c in self.chosen}
        shares = SCOPES[self._options.scope](scores, sizes, self._options.level)
        rebuild = self._options.reconstruct is not False
        return {
            c.layer.name: Goal(
                self._options.form, shares[c.layer.name], self._score, rebuild, self._options.seed + c.number
            )
            for c in self.chosen
        }

    def plain(self, chosen: list[_Chosen], goals: Mapping[str, Goal]) -> None:
        """Zeros without data."""
        for item in chosen:
            score = self._score if self._score == "random" else "magnitude"
            self._zero(item, replace(goals[item.layer.name], score=score))

    def known(self, known: KnownSums, goals: Mapping[str, Goal]) -> None:
        """Zeros by what statistics tell of the inputs of each layer; the others get them by magnitude."""
        grams = known.grams(self._view, self._runtime)
        for item in self.chosen:
            layer, goal, found = item.layer, goals[item.layer.name], grams.get(item.layer.key)
            parts = layer.matrix(self._model)
            if found is None or len(parts) > 1 or item.inputs > MOST_INPUTS:
                continue
            self._put(layer, np.stack([solve(part, found[0], goal, n)[0] for n, part in enumerate(parts)]))
            self._methods[layer.name] = goal.score

    def recurrent(self, seen: Seen, goals: Mapping[str, Goal]) -> None:
        """Zeros in recurrent layers, on what enters them in the original network."""
        todo = [c for c in self.chosen if c.layer.is_recurrent and c.layer.name not in self._methods]
        graph = seen.model.proto.graph
        made = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
        there = twins([c.layer for c in todo], seen.view)
        watched = {name: _watched(layer) for name, layer in there.items()}
        wanted = {name: Wanted(name, -1) for name in watched.values() if name in made}
        if not wanted:
            return
        threads = self._runtime.threads or None
        found = collect(seen.model, seen.data, list(wanted.values()), threads=threads, provider=self._runtime.provider)
        for item in todo:
            name = watched.get(item.layer.name, "")
            gram = found[name].gram if name in found else None
            if gram is None:
                continue
            layer, goal = item.layer, goals[item.layer.name]
            parts = [solve(part, gram, goal, n)[0] for n, part in enumerate(layer.matrix(self._model))]
            self._put(layer, np.stack(parts))
            self._methods[layer.name] = goal.score

    def walk(self, seen: Seen, goals: Mapping[str, Goal]) -> None:
        """Zeros in all other layers, one after the other; those that cannot be followed get them by magnitude."""
        todo = [c for c in self.chosen if c.layer.name not in self._methods and not c.layer.is_recurrent]
        form = seen.form(self._model)
        weights = self._weights
        if form is not self._model:
            proto = onnx.ModelProto()
            proto.CopyFrom(form.proto)
            weights = Weights(Model(proto, form.path, dict(form.pending)))
        there = twins([c.layer for c in todo], seen.view)
        there = {name: layer for name, layer in there.items() if weights.is_own(layer.node.inputs[layer.index])}
        table = {layer.node.outputs[0]: goals[name] for name, layer in there.items()}
        options = RefitOptions(threads=self._runtime.threads or None)
        walk = SparseWalk(seen.model, weights, seen.data, table, options)
        errors = {error.name: error for error in walk.run()}
        for name, layer in there.items():
            output = layer.node.outputs[0]
            if output in walk.done:
                self._methods[name] = self._score
                self._errors[name] = errors.get(layer.node.name) or errors[self._reader_name(walk, output)]
        if weights is not self._weights:
            self._take(seen.restored(weights.model, form, self._model))
        self.plain([c for c in self.chosen if c.layer.name not in self._methods], goals)

    def _take(self, model: Model) -> None:
        """Go on with another copy."""
        self._weights = Weights(model)
        self._model = self._weights.model
        self._view = View(self._model)
        self.layers = linear_layers(self._view)
        table = {layer.name: layer for layer in self.layers}
        self.chosen = [replace(item, layer=table[item.layer.name]) for item in self.chosen]

    def result(self) -> Model:
        """Return the sparse model."""
        return Model(self._model.proto, self._source.path, dict(self._model.pending))

    def report(self) -> list[SparseLayer]:
        """Return what happened to every layer, in order."""
        view = View(self._model)
        lines = []
        for layer in linear_layers(view):
            values = self._model.content(layer.key, layer.parameter.tensor)
            error, name = self._errors.get(layer.name), layer.name
            lines.append(
                SparseLayer(
                    name,
                    layer.node.op_type,
                    values.size,
                    int(values.size - np.count_nonzero(values)),
                    self._methods.get(name, ""),
                    error.after if error else None,
                    error.before if error else None,
                    self._reasons.get(name),
                )
            )
        return lines

    def settings(self) -> dict[str, object]:
        """Return the choices that were made."""
        rebuilt = self._score == "obc" or any(error is not None for error in self._errors.values())
        return {
            "pattern": self._options.form.name,
            "scope": self._options.scope,
            "score": self._score,
            "reconstructed": rebuilt and self._options.reconstruct is not False,
        }

    @staticmethod
    def _reader_name(walk: SparseWalk, output: str) -> str:
        return next(reader.name for reader in walk.readers if reader.node.output[0] == output)

    def _magnitudes(self, layer: Linear) -> Callable[[], Array]:
        return lambda: np.abs(layer.matrix(self._model))

    def _zero(self, item: _Chosen, goal: Goal) -> None:
        layer, old = item.layer, _reading(self._model, item.layer.parameter)

        def make() -> Array:
            seen = layer.seen(old())
            keep = [mask(part, None, goal, n) for n, part in enumerate(layer.layout.matrix(seen))]
            shown = layer.layout.weight(np.stack(keep), seen.shape)
            return layer.stored(np.where(shown != 0, seen, np.zeros((), seen.dtype)))

        put(self._pending, layer.parameter, make)
        self._methods[layer.name] = goal.score

    def _put(self, layer: Linear, matrix: Array) -> None:
        values = layer.stored(layer.layout.weight(matrix, layer.dims))
        put(self._pending, layer.parameter, lambda: values)

    @property
    def _pending(self) -> dict[str, Callable[[], Array]]:
        return self._model.pending  # type: ignore[return-value]  # its Mapping is a dict


def _why_dense(layer: Linear, options: SparsifyOptions) -> str | None:
    groups, outs, features = _matrix_shape(layer)
    taps = int(np.prod(layer.dims[2:])) if layer.node.op_type.startswith("Conv") else 1
    if features < LEAST_INPUTS and not options.only:
        return f"it has {features} inputs for each output, fewer than {LEAST_INPUTS} (name it with --only)"
    return options.form.obstacle(groups, outs, features // taps)


def _reading(model: Model, parameter: Parameter) -> Callable[[], Array]:
    """Return what gives the present values of a tensor; an external one is not held in memory."""
    make = model.pending.get(parameter.key)
    if make is not None:
        return make
    if is_external(parameter.tensor):
        return lambda: model.array(parameter.tensor)
    values = model.array(parameter.tensor)
    return lambda: values


def _matrix_shape(layer: Linear) -> tuple[int, int, int]:
    groups, outs, features = layer.layout.matrix(np.broadcast_to(np.float32(0), layer.dims)).shape
    return groups, outs, features


def _watched(layer: Linear) -> str:
    """Return the tensor that a weight of a recurrent layer multiplies: its input, or its own output."""
    if layer.index == 1:
        return str(layer.node.proto.input[0])
    return str(layer.node.proto.output[0]) if layer.node.proto.output else ""


def _why_nothing(layers: list[Linear], reasons: Mapping[str, str], options: SparsifyOptions) -> str:
    if not layers:
        return "the model has no Conv, Gemm, MatMul or recurrent layer with a stored float weight; nothing to sparsify."
    shown = "; ".join(dict.fromkeys(reasons.values()))
    return f"no layer takes pattern {options.form.name}: {shown}."
