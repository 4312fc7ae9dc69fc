"""Which parts of a network are slower in int8 on this machine: each one is run both ways, in turns.

This is the one choice of the project that follows a clock: two runs can differ where both ways take about the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.graph.session import open_session
from onnxprune.methods.quantization.between import Flow
from onnxprune.methods.quantization.observe import each
from onnxprune.types import Array

Feeds = Mapping[str, Array]

OFF = ("CI", "ONNXPRUNE_NO_MEASURE")
"""Environment variables that turn measuring off where nobody asked for it: builds give the same bytes everywhere."""
LEAST_MS = 0.1
"""Models that run in less are not measured: nobody waits for them, and the clock says little."""
ROUNDS, SECONDS = 21, 0.15
"""Each pair runs so many times, or so long, whichever is more seldom reached; at least three times."""
WHOLE = 3
"""The whole model is run so much more often than a part: it decides whether anything is written."""
GAIN = 0.98
"""A part, and the whole, must take at most this share of the float time to be worth it."""


def wanted(choice: bool | None) -> bool:
    """Tell whether to measure: as asked, else unless the environment says that builds must repeat."""
    return (
        not any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in OFF)
        if choice is None
        else choice
    )


def slow_layers(
    proto: onnx.ModelProto, quantized: onnx.ModelProto, floats: Collection[str], feed: Feeds, threads: int
) -> set[str]:
    """Return the names of the nodes of all parts that are not faster in int8.

    Args:
        proto: prepared. quantized: the same as QDQ, tensors under their names. floats: nodes that are float in it.
        feed: one sample.
    """
    flow = Flow(proto.graph)
    parts = regions(flow, floats)
    borders = [(part, *_border(flow, part)) for part in parts]
    names = list(dict.fromkeys(name for _, inputs, _ in borders for name in inputs))
    values: dict[str, Array] = {}
    each(proto, names, [feed], lambda name, array: values.__setitem__(name, array), threads)
    slow: set[str] = set()
    for part, inputs, outputs in borders:
        feeds = {name: values[name] for name in inputs}
        models = [_cut(proto, feeds, outputs), _cut(quantized, feeds, [_read(quantized.graph, o) for o in outputs])]
        before, after = race(models, feeds, threads)
        if after > GAIN * before:
            slow |= {flow.nodes[place].name for place in part}
    return slow


def race(models: Sequence[onnx.ModelProto], feed: Feeds, threads: int, longer: int = 1) -> list[float]:
    """Return the milliseconds that each model takes for a feed, run in turns.

    The first one's are its least. The others' follow from their share of the first one's time: the larger one of that
    of the least times and the median of the rounds, whose runs stand side by side, so that a clock that changes its
    speed makes nothing look faster. On one thread the time of that thread alone is counted, which other programs on
    the machine hardly touch.

    Args:
        longer: how much more often than a part.
    """
    clock = time.thread_time if threads <= 1 else time.perf_counter
    sessions = [open_session(model.SerializeToString(), threads=threads or 1) for model in models]
    given = [session.fit(dict(feed)) for session in sessions]
    rounds: list[list[float]] = []
    start = time.perf_counter()
    most, seconds = ROUNDS * longer, SECONDS * longer * len(models)
    while len(rounds) < 4 or (len(rounds) <= most and time.perf_counter() - start < seconds):
        times = [0.0] * len(models)
        for turn in range(len(models)):
            number = (turn + len(rounds)) % len(models)
            begin = clock()
            sessions[number].native.run(None, given[number])
            times[number] = 1e3 * (clock() - begin)
        rounds.append(times)
    table = np.maximum(np.array(rounds[1:]), 1e-6)
    least = table.min(axis=0)
    shares = np.maximum(least / least[0], np.median(table / table[:, :1], axis=0))
    return [float(least[0] * share) for share in shares]


def regions(flow: Flow, floats: Collection[str]) -> list[set[int]]:
    """Return the connected parts of a graph that are quantized, but for those that only look something up."""
    open_ones = {place for place, node in enumerate(flow.nodes) if node.name not in floats}
    found = []
    while open_ones:
        part, todo = set[int](), [min(open_ones)]
        while todo:
            place = todo.pop()
            if place in open_ones:
                open_ones.discard(place)
                part.add(place)
                todo += [*flow.before(place), *flow.behind(place)]
        if any(flow.nodes[place].op_type in ("Conv", "Gemm", "MatMul") for place in part):
            found.append(part)
    return found


def _border(flow: Flow, part: Collection[int]) -> tuple[list[str], list[str]]:
    """Return the tensors that a part reads from outside, and those that are read outside."""
    outer = {value.name for value in flow.graph.output}
    made = {name for place in part for name in flow.nodes[place].output if name}
    inputs = [name for place in sorted(part) for name in flow.data(place) if name not in made]
    outputs = [name for name in sorted(made) if name in outer or {*flow.readers.get(name, ())} - {*part}]
    return list(dict.fromkeys(inputs)), outputs


def _read(graph: onnx.GraphProto, name: str) -> str:
    """Return the tensor that readers of a rounded one get."""
    rounded = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == name}
    found = [n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in rounded]
    return found[0] if found else name


def _cut(proto: onnx.ModelProto, feeds: Feeds, outputs: Iterable[str]) -> onnx.ModelProto:
    """Return the part of a model from some tensors to others."""
    makers = {name: place for place, node in enumerate(proto.graph.node) for name in node.output if name}
    places, todo, names = set[int](), list(outputs), set[str]()
    while todo:
        name = todo.pop()
        if name in names or name in feeds:
            continue
        names.add(name)
        if name in makers and makers[name] not in places:
            places.add(makers[name])
            todo += [other for other in proto.graph.node[makers[name]].input if other]
    ports = [helper.make_tensor_value_info(n, _type(a), None) for n, a in feeds.items()]
    given = [onnx.ValueInfoProto(name=name) for name in outputs]
    nodes = [proto.graph.node[place] for place in sorted(places)]
    stored = [tensor for tensor in proto.graph.initializer if tensor.name in names]
    made = helper.make_model(helper.make_graph(nodes, "part", ports, given, stored), ir_version=proto.ir_version)
    made.ClearField("opset_import")
    made.opset_import.extend(proto.opset_import)
    return made


def _type(array: Array) -> Any:
    return helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype)) or TensorProto.FLOAT
