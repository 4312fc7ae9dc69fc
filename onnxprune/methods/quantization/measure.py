"""Which parts of a network are slower in int8 on this machine: each one is run both ways, in turns.

This is the one choice of the project that follows a clock: two runs can differ where both ways take about the same.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.methods.quantization import race
from onnxprune.methods.quantization.between import Flow
from onnxprune.methods.quantization.observe import each
from onnxprune.types import Array

Feeds = Mapping[str, Array]

OFF = ("CI", "ONNXPRUNE_NO_MEASURE")
"""Environment variables that turn measuring off where nobody asked for it: builds give the same bytes everywhere."""
PARTS = 16
"""So many different parts are measured at most, the ones with the most weights."""
PART_GAIN = 0.95
"""A part must take less than this share of the float time: in the whole network its borders cost more than alone."""


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
    """Return the names of the nodes of all parts of which it is not clear that they are faster in int8.

    Parts that are made alike are measured once. Where all is one part, the whole is measured anyway.

    Args:
        proto: prepared. quantized: the same in QDQ form, tensors under their names. floats: nodes that are float in it.
        feed: one sample.
    """
    flow = Flow(proto.graph)
    parts = regions(flow, floats)
    if len(parts) < 2:
        return set()
    borders = [(part, *_border(flow, part)) for part in parts]
    names = list(dict.fromkeys(name for _, inputs, _ in borders for name in inputs))
    values: dict[str, Array] = {}
    each(proto, names, [feed], lambda name, array: values.__setitem__(name, array), threads)
    kinds: dict[str, list[int]] = {}
    for number, (part, inputs, _) in enumerate(borders):
        kinds.setdefault(_kind(flow, part, [values[name] for name in inputs]), []).append(number)
    order = sorted(kinds.values(), key=lambda alike: -sum(_weights(flow, parts[number]) for number in alike))
    slow: set[str] = set()
    for alike in order[:PARTS]:
        _, inputs, outputs = borders[alike[0]]
        feeds = {name: values[name] for name in inputs}
        here, there = outputs, [_read(quantized.graph, name) for name in outputs]
        pace = race.run(_cut(proto, feeds, here), _cut(quantized, feeds, there), feeds, threads, PART_GAIN)
        if not pace.is_faster:
            slow |= {flow.nodes[place].name for number in alike for place in parts[number]}
    return slow


def _kind(flow: Flow, part: Collection[int], inputs: Iterable[Array]) -> str:
    """Return what tells a part from those that take another time: operators, attributes, shapes."""
    lines = [f"{array.dtype} {array.shape}" for array in inputs]
    for place in sorted(part):
        node = flow.nodes[place]
        stored = [tuple(flow.stored[name].dims) for name in node.input if name in flow.stored]
        lines.append(f"{node.op_type} {stored} {[a.SerializeToString(deterministic=True) for a in node.attribute]}")
    return "\n".join(lines)


def _weights(flow: Flow, part: Collection[int]) -> int:
    names = {name for place in part for name in flow.nodes[place].input if name in flow.stored}
    return sum(int(np.prod(flow.stored[name].dims)) for name in names)


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
