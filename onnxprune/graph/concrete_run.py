"""One run of the trace: every tensor's shape, and the values of all shape arithmetic, for one assignment of sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, defs, numpy_helper, shape_inference

from onnxprune.graph.conflicts import Clash, conflict
from onnxprune.graph.contrib_shapes import contrib_shapes, contrib_type
from onnxprune.graph.expression import expression_value
from onnxprune.graph.fold import evaluate, shape_value
from onnxprune.graph.loops import entering, leaving
from onnxprune.graph.sizes import FLOAT_TYPES, axis_symbols, size_of
from onnxprune.graph.view import Node, View
from onnxprune.types import Array

MAX_FOLDED = 1 << 16
"""Tensors with more elements are not evaluated."""

MAX_DATA = 1024
"""Values of more elements are not handed to the inference of a node."""
SCALED = ("Resize", "Upsample")

Shape = tuple[int, ...]
NEVER_FOLDED = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
    | {"If", "Loop", "Scan", "Constant", "QuantizeLinear", "DequantizeLinear"}
)


@dataclass(frozen=True, eq=False)
class ConcreteRun:
    """What one assignment of sizes gives.

    failures: tensor -> why its shape is not known, or does not go with what it is made of.
    clashes: where sizes do not go together, in the order of the graph.
    guessed: tensors of which an operator leaves a size open, so that it was made up here.
    closed: loops (by `id`) of whose body nothing is known, because what it takes is not.
    """

    sizes: dict[str, int]
    types: dict[str, TypeProto]
    shapes: dict[str, Shape]
    values: dict[str, Array]
    failures: dict[str, str]
    clashes: list[Clash]
    guessed: set[str] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)

    @property
    def largest(self) -> int:
        """Elements of the largest tensor."""
        return max(map(prod, set(self.shapes.values())), default=0)


def run(view: View, sizes: dict[str, int], base: ConcreteRun | None = None) -> ConcreteRun:
    """Infer every tensor of a view for one assignment of symbol sizes.

    Args:
        base: another run, from which everything is taken that does not depend on the sizes.
    """
    result = ConcreteRun(dict(sizes), {}, {}, {}, {}, [])
    walker = _Walker(view, result, base)
    for key, parameter in view.parameters.items():
        if base is not None:
            walker.copy_from(base, key)
            continue
        walker.set_type(key, parameter.data_type, parameter.dims)
        if _is_foldable_constant(parameter.data_type, parameter.elements):
            result.values[key] = view.content(key)
    for sparse in view.model.proto.graph.sparse_initializer:
        if sparse.values.name not in view.parameters:
            walker.set_type(sparse.values.name, sparse.values.data_type, tuple(sparse.dims))
    for key, value in view.inputs.items():
        if value.type.WhichOneof("value") == "tensor_type":
            symbols = axis_symbols(view, key)
            if value.type.tensor_type.HasField("shape"):
                shape = tuple(size_of(s, sizes) if isinstance(s, str) else s for s in symbols)
                walker.set_type(key, value.type.tensor_type.elem_type, shape)
    for node in view.in_turn(walker.enter):
        walker.visit(node)
    return result


def _is_foldable_constant(data_type: int, elements: int) -> bool:
    if data_type in FLOAT_TYPES:
        return elements == 1
    return data_type in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL) and elements <= MAX_FOLDED


class _Walker:
    """Visits nodes in order and fills a Run."""

    def __init__(self, view: View, result: ConcreteRun, base: ConcreteRun | None) -> None:
        self.view = view
        self.run = result
        self.base = base
        self.settled: set[str] = set()
        self.open: set[str] = set()
        self.opsets = list(view.model.proto.opset_import)
        self.schemas: dict[tuple[str, str, int], Any] = {}
        self.protos: dict[tuple[int, Shape], TypeProto] = {}
        self.known: dict[tuple[object, ...], list[TypeProto | None]] = {}
        self.held: list[TypeProto] = []
        self.whole: dict[int, tuple[int, Shape]] = {}

    def set_type(self, key: str, data_type: int, shape: Shape) -> None:
        found = (data_type, tuple(shape))
        if found not in self.protos:
            proto = self.protos[found] = TypeProto()
            proto.tensor_type.elem_type = data_type
            proto.tensor_type.shape.SetInParent()
            for dim in shape:
                proto.tensor_type.shape.dim.add().dim_value = dim
        self.run.types[key] = self.protos[found]
        self.run.shapes[key] = found[1]

    def copy_from(self, base: ConcreteRun, key: str) -> None:
        """Take what another run found about a tensor."""
        for own, other in (
            (self.run.types, base.types),
            (self.run.shapes, base.shapes),
            (self.run.values, base.values),
            (self.run.failures, base.failures),
        ):
            if key in other:
                own[key] = other[key]  # type: ignore[assignment]  # both tables map the same key

    def _is_settled(self, node: Node) -> bool:
        """Tell whether the other run saw the same inputs, so that its outputs hold here too."""
        if self.base is None or node.branches or node.captured or node.body or not node.inputs:
            return False
        base, own = self.base, self.run
        return all(
            key in own.shapes
            and own.shapes[key] == base.shapes.get(key)
            and own.values.get(key) is base.values.get(key)
            and (key in own.values or key in self.view.parameters or key in self.settled)
            for key in node.inputs
            if key
        )

    def visit(self, node: Node) -> None:
        if self.base is not None and self._is_settled(node):
            for key in node.outputs:
                if key:
                    self.copy_from(self.base, key)
                    self.settled.add(key)
            return
        if self._fold(node):
            return
        if node.op_type == "If" and not node.domain:
            self._merge_branches(node)
            return
        if node.body is not None and id(node) not in self.run.closed:
            self._leave(node)
            return
        inferred = self._infer(node)
        if node.op_type == "Loop" and not node.domain:
            inferred = {**self._carried(node), **{key: kind for key, kind in inferred.items() if _has_shape(kind)}}
        for output, key in zip(node.proto.output, node.outputs, strict=True):
            if key:
                self._accept(key, inferred.get(output), node)
        self._compare(node)

    def enter(self, node: Node) -> bool:
        """Give the inputs of a body their types, of one turn of the loop; tell whether they are known."""
        types = entering(node, self.run)
        if types is None or node.body is None:
            self.run.closed.add(id(node))
            return False
        for key, given in zip(node.body.inputs, types, strict=True):
            self.set_type(key, *given)
        return True

    def _leave(self, node: Node) -> None:
        """Give a loop the types of what its body gives after all turns; a size that grows is made up."""
        for key, given in zip(node.outputs, leaving(node, self.run, self.made_up), strict=True):
            if key and given is not None:
                self.set_type(key, *given)
                if self.made_up in given[1]:
                    self.run.guessed.add(key)
            elif key:
                self._accept(key, None, node)

    def _compare(self, node: Node) -> None:
        """Note sizes that do not go together; of those that depend on data, nothing is known."""
        if not self.open.isdisjoint(node.inputs):
            self.open.update(key for key in node.outputs if key not in self.run.values)
            return
        try:
            clash = conflict(node, self.run.shapes, self.run.values)
        except (ValueError, IndexError):  # an attribute or input of no meaning: others say so
            return
        if clash is not None:
            self.run.failures.setdefault(node.outputs[0], f"{node.label}: {clash}")
            self._note_clash(node)

    def _note_clash(self, node: Node) -> None:
        shapes = {key: self.run.shapes[key] for key in node.inputs if key in self.run.shapes}
        values = {key: self.run.values[key] for key in node.inputs if key in self.run.values}
        self.run.clashes.append(Clash(node, shapes, values))

    def _accept(self, key: str, inferred: TypeProto | None, node: Node) -> None:
        if id(inferred) in self.whole:
            self.set_type(key, *self.whole[id(inferred)])
            return
        declared = self.view.declared.get(key)
        if inferred is None or not _has_shape(inferred):
            inferred = declared if declared is not None and _has_shape(declared) else inferred
        if inferred is None or not _has_shape(inferred):
            if inferred is not None:
                self.run.types[key] = inferred
                self.held.append(inferred)
            self.run.failures.setdefault(key, f"{node.label}: the shape of its output is unknown")
            return
        shape = [self._dimension(dim, key) for dim in inferred.tensor_type.shape.dim]
        self.set_type(key, inferred.tensor_type.elem_type, tuple(shape))

    def _dimension(self, dim: onnx.TensorShapeProto.Dimension, key: str) -> int:
        """A size that inference leaves open is dynamic: it differs between runs."""
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return int(dim.dim_value)
        known = expression_value(dim.dim_param, self.run.sizes) if dim.dim_param else None
        if known is not None:
            return known
        self.open.add(key)
        self.run.guessed.add(key)
        return self.made_up

    @property
    def made_up(self) -> int:
        """A size that stands for one that inference leaves open."""
        return 19 + self.run.sizes.get("", 0)

    def _infer(self, node: Node) -> dict[str, TypeProto]:
        schema = None if node.domain else self._schema(node)
        if schema is None or not schema.has_type_and_shape_inference_function:
            return self._infer_contrib(node)
        if node.op_type == "Squeeze" and not node.has_input(1) and node.attribute("axes") is None:
            return self._squeezed(node)
        signature = self._signature(node)
        if signature is not None and signature in self.known:
            outputs = zip(node.proto.output, self.known[signature], strict=True)
            return {output: kind for output, kind in outputs if kind is not None}
        inferred = self._infer_alone(node, schema)
        if signature is not None and inferred:
            found = self.known[signature] = [inferred.get(output) for output in node.proto.output]
            self.whole |= {id(kind): whole for kind in found if kind is not None and (whole := _whole(kind))}
        return inferred

    def _signature(self, node: Node) -> tuple[object, ...] | None:
        """Return what the inference of a node depends on: layers repeat it. None where that is more than its inputs."""
        if node.branches or node.captured or node.body is not None or node.op_type in ("Loop", "Scan", *SCALED):
            return None
        run = self.run
        kinds = tuple(id(run.types.get(key)) if key else 0 for key in node.inputs)
        values = tuple(
            (value.dtype.char, value.shape, value.tobytes())
            for key in node.inputs
            if (value := run.values.get(key)) is not None and value.size <= MAX_DATA
        )
        which = tuple(key in run.values for key in node.inputs)
        shown = tuple(map(bool, node.outputs))
        attributes = tuple(sorted(attribute.SerializeToString() for attribute in node.proto.attribute))
        return node.op_type, node.version, node.domain, kinds, which, values, shown, attributes

    def _infer_alone(self, node: Node, schema: defs.OpSchema) -> dict[str, TypeProto]:
        types = {
            n: self.run.types[k] for n, k in zip(node.proto.input, node.inputs, strict=True) if k in self.run.types
        }
        data = {
            n: numpy_helper.from_array(self.run.values[k])
            for n, k in zip(node.proto.input, node.inputs, strict=True)
            if k in self.run.values and self.run.values[k].size <= MAX_DATA
        }
        if node.op_type in SCALED:
            data |= self._scales(node)
        try:
            return dict(
                shape_inference.infer_node_outputs(
                    schema, node.proto, types, input_data=data, opset_imports=self.opsets
                )
            )
        except Exception as error:  # the binding raises several unrelated types
            self.run.failures[node.outputs[0]] = f"{node.label}: {str(error).splitlines()[0]}"
            if self.open.isdisjoint(node.inputs):
                self._note_clash(node)
            return {}

    def _infer_contrib(self, node: Node) -> dict[str, TypeProto]:
        types = [self.run.types[k].tensor_type.elem_type if k in self.run.types else 0 for k in node.inputs]
        shapes = contrib_shapes(node, [self.run.shapes.get(k) for k in node.inputs])
        data_type = contrib_type(node, types)
        return {
            output: onnx.helper.make_tensor_type_proto(data_type, shape)
            for output, shape in zip(node.proto.output, shapes, strict=False)
            if output and shape is not None
        }

    def _squeezed(self, node: Node) -> dict[str, TypeProto]:
        """A Squeeze without axes drops what has size 1 here; onnx leaves that open."""
        shape, known = self.run.shapes.get(node.inputs[0]), self.run.types.get(node.inputs[0])
        if shape is None or known is None:
            return {}
        left = [size for size in shape if size != 1]
        return {node.proto.output[0]: onnx.helper.make_tensor_type_proto(known.tensor_type.elem_type, left)}

    def _carried(self, node: Node) -> dict[str, TypeProto]:
        """A state of a Loop keeps its shape where the body declares the same sizes before and after.

        onnx compares names with numbers there and leaves it open.
        """
        body = next((a.g for a in node.proto.attribute if a.name == "body"), None)
        if body is None:
            return {}
        states = zip(node.inputs[2:], body.input[2:], body.output[1:], node.proto.output, strict=False)
        return {
            output: self.run.types[key]
            for key, before, after, output in states
            if output and key in self.run.shapes and _declares_the_same(before, after)
        }

    def _scales(self, node: Node) -> dict[str, TensorProto]:
        """Stored scales are floats, which are not folded elsewhere, but decide the size here."""
        stored = {}
        for name, key in zip(node.proto.input, node.inputs, strict=True):
            parameter = self.view.parameters.get(self.view.root(key)) if key else None
            if parameter is not None and parameter.elements <= 8:
                stored[name] = numpy_helper.from_array(self.view.model.array(parameter.tensor))
        return stored

    def _schema(self, node: Node) -> Any:
        key = (node.op_type, node.domain, node.version)
        if key not in self.schemas:
            try:
                self.schemas[key] = defs.get_schema(node.op_type, node.version, node.domain)
            except defs.SchemaError:
                self.schemas[key] = None
        return self.schemas[key]

    def _merge_branches(self, node: Node) -> None:
        chosen = self.run.values.get(node.inputs[0])
        bodies = {"then_branch": 0, "else_branch": 1}
        order = [a.name for a in node.proto.attribute if a.name in bodies]
        pick = "then_branch" if chosen is None or bool(np.all(chosen)) else "else_branch"
        sources = [node.branches[order.index(pick)]] + [node.branches[order.index(n)] for n in order if n != pick]
        for number, key in enumerate(node.outputs):
            source = next((b[number] for b in sources if b[number] in self.run.shapes), None)
            if source is not None:
                self.run.types[key] = self.run.types[source]
                self.run.shapes[key] = self.run.shapes[source]
            else:
                self._accept(key, None, node)

    def _fold(self, node: Node) -> bool:
        if node.domain or not node.outputs or node.op_type in NEVER_FOLDED - {"Constant"}:
            return False
        if node.op_type in ("Shape", "Size"):
            return self._fold_shape(node)
        if not all(key in self.run.values for key in node.inputs if key):
            return False
        if any(self.run.shapes.get(key) is None for key in node.inputs if key):
            return False
        expected = self._infer(node) if node.op_type in ("ConstantOfShape", "Expand", "Tile", "Range", "OneHot") else {}
        for inferred in expected.values():
            dims = [d.dim_value for d in inferred.tensor_type.shape.dim]
            if dims and float(np.prod([float(d) for d in dims])) > MAX_FOLDED:
                return False
        try:
            results = evaluate(node, [self.run.values[key] if key else None for key in node.inputs])
        except Exception:  # whatever numpy or onnx.reference raise: the value stays unknown, the shape is inferred
            return False
        if any(not isinstance(r, np.ndarray) or r.size > MAX_FOLDED for r in results):
            return False
        for key, result in zip(node.outputs, results, strict=False):
            if key:
                self._set_value(key, result)
        return True

    def _set_value(self, key: str, value: Array) -> None:
        if self.base is not None and key in self.base.values and equal(self.base.values[key], value):
            self.copy_from(self.base, key)
            self.settled.add(key)
            return
        self.run.values[key] = value
        self.set_type(key, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)

    def _fold_shape(self, node: Node) -> bool:
        shape = self.run.shapes.get(node.inputs[0])
        if shape is None:
            return False
        self._set_value(node.outputs[0], shape_value(node, shape))
        return True


def _declares_the_same(one: onnx.ValueInfoProto, other: onnx.ValueInfoProto) -> bool:
    """Tell whether two values have the same declared sizes, all of them said by number or by name."""
    if not (_has_shape(one.type) and _has_shape(other.type)):
        return False
    pairs = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (one, other)]
    return pairs[0] == pairs[1] and all(pairs[0])


def _whole(proto: TypeProto) -> tuple[int, Shape] | None:
    """Return data type and shape where a type says every size."""
    if not _has_shape(proto):
        return None
    dims = proto.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
        return None
    return int(proto.tensor_type.elem_type), tuple(dim.dim_value for dim in dims)


def _has_shape(proto: TypeProto) -> bool:
    return bool(proto.WhichOneof("value") == "tensor_type" and proto.tensor_type.HasField("shape"))


def equal(one: Array, two: Array) -> bool:
    return one.shape == two.shape and one.dtype == two.dtype and bool(np.array_equal(one, two))
