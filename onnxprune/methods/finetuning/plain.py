"""A quantized model written in float, with what is needed to round it again: what steps work on.

DequantizeLinear of stored integers becomes a stored float weight on a grid; MatMulNBits a product with one;
QuantizeLinear and DequantizeLinear of an activation a Clip to the range, which `compensate.rounding_gates` rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.compensate.lean import set_nodes
from onnxprune.compensate.rounding_gates import Gate
from onnxprune.errors import UsageError
from onnxprune.graph.embedded import embedded
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import to_array
from onnxprune.methods.finetuning.code_grid import CodeGrid, code_range, packed
from onnxprune.methods.quantization.recognise import INTEGER_OPERATORS, precision
from onnxprune.methods.quantization.unpack import along, codes_of
from onnxprune.types import Array

QUANTIZE, DEQUANTIZE, BLOCKS = "QuantizeLinear", "DequantizeLinear", "MatMulNBits"
STEM = "onnxprune.plain."


@dataclass(frozen=True, eq=False)
class Plain:
    """A model in float. grids: weight -> where it may stand. gates: activations that are rounded on the way."""

    model: Model
    grids: Mapping[str, CodeGrid]
    gates: tuple[Gate, ...] = ()


def plain_form(model: Model) -> Plain:
    """Return a model in float; one that is float already as it is.

    Raises:
        UsageError: it computes with integers in another way, or its weights are in half precision.
    """
    if not any(node.op_type in INTEGER_OPERATORS for node in model.proto.graph.node):
        kind = precision(model.proto)
        if kind in ("float16", "bfloat16"):
            raise UsageError(f"the compressed model has {kind} weights; finetune it first, then convert it.")
        return Plain(model, {})
    return _PlainWriter(model).run()


@dataclass(eq=False)
class _PlainWriter:
    """Writes the float form of a model, node by node."""

    model: Model
    grids: dict[str, CodeGrid] = field(default_factory=dict)
    gates: list[Gate] = field(default_factory=list)

    def run(self) -> Plain:
        proto = embedded(self.model)
        graph = self.graph = proto.graph
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.stored |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.open = {value.name for value in graph.output}
        nodes = [made for node in graph.node for made in self._written(node)]
        read = {name for node in nodes for name in node.input} | self.open
        kept = [node for node in nodes if node.op_type != QUANTIZE or node.output[0] in read]
        for node in kept:
            if node.op_type in INTEGER_OPERATORS:
                raise _refusal(node)
        set_nodes(proto, kept)
        return Plain(Model(proto), self.grids, tuple(self.gates))

    def _written(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.op_type == BLOCKS:
            yield from self._product(node)
        elif node.op_type == DEQUANTIZE:
            yield from self._dequantized(node)
        else:
            yield node

    def _dequantized(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        before = self.makers.get(node.input[0])
        if node.input[0] in self.stored:
            self._weight(node, node.input[0])
        elif before is not None and before.op_type == QUANTIZE and before.input[0] in self.stored:
            self._weight(node, before.input[0])
        elif before is not None and before.op_type == QUANTIZE:
            yield self._activation(before, node)
        else:
            raise _refusal(node)

    def _weight(self, node: onnx.NodeProto, stored: str) -> None:
        """Store a weight in float, on the grid of its node."""
        content = to_array(self.stored[stored])
        scale, zero, kind = self._grid(node, content.dtype)
        codes = code_range(kind)
        if codes is None or scale.dtype != np.float32:
            raise _refusal(node)
        attributes = {a.name: a.i for a in node.attribute}
        axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
        own, at = (along(part, content.shape, axis, block) for part in (scale, zero))
        is_float = content.dtype == np.float32
        grid = CodeGrid(stored, own, at, *codes, partial(np.asarray, dtype=kind))
        if is_float:  # a weight that the file keeps in float, and rounds when it runs
            grid = replace(grid, laid=grid.values)
        self._add(node.output[0], grid, grid.codes(content) if is_float else content.astype(np.float64))

    def _grid(self, node: onnx.NodeProto, kind: np.dtype[np.generic]) -> tuple[Array, Array, np.dtype[np.generic]]:
        """Return scale, zero point and type of the codes."""
        names = [*node.input[1:], ""]
        if any(name and name not in self.stored for name in names):
            raise UsageError(
                f"{node.op_type} '{node.name or node.output[0]}': its scale is computed; finetune keeps scales, so "
                "they must be stored."
            )
        scale = to_array(self.stored[names[0]])
        if not names[1]:
            whole = np.dtype(np.uint8) if kind.kind == "f" else kind
            return scale, np.zeros_like(scale, np.float64), whole
        zero = to_array(self.stored[names[1]])
        return scale, zero.astype(np.float64), zero.dtype

    def _activation(self, before: onnx.NodeProto, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return the Clip that stands for two nodes."""
        scale, zero, kind = self._grid(node, np.dtype(np.float32))
        codes, made = code_range(kind), node.output[0]
        if codes is None or scale.size != 1 or scale.dtype != np.float32:
            raise _refusal(node)
        stem = f"{STEM}{len(self.gates)}"
        low, high = ((code - float(zero.reshape(()))) * scale.reshape(()) for code in codes)
        for end, value in (("low", low), ("high", high)):
            self.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{stem}.{end}"))
        self.gates.append(_gate(before, node, stem, self.stored))
        return helper.make_node("Clip", [before.input[0], f"{stem}.low", f"{stem}.high"], [made])

    def _product(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Write a product with a matrix in blocks; sources of its inputs as onnxruntime's MatMulNBits says."""
        inputs = [*node.input, "", "", "", ""][:6]
        attributes = {a.name: a.i for a in node.attribute}
        bits, block, rows, columns = (attributes.get(name, 0) for name in ("bits", "block_size", "K", "N"))
        bits = bits or 4
        wanted = [name for name in inputs[1:4] if name]
        if inputs[4] or bits not in (2, 4, 8) or not block or any(name not in self.stored for name in wanted):
            raise _refusal(node)
        name = f"{inputs[1]}.{STEM}values"
        if name not in self.grids:
            codes = codes_of(to_array(self.stored[inputs[1]]), bits).reshape(columns, -1)
            scale = to_array(self.stored[inputs[2]]).reshape(columns, -1)
            if scale.dtype != np.float32:
                raise _refusal(node)
            zero = np.full(scale.shape, 2.0 ** (bits - 1))
            if inputs[3]:
                given = to_array(self.stored[inputs[3]])
                given = codes_of(given.reshape(columns, -1), bits) if given.dtype == np.uint8 else given
                zero = given.reshape(columns, -1)[:, : scale.shape[1]].astype(np.float64)
            own, at = (np.repeat(part, block, axis=1)[:, :rows].T for part in (scale, zero))
            shape = tuple(self.stored[inputs[1]].dims)
            laid = partial(_in_blocks, before=codes, bits=bits, shape=shape)
            self._add(name, CodeGrid(inputs[1], own, at, 0, 2**bits - 1, laid), codes[:, :rows].T.astype(np.float64))
        if inputs[5]:
            yield helper.make_node("MatMul", [inputs[0], name], [f"{node.output[0]}.{STEM}product"])
            yield helper.make_node("Add", [f"{node.output[0]}.{STEM}product", inputs[5]], [node.output[0]])
        else:
            yield helper.make_node("MatMul", [inputs[0], name], [node.output[0]])

    def _add(self, name: str, grid: CodeGrid, codes: Array) -> None:
        self.grids[name] = grid
        self.graph.initializer.append(numpy_helper.from_array(grid.values(codes), name))


def _in_blocks(codes: Array, before: Array, bits: int, shape: tuple[int, ...]) -> Array:
    """Return codes (inputs, outputs) as MatMulNBits has them; what fills the last block up stays as it was."""
    whole = before.copy()
    whole[:, : len(codes)] = codes.T
    return packed(whole.reshape(*shape[:2], -1), bits)


def _gate(before: onnx.NodeProto, node: onnx.NodeProto, stem: str, stored: Mapping[str, onnx.TensorProto]) -> Gate:
    """Return the two nodes with tensors of their own, since the graph around them is made anew."""
    parts, tensors = [], {}
    for number, old in enumerate((before, node)):
        copy = onnx.NodeProto()
        copy.CopyFrom(old)
        copy.name = ""
        for index in range(1, len(copy.input)):
            if copy.input[index]:
                tensors[f"{stem}.{number}.{index}"] = stored[copy.input[index]]
                copy.input[index] = f"{stem}.{number}.{index}"
        parts.append(copy)
    parts[0].output[0] = parts[1].input[0] = f"{stem}.codes"
    named = []
    for name, tensor in tensors.items():
        other = onnx.TensorProto()
        other.CopyFrom(tensor)
        other.name = name
        named.append(other)
    return Gate(node.output[0], tuple(parts), tuple(named))


def _refusal(node: onnx.NodeProto) -> UsageError:
    return UsageError(
        f"the compressed model computes with integers in {node.op_type} '{node.name or node.output[0]}', which steps "
        "cannot follow: finetune takes QuantizeLinear and DequantizeLinear with stored float32 scales (one for a whole "
        "activation) and MatMulNBits; or finetune the float model, then quantize it."
    )
