"""A tiny graph builder and the registry of micro cases: one short function draws one graph."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.oracle import random_inputs, run

Operand = str | np.ndarray | list | tuple | int | float | None
MICROSOFT = "com.microsoft"
DTYPES = {"float": np.float32, "double": np.float64, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}


class Net:
    """Draws one graph. `net.Relu(x)` adds a Relu node and returns the name of its output.

    opset: version of ai.onnx; the methods in lower case write the form that this version wants.
    weights: "initializer" or "constant" (all weights in unnamed Constant nodes, as Paddle exports).
    dtype: key of DTYPES, the type of every weight.
    """

    def __init__(self, opset: int = 17, weights: str = "initializer", dtype: str = "float", seed: int = 0) -> None:
        self.opset, self.style, self.dtype = opset, weights, DTYPES[dtype]
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: dict[str, Sequence[Any] | None] = {}
        self.initializers: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.domains: dict[str, int] = {"": opset}
        self.counter = [0]
        self.declares_shapes = False

    def fresh(self, stem: str) -> str:
        """Return a name that nothing else has."""
        self.counter[0] += 1
        return f"{stem}_{self.counter[0]}"

    def input(self, *shape: int | str, name: str = "x", dtype: Any = None) -> str:
        """Add a graph input; a dimension that is a string is dynamic."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, *names: str, shape: Sequence[Any] | None = None) -> None:
        """Declare graph outputs; their shapes are measured in `model` where onnxruntime runs it."""
        self.outputs.update(dict.fromkeys(names, shape))

    def constant(self, values: Any, name: str | None = None, node: bool | None = None) -> str:
        """Add a constant tensor as an initializer or as a Constant node."""
        name = name or self.fresh("const")
        tensor = numpy_helper.from_array(np.asarray(values), name)
        if self.style == "constant" if node is None else node:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def weight(self, *shape: int, name: str | None = None, gain: float = 1.0) -> str:
        """Add a random weight, scaled so that activations keep their size."""
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        values = self.rng.normal(size=shape) * gain / np.sqrt(fan)
        return self.constant(values.astype(self.dtype), name or self.fresh("weight"))

    def vector(self, size: int, low: float = 0.5, high: float = 1.5, shape: Sequence[int] | None = None) -> str:
        """Add a vector of values in [low, high], reshaped to `shape`."""
        values = self.rng.uniform(low, high, size=size).astype(self.dtype)
        return self.constant(values.reshape(shape or (size,)), self.fresh("vector"))

    def number(self, value: float) -> str:
        """Add a scalar of the type of the weights."""
        return self.constant(np.asarray(value, self.dtype))

    def name_of(self, operand: Operand) -> str:
        """Return the tensor name of an operand: names pass, None is missing, numbers become constants."""
        if operand is None or isinstance(operand, str):
            return operand or ""
        array = np.asarray(operand)
        return self.constant(array.astype(self.dtype) if array.dtype == np.float64 else array)

    def op(self, kind: str, *operands: Operand, outputs: int = 1, domain: str = "", name: str = "", **attributes: Any):
        """Add a node; return the name of its output, or a tuple of names."""
        inputs = [self.name_of(operand) for operand in operands]
        results = [self.fresh(kind.lower()) for _ in range(outputs)]
        if domain not in self.domains:
            self.domains[domain] = 1
        node = helper.make_node(kind, inputs, results, name=name or self.fresh(kind), domain=domain, **attributes)
        self.nodes.append(node)
        return results[0] if outputs == 1 else tuple(results)

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        if not kind[:1].isupper():
            raise AttributeError(kind)
        return lambda *operands, **attributes: self.op(kind, *operands, **attributes)

    def ms(self, kind: str, *operands: Operand, **attributes: Any):
        """Add an operator of com.microsoft."""
        return self.op(kind, *operands, domain=MICROSOFT, **attributes)

    # Layers

    def conv(
        self, x: str, inner: int, outer: int, kernel: int = 3, bias: bool = True, group: int = 1, **more: Any
    ) -> str:
        """Add a 2-D Conv that keeps the size of the image."""
        more.setdefault("pads", [kernel // 2] * 4)
        weight = self.weight(outer, inner // group, kernel, kernel)
        extra = [self.weight(outer)] if bias else []
        return self.Conv(x, weight, *extra, group=group, kernel_shape=[kernel, kernel], **more)

    def linear(self, x: str, inner: int, outer: int, bias: bool = True) -> str:
        """Add MatMul + Add (weights stored in x out)."""
        y = self.MatMul(x, self.constant(self._dense(inner, outer), self.fresh("weight")))
        return self.Add(y, self.weight(outer)) if bias else y

    def gemm(self, x: str, inner: int, outer: int, transposed: bool = True) -> str:
        """Add Gemm, with weights out x in as torch stores them, or in x out."""
        weight = (
            self.weight(outer, inner) if transposed else self.constant(self._dense(inner, outer), self.fresh("weight"))
        )
        return self.Gemm(x, weight, self.weight(outer), transB=int(transposed))

    def _dense(self, inner: int, outer: int) -> np.ndarray:
        return (self.rng.normal(size=(inner, outer)) / np.sqrt(inner)).astype(self.dtype)

    def norm(self, x: str, size: int) -> str:
        """Add a live BatchNormalization."""
        spread = self.vector(size, -0.3, 0.3), self.vector(size, -0.3, 0.3)
        return self.BatchNormalization(x, self.vector(size), spread[0], spread[1], self.vector(size), epsilon=1e-5)

    def layer_norm(self, x: str, size: int, decomposed: bool | None = None) -> str:
        """Add LayerNormalization over the last axis, as an operator or as torch's older exporters write it."""
        scale, shift = self.vector(size), self.vector(size, -0.3, 0.3)
        if not (self.opset < 17 if decomposed is None else decomposed):
            return self.LayerNormalization(x, scale, shift, axis=-1)
        centred = self.Sub(x, self.reduce("Mean", x, [-1]))
        variance = self.reduce("Mean", self.Pow(centred, self.number(2)), [-1])
        normal = self.Div(centred, self.Sqrt(self.Add(variance, self.number(1e-5))))
        return self.Add(self.Mul(normal, scale), shift)

    # Operators whose form depends on the opset

    def reduce(self, kind: str, x: str, axes: Sequence[int], keepdims: int = 1) -> str:
        """Add Reduce<kind>; axes are an input since opset 18 (13 for Sum)."""
        since = 13 if kind == "Sum" else 18
        if self.opset >= since:
            return self.op(f"Reduce{kind}", x, np.array(axes, np.int64), keepdims=keepdims)
        return self.op(f"Reduce{kind}", x, axes=list(axes), keepdims=keepdims)

    def squeeze(self, x: str, *axes: int) -> str:
        """Add Squeeze."""
        return self.Squeeze(x, np.array(axes)) if self.opset >= 13 else self.Squeeze(x, axes=list(axes))

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Add Unsqueeze."""
        return self.Unsqueeze(x, np.array(axes)) if self.opset >= 13 else self.Unsqueeze(x, axes=list(axes))

    def split(self, x: str, sizes: Sequence[int], axis: int = 1, equal: bool = False) -> tuple[str, ...]:
        """Add Split with sizes, or into equal parts with none given."""
        more: dict[str, Any] = {"axis": axis, "outputs": len(sizes)}
        if equal:
            return self.Split(x, **more, **({"num_outputs": len(sizes)} if self.opset >= 18 else {}))
        return self.Split(x, np.array(sizes), **more) if self.opset >= 13 else self.Split(x, split=list(sizes), **more)

    def slice(self, x: str, start: int, end: int, axis: int = 1, step: int = 1) -> str:
        """Add Slice of one axis."""
        if self.opset < 10:
            return self.Slice(x, starts=[start], ends=[end], axes=[axis])
        return self.Slice(x, *(np.array([value]) for value in (start, end, axis, step)))

    def pad(self, x: str, pads: Sequence[int], mode: str = "constant") -> str:
        """Add Pad."""
        return self.Pad(x, np.array(pads), mode=mode) if self.opset >= 11 else self.Pad(x, pads=list(pads), mode=mode)

    def reshape(self, x: str, *shape: int) -> str:
        """Add Reshape to a static target (0 copies, -1 is inferred)."""
        return self.Reshape(x, np.array(shape))

    def computed_reshape(self, x: str, *shape: int, source: str | None = None) -> str:
        """Add Reshape as torch's legacy exporter writes it: a 0 becomes Shape -> Gather -> Unsqueeze -> Concat."""
        sizes = self.Shape(source or x)
        parts = []
        for axis, size in enumerate(shape):
            if size == 0:
                parts.append(self.unsqueeze(self.Gather(sizes, self.constant(np.array(axis)), axis=0), 0))
            else:
                parts.append(self.constant(np.array([size])))
        return self.Reshape(x, self.Concat(*parts, axis=0))

    def transpose(self, x: str, *order: int) -> str:
        """Add Transpose."""
        return self.Transpose(x, perm=list(order))

    # Subgraphs and the finished model

    def child(self) -> Net:
        """Return a net for a subgraph; it may use every name of this one."""
        net = Net(self.opset, self.style)
        net.dtype, net.rng, net.counter, net.domains = self.dtype, self.rng, self.counter, self.domains
        return net

    def graph(self, types: Sequence[tuple[int, Sequence[Any] | None]] = ()) -> onnx.GraphProto:
        """Return the drawn graph; `types` are (element type, shape) of the outputs."""
        default = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        known = list(types) + [(default, shape) for shape in list(self.outputs.values())[len(types) :]]
        outputs = [helper.make_tensor_value_info(name, *kind) for name, kind in zip(self.outputs, known, strict=True)]
        return helper.make_graph(self.nodes, self.fresh("graph"), self.inputs, outputs, self.initializers)

    def model(self, runs: bool = True) -> onnx.ModelProto:
        """Return the checked model, with the output shapes that onnxruntime measures at two batch sizes."""
        imports = [helper.make_opsetid(domain, version) for domain, version in self.domains.items()]
        proto = helper.make_model(self.graph(), opset_imports=imports, functions=self.functions)
        proto.ir_version = max(3, helper.find_min_ir_version_for(imports, ignore_unknown=True))
        if self.functions:
            proto.ir_version = max(8, proto.ir_version)
        if proto.ir_version < 4:
            add_initializers_to_inputs(proto)
        if runs:
            measure_outputs(proto)
            onnx.checker.check_model(proto)
        return onnx.shape_inference.infer_shapes(proto) if self.declares_shapes else proto


def add_initializers_to_inputs(proto: onnx.ModelProto) -> None:
    """Make every initializer a graph input too, as files before IR 4 must have it."""
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def measure_outputs(proto: onnx.ModelProto) -> None:
    """Write the output types and shapes that onnxruntime gives; what grows with the batch is dynamic."""
    names = [value.name for value in proto.graph.output]
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    one, two = (run(proto, random_inputs(proto, np.random.default_rng(0), batch)) for batch in (2, 3))
    del proto.graph.output[:]
    for name, a, b in zip(names, one, two, strict=True):
        shape = [
            m if m == n else "batch" if m == 2 else f"{name}_dim{i}"
            for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True))
        ]
        kind = helper.np_dtype_to_tensor_dtype(a.dtype)
        proto.graph.output.append(helper.make_tensor_value_info(name, kind, shape))


@dataclass(frozen=True)
class Case:
    """One micro graph and what a prune at ratio 0.5 must do with it.

    prunable: something can be removed. exact: something can be removed with `exact_only`.
    share: the parameters left are at most this share. tolerance: relative error allowed (None: float rounding).
    runs: onnxruntime has a kernel for every operator. reason: a word of the lock that must explain what stays.
    """

    name: str
    draw: Callable[[Net], None]
    options: dict[str, Any]
    prunable: bool = True
    exact: bool = True
    share: float = 0.7
    tolerance: float = 1e-4
    runs: bool = True
    reason: str | None = None

    def model(self) -> onnx.ModelProto:
        """Build the model: the same bytes every time."""
        net = Net(seed=zlib.crc32(self.name.encode()), **self.options)
        self.draw(net)
        return net.model(self.runs)


CASES: dict[str, Case] = {}


def case(
    suffix: str = "",
    *,
    prunable: bool = True,
    exact: bool = True,
    share: float = 0.7,
    tolerance: float = 1e-4,
    runs: bool = True,
    reason: str | None = None,
    **options: Any,
) -> Callable[[Callable[[Net], None]], Callable[[Net], None]]:
    """Register a drawing as a case named after it; several decorators register several variants."""

    def register(draw: Callable[[Net], None]) -> Callable[[Net], None]:
        name = f"{draw.__module__.rsplit('.', 1)[-1]}/{draw.__name__}{'_' + suffix if suffix else ''}"
        if name in CASES:
            raise ValueError(f"two cases are named {name}")
        CASES[name] = Case(name, draw, options, prunable, exact and prunable, share, tolerance, runs, reason)
        return draw

    return register


__all__ = ["CASES", "MICROSOFT", "Case", "Net", "TensorProto", "case", "helper"]
