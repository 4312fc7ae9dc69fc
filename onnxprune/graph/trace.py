"""Concrete shapes of every tensor and the values of all shape arithmetic, without touching a weight.

Each symbolic dimension gets a concrete size; every node is inferred alone, in order, with what is known about its
inputs, and small integer nodes are evaluated on the way. A second assignment of sizes shows which numbers are dynamic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, defs, numpy_helper, shape_inference

from onnxprune.errors import UsageError
from onnxprune.graph.contrib_shapes import contrib_shapes, contrib_type
from onnxprune.graph.view import Node, View
from onnxprune.types import Array, BoolArray

MAX_FOLDED = 1 << 16
"""Tensors with more elements are not evaluated."""

LIKE_FIRST_INPUT = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
"""Functions whose shape onnx infers only where their body is expanded."""

Shape = tuple[int, ...]
FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
NEVER_FOLDED = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
    | {"If", "Loop", "Scan", "Constant", "QuantizeLinear", "DequantizeLinear"}
)


@dataclass(frozen=True, eq=False)
class Run:
    """What one assignment of sizes gives."""

    sizes: dict[str, int]
    types: dict[str, TypeProto]
    shapes: dict[str, Shape]
    values: dict[str, Array]
    failures: dict[str, str]


@dataclass(frozen=True, eq=False)
class Trace:
    """Shapes and folded values under two assignments; `first` is the one that shapes and ids refer to."""

    first: Run
    second: Run

    @property
    def shapes(self) -> dict[str, Shape]:
        """Tensor key -> concrete shape; a tensor whose rank is unknown is missing."""
        return self.first.shapes

    @cached_property
    def values(self) -> dict[str, Array]:
        """Folded tensors whose value does not depend on a dynamic size."""
        return {
            key: value
            for key, value in self.first.values.items()
            if key in self.second.values and _equal(value, self.second.values[key])
        }

    def dynamic(self, key: str) -> BoolArray:
        """Return (rank,) True where the size of an axis depends on the input's sizes."""
        shape, other = self.first.shapes[key], self.second.shapes.get(key, ())
        if len(shape) != len(other):
            return np.ones(len(shape), dtype=bool)
        return np.array([a != b for a, b in zip(shape, other, strict=True)], dtype=bool)

    def data_type(self, key: str) -> int:
        """Return the `onnx.TensorProto` data type, 0 where it is unknown."""
        known = self.first.types.get(key)
        return int(known.tensor_type.elem_type) if known is not None else 0


def trace(view: View, input_shapes: dict[str, Shape] | None = None) -> Trace:
    """Trace a view under two assignments of its dynamic sizes.

    Args:
        view: the model.
        input_shapes: graph input -> full shape, fixes these sizes (the command line's --input-shape).

    Raises:
        UsageError: an input shape names no input or does not fit its rank or fixed sizes.
    """
    fixed = _check_input_shapes(view, input_shapes or {})
    candidates = _assignments(view)
    best: Trace | None = None
    for one, two in candidates:
        first = run(view, one | fixed, fixed)
        second = first if _same_sizes(view, one | fixed, two | fixed) else run(view, two | fixed, fixed)
        found = Trace(first, second)
        if not first.failures and not second.failures:
            return found
        if best is None or _badness(found) < _badness(best):
            best = found
    assert best is not None
    return best


def _badness(found: Trace) -> int:
    return len(found.first.failures) + len(found.second.failures)


def _same_sizes(view: View, one: dict[str, int], two: dict[str, int]) -> bool:
    used = {symbol for key in view.inputs for symbol in _symbols(view, key) if isinstance(symbol, str)}
    return all(_size(symbol, one) == _size(symbol, two) for symbol in used)


def run(view: View, sizes: dict[str, int], fixed: dict[str, int] | None = None) -> Run:
    """Infer every tensor of a view for one assignment of symbol sizes."""
    result = Run(dict(sizes), {}, {}, {}, {})
    walker = _Walker(view, result)
    for key, parameter in view.parameters.items():
        walker.set_type(key, parameter.data_type, parameter.dims)
        if _is_foldable_constant(parameter.data_type, parameter.elements):
            result.values[key] = view.model.array(parameter.tensor)
    for key, value in view.inputs.items():
        if value.type.WhichOneof("value") == "tensor_type":
            symbols = _symbols(view, key)
            if value.type.tensor_type.HasField("shape"):
                shape = tuple(_size(s, sizes) if isinstance(s, str) else s for s in symbols)
                walker.set_type(key, value.type.tensor_type.elem_type, shape)
    for node in view.nodes:
        walker.visit(node)
    return result


def _is_foldable_constant(data_type: int, elements: int) -> bool:
    if data_type in FLOAT_TYPES:
        return elements == 1
    return data_type in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL) and elements <= MAX_FOLDED


class _Walker:
    """Visits nodes in order and fills a Run."""

    def __init__(self, view: View, result: Run) -> None:
        self.view = view
        self.run = result
        self.unknown = 0
        self.opsets = list(view.model.proto.opset_import)
        self.schemas: dict[tuple[str, str, int], Any] = {}

    def set_type(self, key: str, data_type: int, shape: Shape) -> None:
        proto = TypeProto()
        proto.tensor_type.elem_type = data_type
        proto.tensor_type.shape.SetInParent()
        for dim in shape:
            proto.tensor_type.shape.dim.add().dim_value = dim
        self.run.types[key] = proto
        self.run.shapes[key] = tuple(shape)

    def visit(self, node: Node) -> None:
        if self._fold(node):
            return
        if node.op_type == "If" and not node.domain:
            self._merge_branches(node)
            return
        inferred = self._infer(node)
        for output, key in zip(node.proto.output, node.outputs, strict=True):
            if key:
                self._accept(key, inferred.get(output), node)

    def _accept(self, key: str, inferred: TypeProto | None, node: Node) -> None:
        declared = self.view.declared.get(key)
        if inferred is None or not _has_shape(inferred):
            inferred = declared if declared is not None and _has_shape(declared) else inferred
        if inferred is None or not _has_shape(inferred):
            if inferred is not None:
                self.run.types[key] = inferred
            self.run.failures.setdefault(key, f"{node.label}: the shape of its output is unknown")
            return
        shape = [self._dimension(dim) for dim in inferred.tensor_type.shape.dim]
        self.set_type(key, inferred.tensor_type.elem_type, tuple(shape))

    def _dimension(self, dim: onnx.TensorShapeProto.Dimension) -> int:
        """A size that inference leaves open is dynamic: it differs between runs."""
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return int(dim.dim_value)
        known = _evaluate(dim.dim_param, self.run.sizes) if dim.dim_param else None
        return known if known is not None else 19 + self.run.sizes.get("", 0)

    def _infer(self, node: Node) -> dict[str, TypeProto]:
        types = {
            n: self.run.types[k] for n, k in zip(node.proto.input, node.inputs, strict=True) if k in self.run.types
        }
        schema = None if node.domain else self._schema(node)
        if schema is None or not schema.has_type_and_shape_inference_function:
            return self._infer_contrib(node)
        data = {
            n: numpy_helper.from_array(self.run.values[k])
            for n, k in zip(node.proto.input, node.inputs, strict=True)
            if k in self.run.values and self.run.values[k].size <= 1024
        }
        if node.op_type in ("Resize", "Upsample"):
            data |= self._scales(node)
        try:
            return dict(
                shape_inference.infer_node_outputs(
                    schema, node.proto, types, input_data=data, opset_imports=self.opsets
                )
            )
        except Exception as error:  # the binding raises several unrelated types
            self.run.failures[node.outputs[0]] = f"{node.label}: {str(error).splitlines()[0]}"
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
        except Exception as error:  # onnx.reference raises whatever numpy raises
            self.run.failures[node.outputs[0]] = f"{node.label}: cannot be evaluated ({str(error).splitlines()[:1]})"
            return False
        if any(not isinstance(r, np.ndarray) or r.size > MAX_FOLDED for r in results):
            return False
        for key, result in zip(node.outputs, results, strict=False):
            if key:
                self._set_value(key, result)
        return True

    def _set_value(self, key: str, value: Array) -> None:
        self.run.values[key] = value
        self.set_type(key, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)

    def _fold_shape(self, node: Node) -> bool:
        shape = self.run.shapes.get(node.inputs[0])
        if shape is None:
            return False
        self._set_value(node.outputs[0], shape_value(node, shape))
        return True


def shape_value(node: Node, shape: Shape) -> Array:
    """Return what a Shape or Size node gives for an input of this shape."""
    if node.op_type == "Size":
        return np.array(int(np.prod(shape)), dtype=np.int64)
    start, end = node.attribute("start", 0), node.attribute("end", len(shape))
    return np.array(shape[slice(start, end)], dtype=np.int64)


_EVALUATORS: dict[tuple[int, int], Any] = {}


def evaluate(node: Node, inputs: list[Array | None]) -> list[Array]:
    """Compute a node on numpy arrays with the ONNX reference implementation.

    Raises:
        Exception: whatever the reference implementation raises for inputs that do not fit.
    """
    fast = _FAST.get(node.op_type)
    if fast is not None:
        result = fast(node, inputs)
        if result is not None:
            return [np.asarray(result)]
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Constant":
        feeds: dict[str, Array | None] = {}
    else:
        feeds = {n: v for n, v in zip(node.proto.input, inputs, strict=True) if n}
    evaluator: Any = ReferenceEvaluator(node.proto, opsets={"": node.version})
    return [np.asarray(result) for result in evaluator.run(None, feeds)]


def _fast_gather(node: Node, inputs: list[Array | None]) -> Array | None:
    data, indices = inputs
    assert data is not None and indices is not None
    return np.take(data, indices, axis=node.attribute("axis", 0))


def _fast_concat(node: Node, inputs: list[Array | None]) -> Array | None:
    return np.concatenate([a for a in inputs if a is not None], axis=node.attribute("axis", 0))


def _fast_unsqueeze(node: Node, inputs: list[Array | None]) -> Array | None:
    axes = node.attribute("axes") if len(inputs) < 2 or inputs[1] is None else inputs[1].tolist()
    return np.expand_dims(inputs[0], tuple(axes)) if axes is not None and inputs[0] is not None else None


def _fast_multiply(node: Node, inputs: list[Array | None]) -> Array | None:
    a, b = inputs
    assert a is not None and b is not None
    return np.asarray(a * b, dtype=a.dtype)


def _fast_add(node: Node, inputs: list[Array | None]) -> Array | None:
    a, b = inputs
    assert a is not None and b is not None
    return np.asarray(a + b, dtype=a.dtype)


_FAST = {
    "Gather": _fast_gather,
    "Concat": _fast_concat,
    "Unsqueeze": _fast_unsqueeze,
    "Mul": _fast_multiply,
    "Add": _fast_add,
    "Identity": lambda node, inputs: inputs[0],
}


def _has_shape(proto: TypeProto) -> bool:
    return bool(proto.WhichOneof("value") == "tensor_type" and proto.tensor_type.HasField("shape"))


def _equal(one: Array, two: Array) -> bool:
    return one.shape == two.shape and one.dtype == two.dtype and bool(np.array_equal(one, two))


# --- sizes of symbolic dimensions -------------------------------------------------------------------------------


def _symbols(view: View, key: str) -> list[str | int]:
    """Per axis of a graph input: its fixed size, or the symbol that stands for it."""
    symbols: list[str | int] = []
    for axis, dim in enumerate(view.inputs[key].type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            symbols.append(int(dim.dim_value))
        elif re.fullmatch(r"[\w\s.+*/()-]+", dim.dim_param or "") and not dim.dim_param.lstrip("-").isdigit():
            symbols.append(dim.dim_param)
        else:
            symbols.append(f"?{axis}/{len(view.inputs[key].type.tensor_type.shape.dim)}")
    return symbols


def _kinds(view: View) -> dict[str, str]:
    """Symbol -> "batch", "image", "signal" or "sequence", guessed from where it stands first."""
    kinds: dict[str, str] = {}
    for key, value in view.inputs.items():
        symbols = _symbols(view, key)
        is_float = value.type.tensor_type.elem_type in FLOAT_TYPES
        rank = len(symbols)
        channels_last = rank == 4 and isinstance(symbols[3], int) and not isinstance(symbols[1], int)
        for axis, symbol in enumerate(symbols):
            if isinstance(symbol, int) or symbol in kinds:
                continue
            lowered = symbol.lower()
            if "batch" in lowered or (axis == 0 and rank > 1 and "seq" not in lowered):
                kinds[symbol] = "batch"
            elif is_float and rank >= 4 and (axis >= 2 or channels_last) and "seq" not in lowered:
                kinds[symbol] = "image"
            elif is_float and ((rank == 3 and axis == 2) or (rank == 2 and axis == 1) or rank == 1):
                kinds[symbol] = "signal"
            else:
                kinds[symbol] = "sequence"
    return kinds


def _assignments(view: View) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Pairs of assignments to try in order; the empty symbol carries the size of data-dependent dimensions."""
    kinds = _kinds(view)
    tables = [
        ({"batch": [3], "image": [224, 256], "signal": [8192], "sequence": [37, 43, 53]},
         {"batch": [5], "image": [256, 320], "signal": [9216], "sequence": [41, 47, 59]}),
        ({"batch": [3], "image": [224], "signal": [16384], "sequence": [64]},
         {"batch": [5], "image": [256], "signal": [32768], "sequence": [32]}),
        ({"batch": [1], "image": [224], "signal": [512], "sequence": [16]},
         {"batch": [1], "image": [256], "signal": [512], "sequence": [16]}),
        ({"batch": [1], "image": [640], "signal": [16000], "sequence": [1]},
         {"batch": [1], "image": [640], "signal": [16000], "sequence": [1]}),
    ]  # fmt: skip
    pairs = []
    for one, two in tables:
        first: dict[str, int] = {"": 0}
        second: dict[str, int] = {"": 4}
        seen: dict[str, int] = {}
        for symbol, kind in kinds.items():
            number = seen[kind] = seen.get(kind, -1) + 1
            first[symbol] = one[kind][number % len(one[kind])]
            second[symbol] = two[kind][number % len(two[kind])]
        pairs.append((first, second))
        if not kinds:
            break
    return pairs


def _evaluate(expression: str, sizes: dict[str, int]) -> int | None:
    """Value of a dimension name, which may be a sum, difference or product of names ("past + sequence")."""
    if expression in sizes:
        return sizes[expression]
    parts = re.split(r"\s*([+*-])\s*", expression.strip())
    if len(parts) < 3:
        return None
    total: int | None = None
    operator = "+"
    for part in parts:
        if part in ("+", "-", "*"):
            operator = part
            continue
        value = int(part) if part.isdigit() else sizes.get(part)
        if value is None:
            return None
        total = value if total is None else {"+": total + value, "-": total - value, "*": total * value}[operator]
    return total


def _size(symbol: str, sizes: dict[str, int]) -> int:
    parts = re.split(r"\s*[+*-]\s*", symbol.strip())
    if len(parts) > 1 and all(p.isdigit() or (p in sizes and p != symbol) for p in parts):
        value = _evaluate_sum(symbol, sizes)
        if value is not None and value > 0:
            return value
    return sizes[symbol]


def _evaluate_sum(symbol: str, sizes: dict[str, int]) -> int | None:
    return _evaluate(symbol, {name: size for name, size in sizes.items() if name != symbol})


def _check_input_shapes(view: View, input_shapes: dict[str, Shape]) -> dict[str, int]:
    fixed: dict[str, int] = {}
    for name, shape in input_shapes.items():
        if name not in view.inputs:
            known = ", ".join(view.inputs) or "none"
            raise UsageError(f"--input-shape: the model has no input '{name}' (inputs: {known}).")
        symbols = _symbols(view, name)
        if len(symbols) != len(shape):
            raise UsageError(f"--input-shape: input '{name}' has {len(symbols)} axes, {len(shape)} sizes were given.")
        for axis, (symbol, size) in enumerate(zip(symbols, shape, strict=True)):
            if isinstance(symbol, int):
                if symbol != size:
                    raise UsageError(f"--input-shape: axis {axis} of input '{name}' is fixed at {symbol}, not {size}.")
            else:
                fixed[symbol] = size
    return fixed
