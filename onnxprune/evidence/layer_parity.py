"""Two models layer by layer: where the second one leaves the first.

Layers are matched by the names of their tensors, else by the names of their nodes; what follows dequantization of a
tensor stands for it. Of a pruned layer the channels that are left are compared, where it is known which they are;
other shapes that differ can only be named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.evidence.parity import Meter
from onnxprune.graph.model import Model
from onnxprune.graph.session import Feeds, Session, open_session
from onnxprune.graph.trace import Shape
from onnxprune.types import Array, IntArray

SAMPLES = 8
"""Feeds that layers are compared on: all their tensors are held at once."""
AT_ONCE = 48
"""Tensors that one session hands out."""
Kept = Mapping[str, Mapping[int, IntArray]]
"""Tensor of the original -> axis -> positions that the other model still has, where it lost some."""
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True)
class LayerParity:
    """One layer of both models.

    sqnr_db: of its output, None where nothing could be compared.
    shapes: of the first feed, in the original and in the other model, where they differ.
    kept: channels that were compared and how many the original has, where the shapes differ and could be compared.
    """

    name: str
    operator: str
    output: str
    sqnr_db: float | None
    shapes: tuple[Shape, Shape] | None = None
    kept: tuple[int, int] | None = None

    def to_json(self) -> dict[str, object]:
        """Return the fields that the report shows."""
        shapes = [list(shape) for shape in self.shapes] if self.shapes else None
        sqnr_db = None if self.sqnr_db is None else round(self.sqnr_db, 2)
        line: dict[str, object] = {"name": self.name, "operator": self.operator, "output": self.output}
        line["sqnr_db"] = sqnr_db
        line |= {"kept": list(self.kept)} if self.kept else {}
        return {**line, "shapes": shapes} if shapes else line


def compare_layers(
    original: Model,
    other: Model,
    feeds: Iterable[Feeds],
    *,
    kept: Kept = MappingProxyType({}),
    threads: int = 0,
    provider: str | None = None,
) -> list[LayerParity]:
    """Return every layer that both models have, in the order of the original.

    Args:
        kept: see `Kept`; of a tensor that is missing here, only whole ones are compared.

    Raises:
        ModelError: a model does not run, or the two have no layer in common.
    """
    pairs = list(_pairs(original.proto, other.proto))
    if not pairs:
        raise ModelError("the models have no layer in common: no tensor and no node has the same name in both.")
    samples = list(islice(feeds, SAMPLES))
    found: list[LayerParity] = []
    for start in range(0, len(pairs), AT_ONCE):
        part = pairs[start : start + AT_ONCE]
        with (
            watching(original, [here for _, here, _ in part], threads, provider) as one,
            watching(other, [there for _, _, there in part], threads, provider) as two,
        ):
            found += _measured(part, one, two, samples, kept)
    return found


def first_below(layers: Iterable[LayerParity], bound: float) -> LayerParity | None:
    """Return the first layer whose SQNR in dB is below a bound."""
    return next((layer for layer in layers if layer.sqnr_db is not None and layer.sqnr_db < bound), None)


def _measured(
    part: list[tuple[onnx.NodeProto, str, str]], one: Session, two: Session, samples: list[Feeds], kept: Kept
) -> Iterator[LayerParity]:
    kinds = {port.name: port.kind for port in one.outputs}
    floats = [item for item in part if kinds.get(item[1]) in _FLOATS]
    meters = [Meter() for _ in floats]
    shapes: dict[str, tuple[Shape, Shape]] = {}
    for feeds in samples:
        first, second = one.run(_fed(one, feeds)), two.run(_fed(two, feeds))
        for meter, (_, here, there) in zip(meters, floats, strict=True):
            if here in first and there in second:
                values, others = first[here], second[there]
                if values.shape != others.shape:
                    shapes.setdefault(here, (values.shape, others.shape))
                meter.add(_left(values, others.shape, kept.get(here, {})), others)
    for meter, (node, here, _) in zip(meters, floats, strict=True):
        parity, differing = meter.result(), shapes.get(here)
        sqnr_db, counts = (parity.sqnr_db, _counts(differing)) if parity else (None, None)
        yield LayerParity(node.name or here, node.op_type, here, sqnr_db, differing, counts)


def _left(values: Array, shape: Shape, cut: Mapping[int, IntArray]) -> Array:
    """Return the positions that the other model still has, the whole where that gives another shape than it has."""
    part = values
    for axis, positions in cut.items():
        if axis < values.ndim and (not len(positions) or positions[-1] < values.shape[axis]):
            part = np.take(part, positions, axis)
    return part if part.shape == shape else values


def _counts(shapes: tuple[Shape, Shape] | None) -> tuple[int, int] | None:
    """Return how many channels are left, and how many there were, of the first axis that lost some."""
    pairs = zip(*shapes, strict=False) if shapes else ()
    return next(((left, whole) for whole, left in pairs if left < whole), None)


def _fed(session: Session, feeds: Feeds) -> Feeds:
    return {port.name: feeds[port.name] for port in session.inputs if port.name in feeds}


def _pairs(here: onnx.ModelProto, there: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str, str]]:
    """Yield (node of the first model, its tensor there, the tensor in the second model that stands for it)."""
    makers = {name: node for node in here.graph.node for name in node.output}
    return ((makers[name], first, second) for name, first, second in _named_pairs(here, there))


def _named_pairs(here: onnx.ModelProto, there: onnx.ModelProto) -> Iterator[tuple[str, str, str]]:
    """Yield (tensor, the tensor of the first model to look at for it, and that of the second)."""
    made = {name for node in there.graph.node for name in node.output if name}
    nodes = {node.name: node for node in there.graph.node if node.name}
    taken_over, dequantized = _taken_over(here, there), dequantized_names(there.graph)
    for node in here.graph.node:
        if node.op_type == "Constant":
            continue
        for index, name in enumerate(node.output):
            if not name:
                continue
            twin = nodes.get(node.name)
            other = name
            if name not in made and twin is not None and twin.op_type.removeprefix("QLinear") == node.op_type:
                other = twin.output[index] if index < len(twin.output) else ""
            if other in made:
                yield name, taken_over.get(name, name), dequantized.get(other, other)


def matched_names(here: onnx.ModelProto, there: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """Return tensor of the first model -> (tensor there, tensor in the second) that stand for it."""
    return {name: (first, second) for name, first, second in _named_pairs(here, there)}


def dequantized_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Return tensor -> what a QuantizeLinear and a DequantizeLinear make of it, where they follow."""
    integers = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    floats = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    made = {name for node in graph.node for name in node.output}
    return {name: floats[of] for name, of in integers.items() if of in floats and name in made}


def _taken_over(here: onnx.ModelProto, there: onnx.ModelProto) -> dict[str, str]:
    """Tensor -> what an activation makes of it, where the second model leaves that to the range of its integers."""
    makers = {name: node.op_type for node in there.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in here.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {
        name: users[0].output[0]
        for name, users in readers.items()
        if len(users) == 1
        and users[0].op_type in ("Relu", "Clip")
        and makers.get(users[0].output[0], users[0].op_type) != users[0].op_type
    }


def watching(model: Model, names: list[str], threads: int, provider: str | None) -> Session:
    """Return a session that hands out these tensors as well."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    del copy.graph.output[:]
    for name in dict.fromkeys(names):
        copy.graph.output.add(name=name)
    watched = replace(model, proto=copy, file_bytes=None)
    return open_session(watched, threads=threads, provider=provider, label=f"'{model.path}' with its layers watched")
