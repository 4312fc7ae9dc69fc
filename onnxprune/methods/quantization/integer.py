"""Dynamic and static int8 by onnxruntime's quantizers, on a prepared model with known ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import onnx

from onnxprune.errors import ModelError
from onnxprune.graph.initializers import add_to, free_name
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import captured_names, sort_nodes
from onnxprune.methods.quantization.machine import IntegerTypes
from onnxprune.methods.quantization.native import only, quant_type, quiet, types_known, with_own_ranges
from onnxprune.methods.quantization.normal_form import keep_domains
from onnxprune.methods.quantization.quick import quick
from onnxprune.methods.quantization.recognise import nodes
from onnxprune.methods.quantization.tidy import read_floats
from onnxprune.operators.operator import operators

DYNAMIC_OPERATORS = (*(o.op_type for o in operators() if o.dynamic), "Gather", "EmbedLayerNormalization")
"""Conv stays out: onnxruntime's ConvInteger is several times slower than float."""

STATIC_OPERATORS = (
    "Conv Gemm MatMul Add Mul Concat MaxPool AveragePool GlobalAveragePool Relu Clip LeakyRelu Sigmoid Reshape "
    "Transpose Flatten Squeeze Unsqueeze Split Resize Pad Slice Gather"
).split()
"""What onnxruntime's CPU runs in 8 bits; norms and softmax stay float, as they would be dequantized again."""

MOVES = frozenset(
    "Reshape Transpose Flatten Squeeze Unsqueeze Slice Resize Pad MaxPool Expand Tile Gather Split Identity".split()
)
"""What gives its input on, in other places."""

CLAMPS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True)
class Integers:
    """How a model is quantized to integers."""

    types: IntegerTypes
    per_channel: bool = True
    symmetric: bool = False
    form: str = "qdq"


def clamped(proto: onnx.ModelProto, operators: Collection[str], left: Collection[str]) -> dict[str, str]:
    """Return tensors that only a Relu or Clip reads, each with what comes out: the quantizer gives them its range.

    They need not be observed, which lets onnxruntime fuse the Relu with the layer before it.
    """
    uses = Counter(name for node in nodes(proto.graph) for name in node.input)
    uses.update(value.name for value in proto.graph.output)
    fixed = captured_names(proto.graph)
    clamps = [n for n in proto.graph.node if n.op_type in CLAMPS and n.op_type in operators and n.name not in left]
    found = {n.input[0]: n.output[0] for n in clamps if uses[n.input[0]] == 1 and n.input[0] not in fixed}

    def last(name: str) -> str:
        while name in found:
            name = found[name]
        return name

    return {name: last(name) for name in found}


def shown(proto: onnx.ModelProto, operators: Collection[str], left: Collection[str]) -> set[str]:
    """Return the names of Relu and Clip nodes whose input is read elsewhere too: integers must not take its range."""
    inner = clamped(proto, operators, left)
    return {n.name for n in proto.graph.node if n.op_type in CLAMPS and n.input[0] not in inner}


def quantize_dynamic(
    proto: onnx.ModelProto,
    how: Integers,
    operators: list[str],
    left: Collection[str],
    wide: frozenset[str] | None = None,
) -> onnx.ModelProto:
    """Return the model with weights in 8 bits and activations that are quantized as it runs.

    Args:
        proto: prepared, with types; it is copied.
        left: names of the nodes that stay float.
        wide: names of the nodes with one scale for all of their weight; None finds those that need it.
    """
    wide = wide_products(proto) - {*left} if wide is None and how.per_channel else wide or frozenset()
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    with quiet(), types_known(), only(operators):
        quantizer = ONNXQuantizer(
            _copy(proto),
            how.per_channel,
            how.types.reduce_range,
            QuantizationMode.IntegerOps,
            False,
            quant_type(how.types.weight),
            quant_type("u8"),
            None,
            [],
            [*left, *wide],
            operators,
            {"MatMulConstBOnly": True},
        )
        made = _run(quantizer, proto)
    if wide:  # one scale for a stack of matrices: the operator takes no scale for each column of each
        others = {node.name for node in made.graph.node if node.name not in wide}
        return quantize_dynamic(made, replace(how, per_channel=False), ["MatMul"], {*left, *others}, frozenset())
    return made


def wide_products(proto: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the MatMul nodes whose stored operand has three axes or more."""
    stored = {tensor.name for tensor in proto.graph.initializer if len(tensor.dims) > 2}
    return frozenset(node.name for node in proto.graph.node if node.op_type == "MatMul" and stored & {*node.input})


def odd_products(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the MatMul nodes with a stored vector: no matrix, and no operator of 8 bits takes it."""
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) < 2}
    return {node.name for node in graph.node if node.op_type == "MatMul" and vectors & {*node.input}}


def unshare_axes(proto: onnx.ModelProto, left: Collection[str]) -> onnx.ModelProto:
    """Return a model in which all layers that share a weight have their outputs on the same axis of it.

    Args:
        left: names of the nodes that stay float.
    """
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    first: dict[str, int] = {}
    others: dict[int, tuple[str, int]] = {}
    for place, node in enumerate(proto.graph.node):
        if node.op_type in ("MatMul", "Gemm") and node.name not in left and node.input[1] in stored:
            axis = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
            if first.setdefault(node.input[1], axis) != axis:
                others[place] = node.input[1], axis
    if not others:
        return proto
    copy, taken = _copy(proto), {*stored, *(name for node in proto.graph.node for name in node.output)}
    names: dict[tuple[str, int], str] = {}
    for place, (name, axis) in others.items():
        if (name, axis) not in names:
            names[name, axis] = free_name(f"{name}.{axis}", taken)
            add_to(copy.graph, names[name, axis], to_array(stored[name]))
        copy.graph.node[place].input[1] = names[name, axis]
    return copy


def quantize_static(
    proto: onnx.ModelProto, ranges: Any, how: Integers, operators: list[str], left: Collection[str]
) -> onnx.ModelProto:
    """Return the model with QuantizeLinear and DequantizeLinear around what runs in 8 bits, or with the operators that
    onnxruntime fuses these into (`how.form` "qoperator").

    Args:
        proto: prepared, with types; it is copied.
        ranges: of the activations, from `ranges.collect`.
        left: names of the nodes that stay float.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantizationMode
    from onnxruntime.quantization.calibrate import TensorsData  # up to 1.24 the package does not hand it on
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

    ranges = TensorsData(ranges.calibration_method, dict(ranges.items()))  # the quantizer writes into it
    if how.form == "qoperator":  # there a Relu is only the range of what it reads
        left = {*left, *shown(proto, operators, left)}
    wide = wide_products(proto) - {*left}
    if how.per_channel:
        proto = unshare_axes(proto, left)
    if how.form == "qoperator":
        left = {*left, *wide}
    extra: dict[str, Any] = {"ActivationSymmetric": how.symmetric, "WeightSymmetric": how.types.weight == "s8"}
    if wide and how.form != "qoperator":  # one scale for a stack of matrices, see `quantize_dynamic`
        stacks = {name for node in proto.graph.node if node.name in wide for name in node.input}
        stored = {tensor.name for tensor in proto.graph.initializer}
        extra["TensorQuantOverrides"] = {name: [{"symmetric": True}] for name in sorted(stacks & stored)}
    types = quant_type(how.types.weight), quant_type(how.types.activation)
    head = _copy(proto), how.per_channel, how.types.reduce_range
    tail: tuple[Any, ...] = (ranges, [], list(left), operators, extra)
    with quiet(), only(operators):
        if how.form == "qoperator":
            return _run(with_own_ranges(ONNXQuantizer)(*head, QuantizationMode.QLinearOps, True, *types, *tail), proto)
        made = _run(with_own_ranges(QDQQuantizer)(*head, *types, *tail), proto)
    _read_floats_before_bodies(made.graph)
    read_floats(made.graph, proto.graph, left)
    return made


def _read_floats_before_bodies(graph: onnx.GraphProto) -> None:
    """Let what only moves values towards the body of an If, Loop or Scan read them before they are rounded.

    onnxruntime moves a DequantizeLinear behind a Reshape, and ends the process where a body reads from that.
    """
    makers = {name: node for node in graph.node for name in node.output}
    todo, seen = [makers[name] for name in sorted(captured_names(graph)) if name in makers], set[str]()
    while todo:
        node = todo.pop()
        if node.op_type not in MOVES or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        source = makers.get(node.input[0])
        if source is not None and source.op_type == "DequantizeLinear":
            rounded = makers.get(source.input[0])
            if rounded is not None and rounded.op_type == "QuantizeLinear":
                node.input[0] = rounded.input[0]
                source = makers.get(node.input[0])
        if source is not None:
            todo.append(source)


def _run(quantizer: Any, source: onnx.ModelProto) -> onnx.ModelProto:
    try:
        with quick():
            quantizer.quantize_model()
    except Exception as error:  # the package raises whatever it meets
        raise ModelError(
            f"onnxruntime's quantizer fails on this model ({type(error).__name__}: {error}); keep what it names float "
            "with --skip."
        ) from error
    proto: onnx.ModelProto = quantizer.model.model
    keep_domains(proto.graph, source.graph)
    sort_nodes(proto.graph)  # the package's own sort knows nothing of what bodies read
    return proto


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy
