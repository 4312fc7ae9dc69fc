"""Quantize a model: dynamic or static int8, weights in 4 or 8 bits, float16, bfloat16.

Nothing of this is exact. What stays as it was: names, metadata, inputs and outputs with their dynamic sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import onnx

from onnxprune.errors import DataError, GateError, NothingToPruneError, UsageError
from onnxprune.graph.model import Model, Source, load
from onnxprune.methods.quantization import (
    between,
    bias,
    equalize,
    fitted,
    guard,
    half,
    inside,
    integer,
    layers,
    measure,
    native,
    normal_form,
    observe,
    overflow,
    ranges,
    recognise,
    restore,
    rounding,
    search,
    smooth,
    weight_only,
)
from onnxprune.methods.quantization.compact import compact
from onnxprune.methods.quantization.fold_norms import fold_norms
from onnxprune.methods.quantization.layers import Layer
from onnxprune.methods.quantization.lift import captured_nodes, embedded, opset_of, split_gemms, unshare_biases
from onnxprune.methods.quantization.machine import IntegerTypes, integer_types
from onnxprune.methods.quantization.options import MODES, QuantizeOptions, weight_bits
from onnxprune.methods.quantization.prepare import prepare
from onnxprune.operators.operator import named
from onnxprune.report import Report
from onnxprune.statistics.blas import on_one_thread
from onnxprune.types import Array, FloatArray

Feeds = dict[str, Array]

LEAST_OPSET = {"static": 13, "dynamic": 11, "weight-only": 0, "fp16": 0, "bf16": 13}
NO_RANGES = "static mode takes ranges from inputs; give --data, or take --mode dynamic."
NOT_FASTER = (
    "static int8 is not faster than float on this machine, so there is nothing to gain but a smaller file; take "
    "--no-measure for that, or --mode weight-only or fp16."
)
ORIGIN_BYTES = 512
"""What a result says of its origin takes up to so much of its file."""
RECURRENT = frozenset(named(lambda operator: operator.gates > 0))


@dataclass(frozen=True, eq=False)
class QuantizeResult:
    """A quantized model and how it came about.

    mode: what was done, where it was left open.
    layers: every node that could be quantized, with its noise.
    settings: the choices that were made for this machine and model.
    """

    model: Model
    mode: str
    layers: tuple[Layer, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    report: Report | None = None


@on_one_thread
def quantize(
    source: Source,
    options: QuantizeOptions | None = None,
    *,
    feeds: Sequence[Feeds] | Callable[[], Sequence[Feeds]] = (),
    judge: search.Judge | None = None,
    threads: int = 0,
    synthetic: bool = False,
) -> QuantizeResult:
    """Return the model in fewer bits.

    Args:
        source: path, bytes, ModelProto, onnx-graphsurgeon Graph or Model; it is not changed.
        feeds: inputs for the ranges (static mode, which needs some) and the noise of the layers. All activations of
            one feed are held at once: see `statistics.batch`. A function is called once it is known that there is
            something to quantize.
        judge: limits to keep: layers stay float until they hold.
        synthetic: the feeds are made up: they give ranges, but weights are not fitted to them.

    Raises:
        ModelError: the model is quantized already, or cannot be quantized in this mode.
        NothingToPruneError: it has nothing that this mode quantizes.
        GateError: a limit is not kept even with every layer in float.
        UsageError: a pattern matches nothing.
    """
    options = options or QuantizeOptions()
    model = load(source)
    recognise.refuse_quantized(model.proto)
    mode = options.mode or default_mode(model.proto, bool(feeds) and not synthetic)
    if mode == "static" and not feeds:
        raise DataError(NO_RANGES)
    if recognise.precision(model.proto) == "float64":
        raise NothingToPruneError(layers.why_nothing(mode, model.proto))
    if synthetic and options.rounding == "gptq":
        raise DataError("--rounding gptq fits weights to inputs of the model; give --data.")
    work = _Work(model, mode, options, feeds, threads, synthetic, judge is not None)
    result = work.find(judge)
    if mode != "static" and result.model.proto.ByteSize() + ORIGIN_BYTES >= model.size_bytes:
        raise NothingToPruneError(
            f"{mode} mode would make the file no smaller: there are too few weights that it stores in fewer bits. "
            "Nothing was written."
        )
    return replace(result, layers=work.watched(result))


def default_mode(proto: onnx.ModelProto, with_data: bool) -> str:
    """Return static where there are data and no recurrent layers (which only dynamic mode quantizes), else dynamic."""
    recurrent = any(node.op_type in RECURRENT for node in recognise.nodes(proto.graph))
    return "static" if with_data and not recurrent else "dynamic"


class _Work:
    """One model on its way: prepared once, built as often as the search asks."""

    def __init__(
        self,
        model: Model,
        mode: str,
        options: QuantizeOptions,
        feeds: Sequence[Feeds] | Callable[[], Sequence[Feeds]],
        threads: int = 0,
        synthetic: bool = False,
        gated: bool = False,
    ) -> None:
        self.source, self.mode, self.options, self.threads = model, mode, options, threads
        self.float_ms = 0.0
        self.warnings: list[str] = []
        self.smoothed = self.equalized = 0
        self.stays: frozenset[str] = frozenset()
        self.prepared = prepare(model, LEAST_OPSET[mode])
        proto = self.prepared.proto
        self.fixed = self._rewritten(proto) | captured_nodes(proto.graph)
        self.fixed |= normal_form.foreign_nodes(proto.graph)
        if mode == "static":
            self.fixed |= normal_form.odd_gemms(proto.graph)
        self.operators = self._operators()
        if mode == "static":
            self.fixed |= between.kept_float(proto.graph, self.operators, self.fixed)
        self.layers = [layer for layer in self._candidates() if layer.name not in self.fixed]
        inner, float_inside = inside.layers_inside(proto.graph)
        self.layers += [layer for layer in inner if mode in inside.MODES and layer.name not in self.fixed]
        self.warnings += inside.told(mode, inner, float_inside)
        if not self.layers and mode not in ("fp16", "bf16"):
            raise NothingToPruneError(layers.why_nothing(mode, proto))
        self._take(list(feeds() if callable(feeds) else feeds), synthetic, gated)
        self.types = self._types()
        if mode == "fp16":
            self._keep_beyond()
        if mode in ("static", "dynamic") and options.smooth and self.feeds:
            self.smoothed = smooth.smooth(proto, self.feeds, self.fixed, threads)
        self.ranges = self._ranges() if mode == "static" else None
        self.grams = self._grams()
        self.rounded: dict[str, tuple[Array, Array, Array]] = {}
        self.fitted = fitted.NOTHING
        if mode == "static":
            self._fit()

    def _take(self, feeds: list[Feeds], synthetic: bool, gated: bool) -> None:
        """Keep the inputs, apart from those that the guard judges on.

        Raises:
            DataError: static mode gets none.
        """
        if self.mode == "static" and not feeds:
            raise DataError(NO_RANGES)
        self.fits = bool(feeds) and not synthetic
        self.guarded = self.mode == "static" and self.options.guard and self.fits and not gated
        self.feeds, self.held = guard.split(self.source.proto, feeds) if self.guarded else (feeds, [])
        if self.guarded and not self.held:
            self.warnings.append(
                f"no layer goes back to float by itself: ranges come from {guard.samples(self.source.proto, feeds)} "
                f"samples; from {guard.LEAST_SAMPLES} on a quarter of them is held out to tell; give more, or a gate"
            )
        self.guarded = bool(self.held)

    def _keep_beyond(self) -> None:
        """Keep nodes float32 that hold what float16 cannot."""
        proto = self.prepared.proto
        found = overflow.beyond_float16(proto, self.feeds, self.threads)
        self.stays = found.nodes
        self.fixed |= found.nodes
        self.warnings += found.told(len(proto.graph.node))

    def _rewritten(self, proto: onnx.ModelProto) -> set[str]:
        """Bring the working copy into the form that its mode wants; return the nodes that stay float by wish."""
        mode, options, source = self.mode, self.options, self.source.proto
        if opset_of(proto) > opset_of(source):
            self.warnings.append(f"the opset was raised from {opset_of(source)} to {opset_of(proto)}")
        if mode in inside.MODES:
            self.prepared.names.update(inside.name_bodies(proto.graph))
        blocked = layers.chosen_by_name(proto, options.skip, options.only, options.op_block_list)
        if mode in ("static", "dynamic", "weight-only"):
            normal_form.scale_biases(proto.graph, lambda name: name not in blocked)
        if mode == "static":
            normal_form.plain_gemms(proto.graph, lambda name: name not in blocked)
            unshare_biases(proto.graph)
            fold_norms(proto.graph)
            self.equalized = equalize.equalize(proto, blocked) if options.equalize else 0
        if mode in ("dynamic", "weight-only"):
            split_gemms(proto.graph, lambda name: name not in blocked)
        if mode in inside.MODES:
            inside.prepare_bodies(proto.graph, lambda name: name not in blocked)
        native.declare_types(proto)
        native.release()
        return blocked

    def find(self, judge: search.Judge | None) -> QuantizeResult:
        """Build the model, with as few layers in float as the limits need."""
        outcome = search.Outcome(frozenset(), {})
        measured = self.mode == "static" and self.fits and measure.wanted(self.options.measure)
        if measured:
            self._measure_parts()
        limits = judge or (self._guard if self.guarded else None)
        holds = self.mode == "static" and limits is not None and not limits.failures(Model(self.build(self.fixed)))
        if self.mode == "static" and limits is not None and not holds:
            self._fit(needed=True)
        if judge is not None and not holds:
            open_ones = [layer for layer in self.layers if layer.name not in self.fixed]
            names = [layer.name for layer in open_ones if layer.operator not in layers.MOVES]
            outcome = search.search(self.build, names, self.fixed, judge)
            if outcome.failures:
                raise GateError(f"{'; '.join(outcome.failures)}, with every layer in float. Nothing was written.")
        elif self.guarded and not holds:
            outcome = self._guarded()
        proto = self.build({*self.fixed, *outcome.left})
        if measured:
            self._require_faster(proto)
        found = tuple(
            replace(layer, quantized=layer.name not in outcome.left | self.stays, cost_db=outcome.alone.get(layer.name))
            for layer in self.layers
        )
        return QuantizeResult(Model(proto), self.mode, found, self._settings(), tuple(self.warnings))

    def _measure_parts(self) -> None:
        """Leave parts in float that are slower in int8 on this machine."""
        proto, sample = self.prepared.proto, guard.one_sample(self.source.proto, self.feeds[0])
        self.float_ms = measure.race([self.source_inside()], sample, self.threads)[0]
        if self.float_ms < measure.LEAST_MS:
            return
        slow = measure.slow_layers(proto, self._static(proto), self.fixed, sample, self.threads)
        names = [layer.name for layer in self.layers if layer.operator in layers.COMPUTE]
        if slow >= {*names}:
            raise NothingToPruneError(NOT_FASTER)
        self.stays = frozenset(name for name in names if name in slow)
        self.fixed |= slow
        self.fixed |= between.kept_float(proto.graph, self.operators, self.fixed)
        if self.stays:
            self.warnings.append(
                f"{len(self.stays)} of {len(names)} layers stay float: measured on this machine, their parts of the "
                "network are no faster in 8 bits (--no-measure quantizes them)"
            )

    def _require_faster(self, proto: onnx.ModelProto) -> None:
        """Stop where the whole is not faster.

        Raises:
            NothingToPruneError: it is not, or nothing is left in 8 bits.
        """
        sample = guard.one_sample(self.source.proto, self.feeds[0])
        before, after = measure.race([self.source_inside(), proto], sample, self.threads, measure.WHOLE)
        if before >= measure.LEAST_MS and after > measure.GAIN * before:
            raise NothingToPruneError(f"{NOT_FASTER} It took {after / before:.2f} of the float model's time.")

    def source_inside(self) -> onnx.ModelProto:
        """Return the source with all of its tensors inside."""
        return embedded(self.source)

    def _fit(self, *, needed: bool = False) -> None:
        """Fit weights or biases to the data, as the options ask for or rounding to nearest has shown to be needed."""
        if self.fitted is fitted.NOTHING:
            proto, options = self.prepared.proto, self.options
            self.fitted = fitted.fit(proto, self._static, options, self.feeds, self.threads, self.fits, needed)

    @cached_property
    def _guard(self) -> guard.Guard:
        return guard.Guard(self.source, self.held, self.threads)

    def _guarded(self) -> search.Outcome:
        """Keep layers float until held-out samples agree with the original."""
        names = {layer.name for layer in self.layers if layer.operator in layers.COMPUTE} - self.fixed

        def ranking() -> list[str]:
            few = layers.watched_feeds(self.feeds)
            proto = self.prepared.proto
            noise = bias.own_noise(proto, self._static(self.fitted.put(proto, ())), few, self.threads)
            return sorted(names, key=lambda name: (-noise.get(name, 0.0), name))

        outcome = search.guarded(self.build, ranking, self.fixed, self._guard)
        if outcome.left >= names:
            raise NothingToPruneError(
                "no layer can be quantized without changing what the model gives on held-out samples; take --mode "
                "fp16, or --no-guard to have int8 in spite of that."
            )
        if outcome.left:
            self.warnings.append(
                f"{len(outcome.left)} of {len(names)} layers stay float: in 8 bits they change what the model gives on "
                "held-out samples"
            )
        return outcome

    def build(self, left: Collection[str], form: str | None = None) -> onnx.ModelProto:
        """Return the quantized model, with these nodes in float.

        Args:
            form: of static mode; None is that of the options.
        """
        proto = self.prepared.proto
        options = self.options
        if self.mode == "dynamic":
            made = integer.quantize_dynamic(proto, self._integers(), self.operators, left)
        elif self.mode == "static":
            made = self._static(self.fitted.put(proto, left), left, form or options.format)
        elif self.mode == "weight-only":
            bits = weight_bits(options, self.mode)
            made = weight_only.quantize_weights(_copy(proto), bits, options.block_size, left, self._rounded)
        elif self.mode == "fp16":
            made = half.to_float16(_copy(proto), options.keep_io_types, options.op_block_list, left)
        elif self.mode == "bf16":
            made = _copy(proto)
            half.to_bfloat16(made, options.op_block_list, left)
        else:
            raise UsageError(f"mode {self.mode!r} is not built; take one of {', '.join(MODES)}.")
        if self.mode in inside.MODES:
            inside.quantize_bodies(made, self._integers(), {*self.fixed, *left})
            compact(made, self.source.proto, proto)
        ports = self.mode != "fp16" or options.keep_io_types
        restore.restore(made, self.source.proto, self.prepared, ports=ports)
        return made

    def _static(self, proto: onnx.ModelProto, left: Collection[str] = (), form: str = "qdq") -> onnx.ModelProto:
        how = replace(self._integers(), form=form)
        floats = {*self.fixed, *left}
        if left:  # what lay between two layers now may lie between float ones
            floats |= between.kept_float(self.prepared.proto.graph, self.operators, floats)
        return integer.quantize_static(proto, self.ranges, how, self.operators, floats)

    def watched(self, result: QuantizeResult) -> tuple[Layer, ...]:
        """Return the layers with the noise at the output of each."""
        if not self.feeds:
            return result.layers
        proto = result.model.proto
        if self.mode == "static" and self.options.format != "qdq":  # the same values, where they can be looked at
            left = {layer.name for layer in result.layers if not layer.quantized}
            proto = self.build({*self.fixed, *left}, "qdq")
        few = layers.watched_feeds(self.feeds)
        noise = layers.noise(self.prepared.proto, proto, list(result.layers), few, self.threads)
        native.release()
        return tuple(replace(layer, sqnr_db=noise.get(layer.name)) for layer in result.layers)

    def _rounded(self, name: str, matrix: Array) -> tuple[Array, Array, Array]:
        """Round the matrix of a node, once for all builds."""
        if name not in self.rounded:
            bits, gram = weight_bits(self.options, self.mode), self.grams.get(name)
            size = self.options.block_size
            fits = gram is not None and len(gram) == len(matrix)
            self.rounded[name] = (
                rounding.round_with_gram(matrix, gram, bits, size)
                if gram is not None and fits
                else weight_only.round_blocks(matrix, bits, size)
            )
        return self.rounded[name]

    def _grams(self) -> dict[str, FloatArray]:
        """Return the second moment of what each layer multiplies, as far as there is memory and need."""
        if self.mode != "weight-only" or self.options.rounding == "nearest" or not self.fits:
            return {}
        names = {layer.name for layer in self.layers}
        reads = {node.name: node.input[0] for node in self.prepared.proto.graph.node if node.name in names}
        found = observe.grams(self.prepared.proto, list(reads.values()), self.feeds, self.threads)
        return {name: found[tensor] for name, tensor in reads.items()}

    def _operators(self) -> list[str]:
        if self.mode == "dynamic":
            return list(integer.DYNAMIC_OPERATORS)
        if self.mode == "weight-only":
            return ["MatMul"]
        if self.mode == "static":
            return list(integer.STATIC_OPERATORS)
        return sorted({node.op_type for node in self.prepared.proto.graph.node} - set(self.options.op_block_list))

    def _candidates(self) -> list[Layer]:
        weights_only = self.mode in ("dynamic", "weight-only", "bf16")
        return layers.candidates(self.prepared.proto, self.operators, weights_only)

    def _types(self) -> IntegerTypes:
        default, options = integer_types(), self.options
        return IntegerTypes(
            options.activation_type or default.activation, options.weight_type or default.weight, default.reduce_range
        )

    def _integers(self) -> integer.Integers:
        symmetric = self.options.symmetric
        return integer.Integers(
            self.types, self.options.per_channel, self.types.activation == "s8" if symmetric is None else symmetric
        )

    def _ranges(self) -> Any:
        options, graph = self.options, self.prepared.proto.graph
        found = ranges.collect(
            self.prepared.proto,
            self.feeds,
            method=options.calibration,
            operators=self.operators,
            percentile=options.percentile,
            same=integer.clamped(self.prepared.proto, self.operators, self.fixed),
            only={n for node in graph.node if node.name not in self.fixed for n in (*node.input, *node.output)},
            threads=self.threads,
        )
        native.release()
        return found

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"mode": self.mode, "bits": weight_bits(self.options, self.mode)}
        if self.mode in ("dynamic", "static"):
            activation = self.types.activation if self.mode == "static" else "u8"
            settings |= {"types": f"{activation}{self.types.weight}", "per_channel": self.options.per_channel}
            settings |= {"reduce_range": self.types.reduce_range}
        if self.mode == "static":
            settings |= {"format": self.options.format, "rounding": "gptq" if self.fitted.layers else "nearest"}
            settings |= {"calibration": self.options.calibration, "corrected_biases": len(self.fitted.biases)}
        if self.equalized:
            settings |= {"equalized": self.equalized}
        if self.smoothed:
            settings |= {"smoothed": self.smoothed}
        if self.mode == "weight-only":
            settings |= {"block_size": self.options.block_size, "rounding": "gptq" if self.grams else "nearest"}
        return settings


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy
