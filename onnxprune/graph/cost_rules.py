"""What running one node costs, from its shapes: rates of operators and a formula for each kind that contracts.

The rates are those of one core with AVX-512 and onnxruntime, one thread, measured by `benchmarks/cost_rates.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from onnxprune.graph.count import Shapes
from onnxprune.graph.view import Node
from onnxprune.operators.call import Shape
from onnxprune.operators.operator import Way, operator_of

CALL = 1.2e-6
"""Seconds that any node takes."""
MAC = 1 / 55e9
"""Of one multiply-add of a matrix product in float32."""
NANO = 1e-9

PATCH, WRITTEN = 0.4, 0.7
"""Nanoseconds for one number of the patches that a Conv gathers, and of what it gives, where it is not blocked."""
BLOCK, BLOCKED = 16, 0.5
"""A Conv over images with a constant weight runs on channels in blocks; nanoseconds for each number read or given."""
WEIGHT = 0.06
"""Nanoseconds to read one number of a matrix that is used by few rows."""
GATE, RECURRENCE = 1.5, 0.015
"""Nanoseconds for one number of a gate, and for one number of the recurrent weight in each step."""

_BY_RATE = {
    0.22: "Abs Neg Relu Clip Ceil Floor HardSigmoid Not Expand Tile Gather Slice Split",
    0.4: (
        "Add Sub Mul Max Min Sum LeakyRelu Exp Reciprocal ThresholdedRelu Sigmoid Tanh Sqrt Div QuickGelu "
        "BatchNormalization Mean"
    ),
    0.5: "QuantizeLinear DequantizeLinear DynamicQuantizeLinear",
    0.6: "Concat Pad Resize DepthToSpace SpaceToDepth Upsample",
    0.8: "Cast Where Greater Less Equal And Or PRelu Erf Elu Celu Transpose",
    0.9: "Softmax LogSoftmax",
    1.0: (
        "LayerNormalization RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization "
        "GroupNormalization InstanceNormalization LpNormalization"
    ),
    1.1: "Sign HardSwish Gelu Selu Swish FastGelu BiasGelu Mish Round",
    2.0: (
        "Log Sin Cos Pow Softsign OneHot IsNaN Mod GatherElements GatherND ScatterND ScatterElements CumSum TopK Trilu"
    ),
    11.0: "Softplus Tan Atan Asin Acos",
}
RATES: dict[str, float] = {name: rate for rate, names in _BY_RATE.items() for name in names.split()}
"""Operator -> nanoseconds for one number that it gives."""
FREE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size", "Constant", "Dropout"})
"""Operators that move nothing."""
OTHER = 0.6
"""Of an operator that is not listed, for each number that it gives or, if more, reads first."""
FUSED = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "BatchNormalization"})
"""Operators that onnxruntime computes within the Conv that they follow."""
LARGE, FAR = 1 << 20, 0.12
"""Tensors of more numbers leave the caches; nanoseconds more for each number of such a tensor."""
REDUCED, REDUCED_BADLY, REDUCED_AT_ENDS = 0.2, 1.5, 0.23
"""Of one number that a sum, mean or maximum reads: over neighbouring axes; over axes with others between them; over the
first and all last axes."""
POOLED = 0.9
"""Of one number that a pooling reads (or gives, if it gives more)."""

Rule = Callable[[Node, tuple[Shape, ...], Shape, bool], float]


def work(node: Node, shapes: Shapes, fixed: set[str]) -> float:
    """Return the predicted seconds of a node besides `CALL`; `fixed`: tensors that depend on no input."""
    sizes = (prod(shapes.get(name, ())) for name in (*node.inputs, *node.outputs) if name)
    return _near(node, shapes, fixed) + NANO * FAR * sum(size for size in sizes if size > LARGE)


def _near(node: Node, shapes: Shapes, fixed: set[str]) -> float:
    given = tuple(shapes.get(name, ()) if name else () for name in node.inputs)
    made = max((shapes.get(name, ()) for name in node.outputs if name), key=prod, default=())
    operator = operator_of(node)
    rule = WAYS[operator.way] if operator is not None and operator.way else RULES.get(node.op_type)
    if rule is not None:
        try:
            return rule(node, given, made, len(node.inputs) > 1 and node.inputs[1] in fixed)
        except (IndexError, ValueError, TypeError):  # a shape that is not known
            return 0.0
    numbers = sum(prod(shapes.get(name, ())) for name in node.outputs if name)
    rate = RATES.get(node.op_type)
    return NANO * (rate * numbers if rate is not None else OTHER * max(numbers, prod(given[0]) if given else 0))


def _conv(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """Blocks of channels where the weight is constant and the input an image, else patches and a matrix product."""
    x, weight = given[:2]
    groups, per_group, positions = int(node.attribute("group", 1)), weight[1], prod(made) // made[1]
    taps, channels = prod(weight[2:]), made[1]
    if constant and len(x) == 4 and _is_blocked(groups, per_group, x[1], channels):
        inner = _block(per_group) if per_group >= BLOCK else per_group
        macs = positions * _block(channels) * taps * inner
        return MAC * macs + NANO * BLOCKED * (prod(x) / 2 + prod(made) / 2)
    macs = prod((x[0], channels, taps, per_group)) * _block(positions // x[0])
    plain = taps == 1 and positions * x[1] == prod(x)
    patches = 0 if plain else positions * x[1] * taps
    return MAC * macs + NANO * (PATCH * patches + WRITTEN * prod(made))


def _is_blocked(groups: int, per_group: int, read: int, channels: int) -> bool:
    if groups == 1:
        return read < BLOCK or read % 4 == 0
    return per_group == 1 and groups == channels and channels % 4 == 0


def _block(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def _conv_transpose(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """A matrix product that gives patches, which are added up."""
    x, weight = given[:2]
    positions = prod(x) // x[1]
    patches = positions * prod(weight[1:]) * int(node.attribute("group", 1))
    return MAC * prod(x) * prod(weight[1:]) + NANO * (PATCH * patches + WRITTEN * prod(made))


def _product(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """Multiply-adds, what is read of the second matrix, and what is given."""
    a, b = given[:2]
    inner = a[0 if node.attribute("transA", 0) else -1] if node.op_type in ("Gemm", "FusedGemm") else a[-1]
    copied = 0.0 if constant else 0.3 * prod(b)
    gathered = 1.2 * prod(a) if node.attribute("transA", 0) else 0.0
    made_blocks = prod(made) // made[-1] * _block(made[-1])
    return MAC * made_blocks * inner + NANO * (WEIGHT * prod(b) + 0.25 * prod(made) + copied + gathered)


def _recurrent(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """Gates of every step and sample; the recurrent weight is read again in every step."""
    (steps, samples), weight, recurrent = given[0][:2], given[1], given[2]
    gates = steps * samples * weight[0] * weight[1]
    macs = steps * samples * (prod(weight) + prod(recurrent))
    return MAC * macs + NANO * (GATE * gates + RECURRENCE * steps * prod(recurrent)) + CALL / 2 * steps * weight[0]


def _reduce(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """Everything is read once; how fast depends on where the axes are."""
    x = given[0]
    kept = [axis for axis in range(len(x)) if axis < len(made) and made[axis] == x[axis] and x[axis] > 1]
    if not node.attribute("keepdims", 1):
        kept = _kept_axes(x, made)
    reduced = [axis for axis in range(len(x)) if axis not in kept and x[axis] > 1]
    runs = sum(1 for one, two in zip([-2, *reduced], reduced, strict=False) if two != one + 1)
    rate = REDUCED if runs <= 1 else REDUCED_AT_ENDS if reduced[-1] == len(x) - 1 else REDUCED_BADLY
    return NANO * rate * prod(x)


def _kept_axes(x: Shape, made: Shape) -> list[int]:
    """Return the axes of x that follow one another as those of what is made do."""
    kept, left = [], [size for size in made if size > 1]
    for axis in reversed(range(len(x))):
        if left and x[axis] == left[-1]:
            kept.append(axis)
            left.pop()
    return kept


def _pool(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """Every window is read."""
    return NANO * POOLED * max(prod(given[0]), prod(made))


def _global_pool(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """Everything is read once."""
    return NANO * 0.3 * prod(given[0])


def _attention(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """Scores of all positions with all positions, twice; `given[0]` is (batch, positions, width) or has heads too."""
    x = given[0]
    length, width = x[-2], prod(x) // x[-2] // x[0]
    packed = 3 * width if node.op_type == "Attention" and node.domain else 0
    macs = x[0] * length * width * (2 * length + packed)
    return 2 * MAC * macs


def _einsum(node: Node, given: tuple[Shape, ...], made: Shape, constant: bool) -> float:
    """At least every pair of numbers of the inputs that shares indices; taken for a batched product."""
    shared = min((size for size in given[0] if size > 1), default=1)
    return MAC * prod(made) * shared * 2 + NANO * sum(prod(shape) for shape in given)


WAYS: Mapping[Way, Rule] = {
    "convolution": _conv,
    "transposed convolution": _conv_transpose,
    "product": _product,
    "recurrence": _recurrent,
    "attention": _attention,
    "einsum": _einsum,
}
"""How an operator that computes with weights runs -> its formula."""
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceProd"), _reduce
    ),
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum", "ArgMax", "ArgMin"), _reduce),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
}
"""Other operators with a formula of their own."""
