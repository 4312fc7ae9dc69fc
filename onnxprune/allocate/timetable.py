"""Predicted latency: every layer's time measured alone, at the widths that are asked about, kept on disk.

The layers that multiply are timed; the time of everything else is what is left of the whole model's, in proportion to
the elements that it writes. A prediction leads the search; whether it holds is measured on the whole model afterwards.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx

from onnxprune.allocate.measures import Measure
from onnxprune.channels.analyse import Channels
from onnxprune.channels.edits import AttributeList, AttributeSize, AttributeValue
from onnxprune.channels.groups import Keep
from onnxprune.errors import ModelError
from onnxprune.graph.session import Session, open_session
from onnxprune.graph.trace import Shape
from onnxprune.graph.view import Node
from onnxprune.operators.operator import operator_of
from onnxprune.statistics import cache
from onnxprune.types import Array, BoolArray

REPEATS, SECONDS, INNER = 20, 0.04, 5
SMALL = 4096
"""Constants up to this size are given their values: they may be bounds or sizes."""

_NO_TIME = np.zeros(0)


@dataclass(eq=False)
class Timetable:
    """Times of single layers in milliseconds, measured when they are first asked for.

    batch: of the trace, which is timed as one sample where it is dynamic.
    """

    channels: Channels
    threads: int = 0
    provider: str | None = None
    batch: int = 1
    _times: dict[str, float] = field(default_factory=dict)

    def measure(self, whole_ms: float) -> Measure:
        """Return masks -> predicted share of the latency that is left; `whole_ms` is the original's."""
        layers, written = self._parts({})
        rest = min(max(whole_ms - layers, 0.05 * whole_ms), layers)

        def share(keep: Keep) -> float:
            left, elements = self._parts(keep)
            return (left + rest * elements / max(written, 1)) / (layers + rest)

        return share

    def _parts(self, keep: Keep) -> tuple[float, int]:
        """Return the time of the layers that multiply and the elements that all others write."""
        shapes, mask = self.channels.shapes(keep), self.channels.mask(keep)
        layers, written = 0.0, 0
        for node in self.channels.view.nodes:
            dynamic = any(key in self.channels.trace.shapes and key not in self._static for key in node.outputs)
            if operator_of(node) is not None and not node.branches:
                layers += self._time(self._edited(node, mask), shapes)
            elif dynamic:
                written += sum(int(np.prod(self._one_sample(key, shapes.get(key, ())))) for key in node.outputs if key)
        return layers, written

    @property
    def _static(self) -> set[str]:
        return set(self.channels.view.parameters) | set(self.channels.trace.values)

    def _one_sample(self, key: str, shape: Shape) -> Shape:
        """Return a shape with a batch of one where the batch is dynamic."""
        traced = self.channels.trace.shapes.get(key)
        if traced is None or len(traced) != len(shape) or key in self._static:
            return shape
        dynamic = self.channels.trace.dynamic(key)
        return tuple(1 if moves and size == self.batch else size for size, moves in zip(shape, dynamic, strict=True))

    def _edited(self, node: Node, mask: BoolArray) -> Node:
        """Return a node whose attributes spell the sizes that are left."""
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        for edit in self.channels.state.edits:
            if edit.node is node and isinstance(edit, AttributeSize | AttributeValue | AttributeList):
                edit.apply(proto, mask)
        return replace(node, proto=proto)

    def _time(self, node: Node, shapes: dict[str, Shape]) -> float:
        inputs = [self._one_sample(key, shapes.get(key, ())) if key else None for key in node.inputs]
        attributes = {
            name: value for name, value in sorted(node.attributes.items()) if not isinstance(value, np.ndarray)
        }
        name = cache.key(
            "layer time", platform.processor(), platform.node(), self.threads, self.provider, node.domain, node.op_type,
            repr(attributes), inputs,
        )  # fmt: skip
        if name not in self._times:
            stored = cache.load(name)
            if stored is None or stored.get("ms", _NO_TIME).size != 1:
                stored = {"ms": np.array(self._run(node, inputs))}
                cache.store(name, stored)
            self._times[name] = float(stored["ms"])
        return self._times[name]

    def _run(self, node: Node, inputs: Sequence[Shape | None]) -> float:
        """Return the shortest time of one node alone; 0 if it does not run."""
        model, feeds = self._alone(node, inputs)
        outputs = [value.name for value in model.graph.output]
        try:
            session = open_session(model, threads=self.threads or None, provider=self.provider)
            return max(_shortest(session, outputs, feeds) - self._overhead, 1e-4)
        except ModelError:
            return 0.0

    def _alone(self, node: Node, inputs: Sequence[Shape | None]) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """Return a node as a model, its weights constant as in the whole, and inputs for it."""
        feeds: dict[str, Array] = {}
        graph = onnx.GraphProto(name="layer")
        names = []
        for index, (key, shape) in enumerate(zip(node.inputs, inputs, strict=True)):
            names.append(f"i{index}" if shape is not None else "")
            if shape is None:
                continue
            array = self._values(key, shape)
            if key in self._static:
                graph.initializer.append(onnx.numpy_helper.from_array(array, names[-1]))
            else:
                element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                graph.input.append(onnx.helper.make_tensor_value_info(names[-1], element, shape))
                feeds[names[-1]] = array
        made = onnx.NodeProto()
        made.CopyFrom(node.proto)
        del made.input[:], made.output[:]
        made.input.extend(names)
        outputs = [f"o{index}" if key else "" for index, key in enumerate(node.outputs)]
        made.output.extend(outputs)
        graph.node.append(made)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs[:1])
        model = onnx.ModelProto(ir_version=self.channels.view.model.proto.ir_version, graph=graph)
        model.opset_import.extend(self.channels.view.model.proto.opset_import)
        return model, feeds

    @cached_property
    def _overhead(self) -> float:
        """Return the time of a run that computes next to nothing."""
        ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "overhead", ends[:1], ends[1:])
        model = onnx.ModelProto(ir_version=self.channels.view.model.proto.ir_version, graph=graph)
        model.opset_import.extend(self.channels.view.model.proto.opset_import)
        session = open_session(model, threads=self.threads or None, provider=self.provider)
        return min(_shortest(session, ["y"], {"x": np.ones(1, np.float32)}) for _ in range(5))

    def _values(self, key: str, shape: Shape) -> Array:
        view, value = self.channels.view, self.channels.trace.values.get(key)
        parameter = view.parameters.get(view.root(key))
        if value is None and parameter is not None and parameter.elements <= SMALL:
            value = view.content(parameter.key)
        if value is not None and tuple(value.shape) == tuple(shape):
            return np.array(value)
        kind = np.dtype(np.float32)
        if parameter is not None:
            kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(parameter.data_type))
        return np.random.default_rng(0).standard_normal(shape).astype(kind)


def _shortest(session: Session, outputs: Sequence[str], feeds: dict[str, Array]) -> float:
    session.values(outputs, feeds)
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or (len(times) < REPEATS and time.perf_counter() - start < SECONDS):
        begin = time.perf_counter()
        for _ in range(INNER):
            session.values(outputs, feeds)
        times.append(1000 * (time.perf_counter() - begin) / INNER)
    return min(times)
