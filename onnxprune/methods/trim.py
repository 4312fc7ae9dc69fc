"""Take away what lies at the border of a graph: outputs, classes, tokens, inputs, channels of inputs.

Exact: outputs that stay give what they gave, at the positions that stay. Where a Softmax (or another operator that
weighs positions against each other) runs over an axis that loses positions, its result is taken over what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.boundary import Boundary
from onnxprune.channels.constants import kept_positions
from onnxprune.channels.plan import Plan
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.evidence.border import Border
from onnxprune.graph.model import Model, Source, load
from onnxprune.graph.strip import keep_outputs, strip
from onnxprune.graph.trace import trace
from onnxprune.graph.view import Node, View
from onnxprune.methods.trim_options import TrimOptions
from onnxprune.methods.trimming.axes import AxisCut, find_axis, find_cuts
from onnxprune.methods.trimming.axis_labels import rewrite_labels
from onnxprune.methods.trimming.channels_in import channel_axis, make_gray
from onnxprune.methods.trimming.constant import fix_dims, fix_inputs, fixed_value
from onnxprune.methods.trimming.scattered_scores import spread_scores
from onnxprune.methods.trimming.spec import positions
from onnxprune.methods.trimming.tokens import cut_tokens, find_lookups, unknown_id
from onnxprune.methods.trimming.untie import untied
from onnxprune.report import Report
from onnxprune.types import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class TrimResult:
    """A trimmed model and how it came about.

    model: the result. prepared: the model after all steps that cut no axis; `channels` is its analysis, and the result
        is that model with what the plan names removed.
    cuts: axes of tensors that lost positions.
    tokens: input -> (rows,) True for the rows of its embedding that stay.
    inputs: inputs that went.
    shapes: changed inputs and outputs -> (old shape, new shape), dynamic sizes as traced.
    weighed: operators whose result is taken over what is left, by label.
    border: how inputs and outputs of the result follow from the original's.
    report: what was found out about the result, where a job made it.
    narrow: the result before scores were spread to their old width, and names in the metadata followed.
    """

    model: Model
    plan: Plan
    prepared: Model
    channels: Channels
    cuts: tuple[AxisCut, ...] = ()
    tokens: dict[str, BoolArray] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    weighed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    border: Border = field(default_factory=Border)
    narrow: Model | None = None
    report: Report | None = None


def trim(
    source: Source,
    options: TrimOptions | None = None,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> TrimResult:
    """Remove what is not needed at the border of a model.

    Args:
        source: path, bytes, ModelProto, onnx-graphsurgeon Graph or Model; it is not changed.

    Raises:
        ModelError: the model cannot be read.
        NothingToPruneError: an operator holds what is to go (the message names it).
        UsageError: nothing is asked for, or something is named that the model does not have.
    """
    options = options or TrimOptions()
    model = load(source)
    if not options.asks:
        raise UsageError("nothing is to be trimmed: name outputs, positions, tokens or inputs.")
    return _Trimming(model, options, progress).run()


class _Trimming:
    def __init__(self, source: Model, options: TrimOptions, progress: Callable[[str], None]) -> None:
        self.source, self.options, self.progress = source, options, progress
        self.shapes = dict(options.input_shapes)
        self.tokens: dict[str, BoolArray] = {}
        self.gone: tuple[str, ...] = ()

    def run(self) -> TrimResult:
        options = self.options
        self.progress("taking away what nothing needs")
        model = self._stripped()
        for name in options.gray:
            model = replace(model, proto=make_gray(model, name))
        for name, entries in options.tokens.items():
            model = self._tokens(model, name, entries)
        self.progress("following what is cut")
        kept = next(iter(self.tokens.values()), None)
        wanted = {**options.keep, **options.input_channels}
        labels, key, shapes = options.labels, options.labels_key, self.shapes
        cuts = find_cuts(model, wanted, kept, labels, key, shapes)  # type: ignore[arg-type]  # options spelled it out
        spread = self._spread(model, kept)
        every = [*cuts, *spread]
        boundary = Boundary({(cut.tensor, cut.axis): cut.kept for cut in every}, renumber=options.renumber)
        model, channels = self._analysed(model, boundary)
        narrow = rewrite(channels, {})
        result = self._finished(narrow, channels, cuts, spread)
        weighed = tuple(node.label for node in channels.state.normalised if self._loses(channels, node))
        plan = replace(
            channels.plan({}),
            source_sha256=self.source.sha256,
            structure=self.source.structure,
            trim=options.to_dict(),
        )
        return TrimResult(
            result,
            plan,
            model,
            channels,
            tuple(every),
            self.tokens,
            self.gone,
            self._changed_shapes(result),
            weighed,
            self._warnings(),
            self._border(channels, spread),
            narrow,
        )

    def _analysed(self, model: Model, boundary: Boundary) -> tuple[Model, Channels]:
        """Return the analysis; a head that shares its matrix with an embedding which holds it gets one of its own."""
        try:
            return model, analyse(model, self.shapes, boundary=boundary)
        except NothingToPruneError as held:
            apart = untied(model)
            if apart is None:
                raise
            try:
                channels = analyse(apart[0], self.shapes, boundary=boundary)
            except NothingToPruneError:
                raise held from None
            if not any(name in channels.plan({}).removed for name in apart[1]):
                raise
            return apart[0], channels

    def _stripped(self) -> Model:
        """Return the model without outputs and inputs that are to go."""
        options = self.options
        proto = onnx.ModelProto()
        proto.CopyFrom(self.source.proto)
        if options.outputs:
            keep_outputs(proto, options.outputs)
        fix_dims(proto, options.dims)
        fix_inputs(proto, options.fix)
        if options.outputs or options.fix:
            self.gone = (*options.fix, *strip(proto))
            self.shapes = {name: shape for name, shape in self.shapes.items() if name not in self.gone}
        return Model(proto, self.source.path)

    def _tokens(self, model: Model, name: str, entries: object) -> Model:
        rows = find_lookups(View(model), name)[0].parameter.dims[0]
        if (self.options.vocabulary or 0) > rows:
            raise UsageError(
                f"tokens {name}: the tokenizer has {self.options.vocabulary} ids, the embedding {rows} rows; give the "
                "tokenizer of this model."
            )
        kept = positions(entries, rows, None, f"tokens {name}")  # type: ignore[arg-type]  # spelled out
        rare = self.options.rare
        if rare.startswith("unk="):
            unknown_id(rare, kept)
        if kept.all():
            raise NothingToPruneError(f"tokens {name}: all {rows} rows stay.")
        result = cut_tokens(model, name, kept, rare, self.options.renumber)
        strip(result.proto, inputs=False)
        self.tokens[name] = kept
        left = {tensor.name for tensor in result.proto.graph.initializer}
        return replace(result, pending={key: make for key, make in result.pending.items() if key in left})

    def _spread(self, model: Model, kept: BoolArray | None) -> list[AxisCut]:
        """Return the axes of scores over the vocabulary that get their old width again."""
        traced = trace(View(model), self.shapes).shapes if self.options.scatter else {}
        found = []
        for target in self.options.scatter:
            name, axis = find_axis(model, traced, target, self.shapes)
            if kept is None or traced[name][axis] != len(kept):
                raise UsageError(f"scatter {target}: its axis has {traced[name][axis]} positions, not one a token.")
            found.append(AxisCut(name, axis, kept))
        return found

    def _finished(self, narrow: Model, channels: Channels, cuts: list[AxisCut], spread: list[AxisCut]) -> Model:
        """Widen scores, leave the kept names in the metadata."""
        for cut in spread:
            rank = len(channels.trace.shapes[cut.tensor])
            narrow = replace(narrow, proto=spread_scores(narrow, cut, rank, channels.trace.data_type(cut.tensor)))
        proto = onnx.ModelProto()
        proto.CopyFrom(narrow.proto)
        outputs = set(channels.view.outputs)
        for cut in cuts:
            if cut.labels is not None and cut.labels.key:
                rewrite_labels(proto, cut.labels, cut.kept, self.options.renumber or cut.tensor in outputs)
        return Model(proto, self.source.path, narrow.pending)

    @staticmethod
    def _loses(channels: Channels, node: Node) -> bool:
        """Tell whether an input of a node loses positions."""
        mask, axes = channels.mask({}), channels.state.axes
        return any(not mask[ids].all() for key in node.inputs for ids in axes.get(key, ()))

    def _changed_shapes(self, result: Model) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        old, new = (trace(View(m), s).shapes for m, s in ((self.source, dict(self.options.input_shapes)), (result, {})))
        names = [*(value.name for value in result.proto.graph.input), *(o.name for o in result.proto.graph.output)]
        return {name: (old[name], new[name]) for name in names if name in old and old[name] != new.get(name, old[name])}

    def _border(self, channels: Channels, spread: list[AxisCut]) -> Border:
        options, mask, axes = self.options, channels.mask({}), channels.state.axes
        names = [name for name in (*channels.view.inputs, *channels.view.outputs) if name in axes]
        positions = {name: kept_positions(axes[name], mask) for name in names}
        kept = {name: found for name, found in positions.items() if any(p is not None for p in found)}
        wide = {cut.tensor: kept.pop(cut.tensor) for cut in spread if cut.tensor in kept}
        inputs = {value.name: value for value in self.source.proto.graph.input}
        fixed = {name: fixed_value(inputs[name], value) for name, value in options.fix.items()}
        gone = frozenset(inputs) - set(channels.view.inputs)
        merged = {name: channel_axis(self.source, name) for name in options.gray}
        stands, numbers = self._ids()
        outputs = frozenset(options.outputs) or None
        weighed = {
            node.outputs[0]: (_softmax_axis(node), node.op_type == "LogSoftmax")
            for node in channels.state.normalised
            if node.op_type in ("Softmax", "LogSoftmax") and node.outputs[0] in kept and _is_last(channels, node)
        }
        return Border(kept, wide, fixed, gone, merged, stands, numbers, outputs, weighed)

    def _ids(self) -> tuple[dict[str, IntArray], dict[str, IntArray]]:
        """Return for ids that do not stay the one that is meant, and the new numbers where callers give them."""
        stands: dict[str, IntArray] = {}
        numbers: dict[str, IntArray] = {}
        for name, kept in self.tokens.items():
            ids = np.arange(len(kept))
            if self.options.renumber:
                numbers[name] = np.where(kept, np.cumsum(kept) - 1, 0)
                stands[name] = np.where(kept, ids, np.flatnonzero(kept)[0])
            elif self.options.rare.startswith("unk="):
                stands[name] = np.where(kept, ids, unknown_id(self.options.rare, kept))
        return stands, numbers

    def _warnings(self) -> tuple[str, ...]:
        kept = {name: int(np.count_nonzero(rows)) for name, rows in self.tokens.items()}
        return tuple(
            f"input '{name}': callers give numbers from 0 to {count - 1} now; the map is in the report"
            for name, count in kept.items()
            if self.options.renumber
        )


def _is_last(channels: Channels, node: Node) -> bool:
    """Tell whether a softmax runs over one axis: before opset 13 it takes all from `axis` on."""
    rank = len(channels.trace.shapes[node.outputs[0]])
    return node.version >= 13 or _softmax_axis(node) % rank == rank - 1


def _softmax_axis(node: Node) -> int:
    return int(node.attribute("axis", -1 if node.version >= 13 else 1))
