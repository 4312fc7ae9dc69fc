"""What an output is: scores over classes, labels, values, a state that is fed back, or a sorted list.

The graph decides where it can; where it leaves two readings open the original's own values do (`classes.py`). A name
helps only there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnx import TensorProto

from onnxprune.graph.trace import Shape, Trace
from onnxprune.graph.view import Node, View
from onnxprune.operators.operator import operator_of

SCORES, LABELS, VALUES, STATE, SORTED = "scores", "labels", "values", "state", "sorted"

CARRIERS = frozenset("Identity Cast Reshape Flatten Squeeze Unsqueeze Transpose Dropout Slice Split Resize".split())
"""Operators that hand values on: what is before them says what an output is."""
AVERAGES = frozenset("ReduceMean ReduceMax GlobalAveragePool GlobalMaxPool".split())
SORTS = frozenset("TopK NonMaxSuppression Unique NonZero".split())
"""Operators after which positions no longer mean the same thing in two models."""
ROUNDS = frozenset("QuantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger".split())
"""Operators that make integers which are numbers."""
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
SCORE_WORDS = frozenset("logit logits prob probs probability probabilities score scores class classes cls".split())
VALUE_WORDS = frozenset(
    "emb embed embedding embeddings feat feature features box boxes bbox bboxes landmark landmarks keypoints loc locs "
    "mask masks hidden wave waveform audio mel flow depth vector points".split()
)
STATE_WORDS = re.compile(r"in|out|input|output|new|next|prev|past|present|n|t|o|i|\d+|")
VOCABULARY = 4
"""A product without bias to at least so many times its inputs gives scores over a vocabulary."""
WIDTH = 32
"""Embeddings are as wide as a multiple of this; numbers of classes seldom are."""


@dataclass(frozen=True)
class Kind:
    """What an output is.

    axis: of the classes, for scores.
    squash: "softmax", "log" (of a softmax) or "sigmoid" where values are probabilities.
    sure: False where the original's values decide whether these are scores.
    """

    name: str
    axis: int | None = None
    squash: str | None = None
    sure: bool = True


def output_kinds(view: View, trace: Trace) -> dict[str, Kind]:
    """Return what every output of the graph is."""
    behind = behind_sorts(view)
    return {name: _kind(name, view, trace, behind) for name in view.outputs}


def behind_sorts(view: View) -> set[str]:
    """Return every tensor that follows a sort of something computed with weights."""
    computed, reached = set[str](), set[str]()
    for node in view.nodes:
        if node.op_type in ("Shape", "Size"):
            continue
        inputs = {key for key in (*node.inputs, *node.captured, *sum(node.branches, ())) if key}
        if inputs & computed or any(len(view.parameters[key].dims) > 1 for key in inputs if key in view.parameters):
            computed.update(node.outputs)
            if inputs & reached or node.op_type in SORTS:
                reached.update(node.outputs)
    return reached


def _kind(name: str, view: View, trace: Trace, behind: set[str]) -> Kind:
    if name in behind:
        return Kind(SORTED)
    if name in trace.shapes and trace.data_type(name) not in FLOATS:
        return Kind(VALUES if _is_rounded(name, view, trace) else LABELS)
    if is_state(name, view, trace):
        return Kind(STATE)
    return _named(name, _computed(name, view, trace))


def _is_rounded(name: str, view: View, trace: Trace) -> bool:
    """Tell whether integers are numbers that were rounded (pixels, quantized values), not ids or yes and no."""
    if trace.data_type(name) == TensorProto.BOOL:
        return False
    key = name_at(view, name)
    node = view.producers.get(key)
    return (node is not None and node.op_type in ROUNDS) or (key in trace.shapes and trace.data_type(key) in FLOATS)


def _named(name: str, kind: Kind) -> Kind:
    """Let the name decide what the graph leaves open."""
    if kind.sure:
        return kind
    words = set(re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
    if words & VALUE_WORDS:
        return Kind(VALUES)
    return replace(kind, sure=True) if words & SCORE_WORDS else kind


def is_state(name: str, view: View, trace: Trace) -> bool:
    """Tell whether an output is fed back: the last state of a recurrent layer, a cache, or an input's twin."""
    node = _source(name, view)
    if node is not None and _is_recurrent(node) and name_at(view, name) in node.outputs[1:]:
        return True
    if node is not None and node.op_type == "Concat" and any(_from_input(key, view) for key in node.inputs):
        return len(view.inputs) > 1 and len(view.outputs) > 1
    if len(view.inputs) < 2 or len(view.outputs) < 2 or name not in trace.shapes:
        return False
    stem = _stem(name)
    return any(
        _may_be_alike(key, name, view, trace) and trace.data_type(key) == trace.data_type(name)
        for key in view.inputs
        if key in trace.shapes and _stem(key) == stem
    )


def _may_be_alike(one: str, two: str, view: View, trace: Trace) -> bool:
    """Tell whether shapes are equal; a size that the file leaves open may be inferred wrongly."""
    if trace.shapes[one] == trace.shapes[two]:
        return True
    ones, others = _declared_sizes(one, view), _declared_sizes(two, view)
    return 0 < len(ones) == len(others) and all(None in (a, b) or a == b for a, b in zip(ones, others, strict=True))


def _declared_sizes(key: str, view: View) -> list[int | None]:
    declared = view.inputs[key].type if key in view.inputs else view.declared.get(key)
    sizes = declared.tensor_type.shape.dim if declared is not None else ()
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in sizes]


def _is_recurrent(node: Node) -> bool:
    operator = operator_of(node)
    return operator is not None and operator.gates > 0


def _stem(name: str) -> str:
    """Return a name without what tells input from output: `stateN` and `state`, `h_in` and `h_out` are one."""
    parts = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    stems = [re.sub(r"\d+$|(?<=[a-z])(?:in|out|n)$", "", part) for part in re.split(r"[^a-z0-9]+", parts)]
    return "_".join(part for part in stems if not STATE_WORDS.fullmatch(part)) or name


def name_at(view: View, name: str) -> str:
    """Return the tensor that an output is, before everything that only hands it on (of an If, in its first branch)."""
    node = view.producers.get(name)
    while node is not None:
        if node.op_type == "If" and node.branches:
            name = node.branches[0][node.outputs.index(name)]
        elif node.op_type in CARRIERS and node.inputs and node.inputs[0]:
            name = node.inputs[0]
        else:
            break
        node = view.producers.get(name)
    return name


def _source(name: str, view: View) -> Node | None:
    return view.producers.get(name_at(view, name))


def _from_input(key: str, view: View) -> bool:
    return bool(key) and name_at(view, key) in view.inputs


def _computed(name: str, view: View, trace: Trace) -> Kind:
    shape = trace.shapes.get(name)
    key = name_at(view, name)
    node = view.producers.get(key)
    if node is None or shape is None or not shape:
        return Kind(VALUES)
    if node.op_type in ("Softmax", "LogSoftmax", "Hardmax") or _is_written_out_softmax(node, view):
        return _softmax(node, shape, view, trace)
    if node.op_type in AVERAGES and (inner := _source(node.inputs[0], view)) is not None:
        return Kind(VALUES, squash="sigmoid" if inner.op_type == "Sigmoid" else None)
    if node.op_type == "Sigmoid":
        head = _head(node.inputs[0], view)
        axis = _class_axis(shape, shape[-1])
        if len(shape) == 2 and axis is not None and head is not None:
            return Kind(SCORES, axis, "sigmoid")
        return Kind(VALUES, squash="sigmoid")
    head = _head(key, view)
    return Kind(VALUES) if head is None else _linear(head, shape, view, trace)


def _softmax(node: Node, shape: Shape, view: View, trace: Trace) -> Kind:
    squash = "log" if node.op_type == "LogSoftmax" else "softmax"
    inner = trace.shapes.get(node.outputs[0], shape)
    written = node.op_type == "Div"
    default = -1 if written or node.version >= 13 else 1
    at = node.attribute("axis", default) % len(inner)
    axis = at if inner == shape else _class_axis(shape, inner[at])
    source = _head(_exponent(node, view) if written else node.inputs[0], view, any_product=True)
    if axis is None or (source is not None and _is_attention(source, view)):
        return Kind(VALUES, squash=squash)
    return Kind(SCORES, axis, squash)


def _is_attention(node: Node, view: View) -> bool:
    """Tell a product of two computed tensors over heads (its softmax is a map of weights, not of classes)."""
    return node.op_type == "MatMul" and not any(_is_weight(view, key) for key in node.inputs)


def _linear(head: Node, shape: Shape, view: View, trace: Trace) -> Kind:
    """Scores may come from a product with weights to N; whether they do is open."""
    size, reads = _sizes(head, view)
    if head.op_type in ("Conv", "ConvTranspose"):
        axis = _class_axis(shape, size, prefer=1)
        if len(shape) >= 4 and any(len(s) == 4 and size in (s[1], s[3]) for s in _input_shapes(view, trace)):
            return Kind(VALUES)
        return Kind(VALUES) if axis is None else Kind(SCORES, axis, sure=False)
    axis = _class_axis(shape, size)
    if axis is None or (not _has_bias(head, view) and size % WIDTH == 0 and size < VOCABULARY * reads):
        return Kind(VALUES)
    return Kind(SCORES, axis, sure=False)


def _input_shapes(view: View, trace: Trace) -> Iterator[Shape]:
    return (trace.shapes[key] for key in view.inputs if key in trace.shapes)


def _class_axis(shape: Shape, size: int, prefer: int = -1) -> int | None:
    """Return the axis of so many classes; None for a single class, or where there is no such axis."""
    if size < 2:
        return None
    order = [prefer % len(shape), len(shape) - 1, *range(1, len(shape))]
    return next((axis for axis in order if shape[axis] == size), None)


def _head(key: str, view: View, any_product: bool = False) -> Node | None:
    """Return the product with weights that a tensor is, up to a bias, a scale and what hands it on."""
    for _ in range(16):
        key = name_at(view, key)
        node = view.producers.get(key)
        if node is None:
            return None
        if node.op_type in ("Gemm", "Conv", "ConvTranspose", "MatMul", "FusedMatMul"):
            weighted = any(_is_weight(view, k) for k in node.inputs[:2])
            return node if weighted or any_product else None
        if node.op_type not in ("Add", "Sub", "Mul", "Div", "DequantizeLinear", "QuantizeLinear"):
            return None
        computed = [k for k in node.inputs if k and k not in view.constants]
        if len(computed) != 1:
            return None
        key = computed[0]
    return None


def _is_weight(view: View, key: str) -> bool:
    return key in view.constants


def _sizes(head: Node, view: View) -> tuple[int, int]:
    """Return how many values a product gives and reads for one position; zeros where that cannot be read."""
    key = next((k for k in (head.inputs[1], head.inputs[0]) if _is_weight(view, k)), "")
    while key not in view.parameters and key in view.producers:
        key = view.producers[key].inputs[0]
    dims = view.parameters[key].dims if key in view.parameters else ()
    if len(dims) < 2:
        return 0, 1
    if head.op_type == "Conv":
        return dims[0], dims[1]
    if head.op_type == "ConvTranspose":
        return dims[1] * head.attribute("group", 1), dims[0]
    maker = view.producers.get(head.inputs[1])
    turned = bool(head.attribute("transB", 0)) != (maker is not None and maker.op_type == "Transpose")
    return (dims[0], dims[1]) if turned else (dims[-1], dims[-2])


def _has_bias(head: Node, view: View) -> bool:
    if head.op_type == "Gemm":
        return head.has_input(2)
    readers = view.readers.get(head.outputs[0], [])
    return any(node.op_type == "Add" for node, _ in readers)


def _is_written_out_softmax(node: Node, view: View) -> bool:
    """Tell exp(x) / sum(exp(x)) in single operators."""
    if node.op_type != "Div":
        return False
    top, bottom = _source(node.inputs[0], view), view.producers.get(node.inputs[1])
    while bottom is not None and (bottom.op_type == "Expand" or bottom.op_type in CARRIERS):
        bottom = view.producers.get(bottom.inputs[0])
    if top is None or bottom is None or top.op_type != "Exp" or bottom.op_type != "ReduceSum":
        return False
    return name_at(view, bottom.inputs[0]) == top.outputs[0]


def _exponent(node: Node, view: View) -> str:
    """Return x of a written-out softmax, before its maximum is subtracted."""
    raised = _source(node.inputs[0], view)
    key = raised.inputs[0] if raised is not None else node.inputs[0]
    shifted = view.producers.get(key)
    return shifted.inputs[0] if shifted is not None and shifted.op_type == "Sub" else key
