"""The oracle of the tests, independent of the package: pruned(x) == original(x) with the removed slices zeroed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import AttributeProto, GraphProto, NodeProto, helper, numpy_helper

Removed = Mapping[str, Mapping[int, Sequence[int]]]
Feeds = dict[str, np.ndarray]

LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
ALIASES = {"Identity", "Unsqueeze", "Squeeze", "Reshape", "Cast", "Expand", "Transpose"}
DIVISORS = {
    "Div": (1,), "QuantizeLinear": (1,), "DequantizeLinear": (1,), "Reciprocal": (0,), "Mod": (1,),
    "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6), "QGemm": (1, 4, 7),
}  # fmt: skip
ZERO_POINTS = {
    "QuantizeLinear": (2,), "DequantizeLinear": (2,), "ConvInteger": (2, 3), "MatMulInteger": (2, 3),
    "QLinearConv": (2, 5, 7), "QLinearMatMul": (2, 5, 7), "QGemm": (2, 5, 8),
}  # fmt: skip
QUANTIZED = {  # operator -> input that holds integers: input that holds their zero point
    "DequantizeLinear": {0: 2}, "ConvInteger": {1: 3}, "MatMulInteger": {1: 3}, "QLinearConv": {3: 5},
    "QLinearMatMul": {3: 5}, "QGemm": {3: 5}, "QLinearAdd": {0: 2, 3: 5}, "QLinearMul": {0: 2, 3: 5},
}  # fmt: skip


def session(proto: onnx.ModelProto, level: str = "disabled") -> ort.InferenceSession:
    """Return an onnxruntime session on one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(proto: onnx.ModelProto, feeds: Feeds, level: str = "disabled") -> list[np.ndarray]:
    """Run a model once."""
    return [np.asarray(value) for value in session(proto, level).run(None, feeds)]


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and all its subgraphs."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def nodes(proto: onnx.ModelProto) -> Iterator[NodeProto]:
    """Yield every node, of subgraphs and functions too."""
    for graph in graphs(proto.graph):
        yield from graph.node
    for function in proto.functions:
        yield from function.node


def is_dynamic(proto: onnx.ModelProto) -> bool:
    """Tell whether some input has a dynamic first dimension."""
    initial = {tensor.name for tensor in proto.graph.initializer}
    shapes = [v.type.tensor_type.shape.dim for v in proto.graph.input if v.name not in initial]
    return any(shape and shape[0].dim_value <= 0 for shape in shapes)


def random_inputs(proto: onnx.ModelProto, rng: np.random.Generator, batch: int = 2, dynamic: int = 8) -> Feeds:
    """Return one random array per input. A dynamic first dimension is `batch`, every other dynamic one `dynamic`."""
    initial = {tensor.name: tensor for tensor in proto.graph.initializer}
    values = [value for value in proto.graph.input if value.name not in initial]
    leading = {v.type.tensor_type.shape.dim[0].dim_param for v in values if v.type.tensor_type.shape.dim} - {""}
    feeds = {}
    for value in values:
        kind = value.type.tensor_type
        shape = [
            dim.dim_value if dim.dim_value > 0 else batch if axis == 0 or dim.dim_param in leading else dynamic
            for axis, dim in enumerate(kind.shape.dim)
        ]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype == np.bool_:
            feeds[value.name] = rng.integers(0, 2, shape).astype(bool)
        elif np.issubdtype(dtype, np.integer):
            feeds[value.name] = rng.integers(0, _rows(proto, value.name, initial), shape).astype(dtype)
        else:
            feeds[value.name] = rng.normal(size=shape).astype(dtype)
    return feeds


def _rows(proto: onnx.ModelProto, name: str, initial: Mapping[str, onnx.TensorProto]) -> int:
    """Return how many rows an integer input may index: those of the tables that it gathers from, else 2."""
    tables = [node.input[0] for node in proto.graph.node if node.op_type == "Gather" and node.input[1] == name]
    return min((initial[table].dims[0] for table in tables if table in initial), default=2)


def zeroed(proto: onnx.ModelProto, removed: Removed) -> onnx.ModelProto:
    """Return a copy of a model with the removed slices set to what contributes nothing.

    That is zero; the zero point for integers that are dequantized; one where a parameter divides.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    tensors = _parameters(result)
    missing = set(removed) - set(tensors)
    assert not missing, f"the plan names tensors that are no parameters: {sorted(missing)}"
    uses = _uses(result)
    points: dict[str, np.ndarray] = {}
    for name in removed:
        for node, index in uses.get(name, ()):
            if (
                (at := QUANTIZED.get(node.op_type, {}).get(index)) is not None
                and len(node.input) > at
                and node.input[at]
            ):
                points[name] = _along(node, numpy_helper.to_array(tensors[node.input[at]]), list(tensors[name].dims))
    for name, axes in removed.items():
        array = numpy_helper.to_array(tensors[name]).copy()
        if any(index in ZERO_POINTS.get(node.op_type, ()) for node, index in uses.get(name, ())):
            continue
        neutral: np.ndarray | int = points.get(name, np.zeros((), array.dtype))
        if any(index in DIVISORS.get(node.op_type, ()) for node, index in uses.get(name, ())):
            neutral = np.ones((), array.dtype)
        filled = np.broadcast_to(neutral, array.shape)
        normed = _norm_axes(name, uses)
        for axis, positions in axes.items():
            if normed and axis not in normed:  # a zeroed row over its own norm is 0 / 0; zeroing its gain is enough
                continue
            at = (slice(None),) * axis + (list(positions),)
            array[at] = filled[at]
        tensors[name].CopyFrom(numpy_helper.from_array(array, tensors[name].name))
    return result


def _parameters(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    found = {}
    for graph in graphs(proto.graph):
        found.update({tensor.name: tensor for tensor in graph.initializer})
    for node in nodes(proto):
        if node.op_type == "Constant":
            found.update((node.output[0], a.t) for a in node.attribute if a.type == AttributeProto.TENSOR)
    return found


def _uses(proto: onnx.ModelProto) -> dict[str, list[tuple[NodeProto, int]]]:
    """Return who reads each tensor, looking through nodes that only rename or reshape it."""
    uses: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in nodes(proto):
        for index, name in enumerate(node.input):
            uses.setdefault(name, []).append((node, index))
    for readers in uses.values():
        for node, index in readers:  # grows while it is read, so chains are followed
            if node.op_type in ALIASES and index == 0:
                readers.extend(uses.get(node.output[0], ()))
    return uses


def _norm_axes(name: str, uses: Mapping[str, list[tuple[NodeProto, int]]]) -> set[int]:
    """Return the axes over which a parameter is divided by its own norm (weight_norm left in the graph)."""
    readers = [node for node, _ in uses.get(name, ())]
    divisors = {node.input[1] for node in readers if node.op_type == "Div"}
    norms = [node for node in readers if node.op_type.startswith("ReduceL") and node.output[0] in divisors]
    return {axis for node in norms for a in node.attribute if a.name == "axes" for axis in a.ints}


def _along(node: NodeProto, point: np.ndarray, dims: list[int]) -> np.ndarray:
    """Shape a zero point so that it broadcasts against the integers that it belongs to."""
    if point.size == 1:
        return point.reshape(())
    if point.ndim != 1:  # one for every block of positions
        for axis, (size, entries) in enumerate(zip(dims, point.shape, strict=True)):
            point = np.repeat(point, size // entries if entries > 1 else 1, axis=axis)
        return point
    default = 1 if node.op_type == "DequantizeLinear" else 0 if "Conv" in node.op_type else len(dims) - 1
    if any(a.name == "transB" and a.i for a in node.attribute):
        default = 0
    axis = next((a.i for a in node.attribute if a.name == "axis"), default) % len(dims)
    return point.reshape([-1 if i == axis else 1 for i in range(len(dims))])


def relative_error(expected: np.ndarray, found: np.ndarray) -> float:
    """Return max |a - b| / max |a|; for integers and booleans the share of values that differ."""
    assert expected.shape == found.shape, f"output shape {found.shape} instead of {expected.shape}"
    if expected.size == 0:
        return 0.0
    if not np.issubdtype(np.asarray(expected).astype(np.float64).dtype, np.floating) or expected.dtype.kind in "iub":
        return float(np.mean(expected != found))
    a, b = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    assert finite.any(), "the original gives no finite number, so it shows nothing"
    assert (finite == np.isfinite(b)).all(), "infinite or undefined values in other places"
    return float(np.abs(a - b)[finite].max() / max(np.abs(a)[finite].max(), 1e-12))


def parity(
    original: onnx.ModelProto,
    pruned: onnx.ModelProto,
    removed: Removed,
    levels: Sequence[str] = ("disabled", "all"),
    seed: int = 0,
) -> float:
    """Return the largest relative error of any output between the pruned model and the zeroed original."""
    reference = zeroed(original, removed)
    batches = (2, 3) if is_dynamic(original) else (1,)
    feeds = [random_inputs(original, np.random.default_rng(seed + batch), batch) for batch in batches]
    worst = 0.0
    for level in levels:
        ours, theirs = session(pruned, level), session(reference, level)
        for feed in feeds:
            pairs = zip(theirs.run(None, feed), ours.run(None, feed), strict=True)
            worst = max([worst, *(relative_error(np.asarray(a), np.asarray(b)) for a, b in pairs)])
    return worst


def share_left(original: onnx.ModelProto, pruned: onnx.ModelProto) -> float:
    """Return the share of parameters (elements of tensors with an axis) that a pruned model keeps."""
    before, after = (
        sum(int(np.prod(t.dims)) for t in _parameters(proto).values() if len(t.dims)) for proto in (original, pruned)
    )
    return after / before
