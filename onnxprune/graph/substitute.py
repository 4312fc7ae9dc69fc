"""What stands in the place of a dropped branch: a bias, a factor and a bias for each channel, or one linear map.

The branch y = x + f(x) becomes y = W x + b, W near to the identity: a 1x1 Conv where channels are axis 1, a MatMul
where they are the last one. With the values of `Substitute.idle` it gives what nothing gives, y = x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from onnxprune.graph import initializers
from onnxprune.graph.branches import Branch
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from onnxprune.types import Array, FloatArray, IntArray

KINDS = ("bias", "scale", "linear")
"""In the order of what they cost."""
CHANNELS_FIRST = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "GroupNormalization", "InstanceNormalization"}
)
CHANNELS_LAST = frozenset(
    "MatMul Gemm LayerNormalization RMSNormalization SimplifiedLayerNormalization FastGelu BiasGelu".split()
)
MOVES = frozenset("Transpose Reshape Flatten Squeeze Unsqueeze DepthToSpace SpaceToDepth Concat Split Slice".split())
"""Behind them the channels may be another axis."""


@dataclass(frozen=True, eq=False)
class Substitute:
    """total: the sum of a dropped branch and its skip, which an Identity makes. kind: one of `KINDS`.

    axis: of the channels, 1 or -1. rank: axes of the tensor.
    matrix: (outs, channels) of "linear", (channels,) of "scale". bias: (channels,).
    """

    total: str
    kind: str
    axis: int
    rank: int
    matrix: FloatArray
    bias: FloatArray

    @staticmethod
    def idle(total: str, kind: str, axis: int, rank: int, channels: int) -> Substitute:
        """Return the one that changes nothing."""
        matrix = np.eye(channels) if kind == "linear" else np.ones(channels)
        return Substitute(total, kind, axis, rank, matrix, np.zeros(channels))

    def narrowed(self, kept: IntArray) -> Substitute:
        """Return what is left of it where only these channels stay."""
        matrix = self.matrix[np.ix_(kept, kept)] if self.kind == "linear" else self.matrix[kept]
        return replace(self, matrix=matrix, bias=self.bias[kept])

    @property
    def idled(self) -> Substitute:
        """The same without an effect."""
        return replace(self, **vars(self.idle(self.total, self.kind, self.axis, self.rank, len(self.bias))))


def put_in(model: Model, substitutes: Sequence[Substitute]) -> Model:
    """Return the model with substitutes in the place of the Identity that makes their total."""
    table = {substitute.total: substitute for substitute in substitutes}
    if not table:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    taken, view = set(View(model).keys), View(model)
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        found = table.get(node.output[0]) if node.op_type == "Identity" else None
        nodes += [node] if found is None else _made(proto, node, found, taken, _dtype(view, found))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    return replace(model, proto=proto, file_bytes=None)


def channel_axis(view: View, branch: Branch, rank: int) -> int | None:
    """Return the axis of the channels as the first layer sees them that reads the skip, in the branch or behind it.

    None where none tells.
    """
    if rank == 2:
        return -1
    same = {branch.skip}
    for node in (*branch.nodes, *view.nodes):
        if not same & set(node.inputs):
            continue
        if node.op_type in CHANNELS_FIRST:
            return 1
        if node.op_type in CHANNELS_LAST:
            return -1
        if node.op_type not in MOVES:
            same.update(name for name in node.outputs if name)
    return None


def _dtype(view: View, substitute: Substitute) -> np.dtype[np.generic]:
    """Return the type of the weights: that of most stored floats."""
    kinds = [p.data_type for p in view.parameters.values() if p.data_type in (1, 10, 11, 16) and len(p.dims) > 1]
    return np.dtype(helper.tensor_dtype_to_np_dtype(max(set(kinds), key=kinds.count) if kinds else 1))


def _made(
    proto: onnx.ModelProto, node: onnx.NodeProto, given: Substitute, taken: set[str], dtype: np.dtype[np.generic]
) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a substitute, the last of which makes the total under the name of the Identity."""
    skip, total = node.input[0], node.output[0]

    def store(base: str, array: FloatArray) -> str:
        return str(initializers.add(proto, initializers.free_name(f"{total}_{base}", taken), _cast(array, dtype)).name)

    ones = (1,) * (given.rank - 2)
    if given.kind != "bias" and given.axis == 1:
        weight = given.matrix.reshape(*given.matrix.shape, *(() if given.kind == "linear" else (1,)), *ones)
        group = 1 if given.kind == "linear" else len(given.matrix)
        inputs = [skip, store("weight", weight), store("bias", given.bias)]
        yield helper.make_node("Conv", inputs, [total], name=node.name, group=group, kernel_shape=ones)
        return
    if given.kind != "bias":
        operator, values = ("MatMul", given.matrix.T) if given.kind == "linear" else ("Mul", given.matrix)
        inner = initializers.free_name(f"{total}_inner", taken)
        yield helper.make_node(operator, [skip, store("weight", values)], [inner], name=inner)
        skip = inner
    bias = given.bias.reshape(-1, *ones) if given.axis == 1 else given.bias
    yield helper.make_node("Add", [skip, store("bias", bias)], [total], name=node.name)


def _cast(array: FloatArray, dtype: np.dtype[np.generic]) -> Array:
    return np.asarray(array.astype(dtype), order="C")
