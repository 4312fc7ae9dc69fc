"""How well the layers of a model fit a target: what is padding, what runs elsewhere, what waits for memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from onnxprune.graph.cost import fixed_tensors
from onnxprune.graph.count import macs, node_key
from onnxprune.graph.trace import Trace
from onnxprune.graph.view import Node, View
from onnxprune.hardware.target import Target
from onnxprune.operators.call import Shape
from onnxprune.operators.operator import Contraction, Operator, operator_of

BYTES = {"float32": 4, "float16": 2, "int8": 1}
TRANSPARENT = frozenset("Identity Cast DequantizeLinear QuantizeLinear Constant Shape".split())
"""What is not a unit's business: it is computed once, or part of how a tensor is stored."""


@dataclass(frozen=True)
class LayerFit:
    """One layer on a target.

    reads, writes: channels, within one of `groups`. run_reads, run_writes: what these run as.
    macs: multiply-adds that it is made for, of one run.
    padding: share of the work done that is padding, 0 to 1.
    good: the next widths of all written channels that suit the target, below and above; the width itself where it does.
    waits: memory decides its time, as far as the target says what it moves.
    """

    node: str
    operator: str
    reads: int
    writes: int
    groups: int
    run_reads: int
    run_writes: int
    macs: int
    good: tuple[int, ...]
    waits: bool

    @property
    def padding(self) -> float:
        """Share of the work that is done on padding."""
        return 1 - self.reads * self.writes / (self.run_reads * self.run_writes)

    @property
    def work(self) -> float:
        """Multiply-adds that are done, padding with them."""
        return self.macs / (1 - self.padding)

    def __str__(self) -> str:
        """Return the finding as a line."""
        if self.padding == 0:
            return f"{self.node}: waits for memory" if self.waits else f"{self.node}: fits"
        good = ", ".join(map(str, self.good))
        better = f"; next good widths {good}" if len(self.good) > 1 or self.good[0] != self.writes * self.groups else ""
        return f"{self.node}: {self._widths()} ({self.padding:.0%} of its work is padding){better}"

    def _widths(self) -> str:
        each = f" in each of {self.groups} groups" if self.groups > 1 else ""
        said = [f"{self.writes} channels{each} run as {self.run_writes}"] if self.run_writes != self.writes else []
        if self.run_reads != self.reads:
            said.append(f"{self.reads} that it reads{each if not said else ''} as {self.run_reads}")
        return ", ".join(said)


@dataclass(frozen=True)
class TargetFit:
    """A model on a target.

    layers: that compute with weights, in the order of the graph. elsewhere: node -> why the target does not run it.
    """

    target: Target
    precision: str
    layers: tuple[LayerFit, ...]
    elsewhere: dict[str, str]

    @property
    def padding(self) -> float:
        """Share of all multiply-adds that is padding."""
        done = sum(layer.work for layer in self.layers)
        return 1 - sum(layer.macs for layer in self.layers) / done if done else 0.0


def fit(view: View, traced: Trace, target: Target, precision: str) -> TargetFit:
    """Return how a model fits a target.

    Args:
        precision: numbers that it computes in.
    """
    counted, fixed = macs(view, traced.shapes), fixed_tensors(view)
    layers, elsewhere = [], {}
    for node in view.nodes:
        if node.op_type in TRANSPARENT or all(key in fixed for key in node.outputs if key):
            continue
        why = _elsewhere(node, traced, target)
        found = _layer(node, traced, fixed, counted, target, precision)
        if found is not None:
            layers.append(found)
            total = found.writes * found.groups
            if not why and target.odd == "refused" and total not in found.good:
                why = f"{total} channels are no multiple of {target.multiple[precision][-1][1]}"
        if why:
            elsewhere[node_key(node)] = f"{node.op_type}: {why}"
    return TargetFit(target, precision, tuple(layers), elsewhere)


def _layer(
    node: Node, traced: Trace, fixed: set[str], counted: dict[str, int], target: Target, precision: str
) -> LayerFit | None:
    operator = operator_of(node)
    meeting = _meeting(node, operator, traced, fixed) if operator is not None else None
    if operator is None or meeting is None:
        return None
    transposed = operator.way == "transposed convolution"
    weight, groups = traced.shapes[node.inputs[meeting.weight]], meeting.groups
    reads, writes = weight[meeting.reads], weight[meeting.writes] // max(1, operator.gates)
    reads, writes = (reads // groups, writes) if transposed else (reads, writes // groups)
    total, depthwise = writes * groups, reads == 1 and groups > 1
    if depthwise:
        writes, groups = total, 1  # its channels lie side by side in one row
    first, second = target.tile(precision, "convolution" if transposed else operator.way or "product")
    is_narrow = depthwise or (target.narrow == "any" and reads < first)
    amount, multiple = counted.get(node_key(node), 0), target.multiple[precision][-1][1]
    around = (total // multiple * multiple, _up(total, multiple))
    return LayerFit(
        node_key(node),
        node.op_type,
        reads,
        writes,
        groups,
        reads if is_narrow else _up(reads, first),
        _up(writes, second),
        amount,
        tuple(width for width in dict.fromkeys(around) if width),
        _waits(node, traced, amount, target, precision),
    )


def _meeting(node: Node, operator: Operator, traced: Trace, fixed: set[str]) -> Contraction | None:
    """Return which axes of a stored weight meet and are written, where that is known."""
    for contraction in operator.contractions(node.attributes):
        if contraction.weight < len(node.inputs) and contraction.data >= 0:
            key = node.inputs[contraction.weight]
            if key in fixed and len(traced.shapes.get(key, ())) > 1:
                return contraction
    return None


def _waits(node: Node, traced: Trace, amount: int, target: Target, precision: str) -> bool:
    """Tell whether it takes longer to move what a node reads and writes than to compute with it."""
    balance = target.balance.get(precision)
    if balance is None or not amount:
        return False
    shapes = [traced.shapes[key] for key in (*node.inputs, *node.outputs) if key in traced.shapes]
    moved: int = BYTES[precision] * sum(prod(shape) for shape in shapes)
    return moved > target.cache and amount < balance * moved


def _elsewhere(node: Node, traced: Trace, target: Target) -> str:
    """Return why a target does not run a node; nothing where it does, as far as its row says."""
    if node.op_type in target.lacks:
        return "the target has no such operator"
    ranks = [len(traced.shapes[key]) for key in (*node.inputs, *node.outputs) if key in traced.shapes]
    if target.rank is not None and max(ranks, default=0) > target.rank:
        return f"tensors of {max(ranks)} axes, {target.rank} are the most"
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 2:
        return ""
    weight: Shape | None = traced.shapes.get(node.inputs[1])
    groups = int(node.attribute("group", 1))
    if weight is None:
        return ""
    if target.kernel is not None and max(weight[2:], default=0) > target.kernel:
        return f"a kernel of {'x'.join(map(str, weight[2:]))}, {target.kernel} is the most"
    if groups > 1 and (target.groups == "none" or (target.groups == "depthwise" and weight[1] != 1)):
        return f"a convolution in {groups} groups"
    return ""


def _up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple
