"""Quantize a model: one of the modes of `quantization.modes.table`.

Nothing of this is exact. What stays as it was: names, metadata, inputs and outputs with their dynamic sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from onnxprune.errors import DataError, NothingToPruneError
from onnxprune.evidence.latency import Timing
from onnxprune.graph.model import Model, Source, load
from onnxprune.methods.quantization import layers, recognise, search
from onnxprune.methods.quantization.layers import Layer
from onnxprune.methods.quantization.modes.table import mode_named
from onnxprune.methods.quantization.work import NO_DATA, Feeds, Task, work_of
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.operators.operator import named
from onnxprune.report import Report
from onnxprune.statistics.blas import on_one_thread

ORIGIN_BYTES = 512
"""What a result says of its origin takes up to so much of its file."""
RECURRENT = frozenset(named(lambda operator: operator.gates > 0))


@dataclass(frozen=True, eq=False)
class QuantizeResult:
    """A quantized model and how it came about.

    mode: what was done, where it was left open.
    layers: every node that could be quantized, with its noise.
    settings: the choices that were made for this machine and model.
    timings: of the original and of the model, where they were run in turns.
    """

    model: Model
    mode: str
    layers: tuple[Layer, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    report: Report | None = None
    timings: tuple[Timing, Timing] | None = None


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
    if options.mode is None or not mode_named(options.mode).back:
        recognise.refuse_quantized(model.proto)
    mode = mode_named(options.mode or default_mode(model.proto, bool(feeds) and not synthetic))
    task = Task(model, mode, options, feeds, judge, threads, synthetic)
    if mode.needs_data and not feeds:
        raise DataError(NO_DATA.format(mode.name))
    if recognise.precision(model.proto) == "float64":
        raise NothingToPruneError(layers.why_nothing(mode.name, model.proto))
    if synthetic and options.rounding == "gptq" and options.stats is None:
        raise DataError("--rounding gptq fits weights to inputs of the model; give --data.")
    work = work_of(mode)(task)
    found = work.find()
    if mode.smaller and found.proto.ByteSize() + ORIGIN_BYTES >= model.size_bytes:
        raise NothingToPruneError(
            f"{mode.name} mode would make the file no smaller: there are too few weights that it stores in fewer bits. "
            "Nothing was written."
        )
    watched = work.watched(found)
    return QuantizeResult(Model(found.proto), mode.name, watched, found.settings, found.warnings, timings=found.timings)


def default_mode(proto: onnx.ModelProto, with_data: bool) -> str:
    """Return static where there are data and no recurrent layers (which only dynamic mode quantizes), else dynamic."""
    recurrent = any(node.op_type in RECURRENT for node in recognise.nodes(proto.graph))
    return "static" if with_data and not recurrent else "dynamic"
