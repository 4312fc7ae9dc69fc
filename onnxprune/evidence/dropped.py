"""The masked original of a model without some branches: the whole original, whose branches are multiplied by zero."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.evidence import oracle
from onnxprune.evidence.masked import MaskedOriginal
from onnxprune.graph import initializers
from onnxprune.graph.bodies import reads
from onnxprune.graph.branches import Branch
from onnxprune.graph.drop import BIASES, Shortened, sum_of
from onnxprune.graph.initializers import free_name
from onnxprune.graph.tensors import is_external


def masked_original(channels: Channels, keep: Keep, short: Shortened | None) -> MaskedOriginal:
    """Return the original with the removed slices zeroed, and the results of dropped branches.

    Args:
        channels: of what the dropped branches left.
        short: None where none were dropped.
    """
    masked = oracle.masked_model(channels, keep)
    if short is None:
        return masked
    return _silenced(masked, short, set(channels.plan(keep).removed)) or with_branches(masked, short)


def _silenced(masked: MaskedOriginal, short: Shortened, removed: Collection[str]) -> MaskedOriginal | None:
    """Return the whole original, branches times zero and slices zeroed; None where masking took more than that."""
    old, new = ([n for n in m.proto.graph.node if n.op_type != "Constant"] for m in (short.model, masked))
    if old != new:
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(short.whole.proto)
    stored = {tensor.name: tensor for tensor in masked.proto.graph.initializer}
    for tensor in proto.graph.initializer:
        if tensor.name in removed:
            tensor.CopyFrom(stored[tensor.name])
    constants = {n.output[0]: n for n in masked.proto.graph.node if n.op_type == "Constant" and n.output[0] in removed}
    ends = {branch.end.proto.output[0]: branch for branch in short.branches}
    taken, nodes = set(short.view.keys), list[onnx.NodeProto]()
    for node in proto.graph.node:
        branch = ends.get(node.output[0]) if node.output else None
        if branch is not None:
            nothing = free_name(f"{node.output[0]}_nothing", taken)
            nodes.append(_times_zero(proto, branch, short, nothing, taken))
            node.input[branch.place] = nothing
            if node.op_type in BIASES:
                del node.input[BIASES[node.op_type] :]
        nodes.append(constants.get(node.output[0], node) if node.output else node)
    _write(proto.graph, nodes)
    return replace(masked, proto=proto, path=short.whole.path)


def with_branches(masked: MaskedOriginal, short: Shortened) -> MaskedOriginal:
    """Return the masked original of what is left, with the branches put back and their results times zero.

    Args:
        masked: the model without the branches, slices that went zeroed.
    """
    proto, whole = onnx.ModelProto(), short.whole.proto
    proto.CopyFrom(masked.proto)
    graph = proto.graph
    sums = {sum_of(branch): branch for branch in short.branches}
    nodes = [node for node in graph.node if not (node.op_type == "Identity" and node.output[0] in sums)]
    skips = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    there = {name for node in graph.node for name in node.output}
    nodes += [node for node in whole.graph.node if not there & set(node.output) and not _is_end(node, short)]
    taken = there | short.view.keys | {tensor.name for tensor in graph.initializer}
    for name, branch in sums.items():
        nothing = free_name(f"{name}_nothing", taken)
        nodes.append(_times_zero(proto, branch, short, nothing, taken))
        nodes.append(helper.make_node("Add", [skips.get(name, branch.skip), nothing], [name]))
        nodes += _norm_again(branch, nothing, there)
    _put_back(graph, short)
    _write(graph, _sorted(nodes))
    return replace(masked, proto=proto)


def _norm_again(branch: Branch, nothing: str, there: Collection[str]) -> list[onnx.NodeProto]:
    """Return the norm of an end that nothing reads but other branches that went: they are put back and read it."""
    if branch.end.op_type not in BIASES or branch.end.proto.output[0] in there:
        return []
    norm = onnx.NodeProto.FromString(branch.end.proto.SerializeToString())
    norm.input[branch.place] = nothing
    del norm.output[1:], norm.input[BIASES[norm.op_type] :]
    return [norm]


def _times_zero(
    proto: onnx.ModelProto, branch: Branch, short: Shortened, result: str, taken: set[str]
) -> onnx.NodeProto:
    """Return what multiplies the result of a branch by zero."""
    zero = free_name(f"{result}_factor", taken)
    kind = short.trace.data_type(branch.end.inputs[branch.place]) or onnx.TensorProto.FLOAT
    initializers.add(proto, zero, np.zeros((), helper.tensor_dtype_to_np_dtype(kind)))
    return helper.make_node("Mul", [branch.end.proto.input[branch.place], zero], [result])


def _write(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _is_end(node: onnx.NodeProto, short: Shortened) -> bool:
    return any(node.output[:1] == branch.end.proto.output[:1] for branch in short.branches)


def _put_back(graph: onnx.GraphProto, short: Shortened) -> None:
    """Give the graph the weights and inputs of the branches again."""
    whole = short.whole.proto.graph
    stored = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    for tensor in whole.initializer:
        if tensor.name not in stored:
            array = short.whole.array(tensor) if is_external(tensor) else None
            graph.initializer.append(tensor if array is None else onnx.numpy_helper.from_array(array, tensor.name))
    graph.sparse_initializer.extend(s for s in whole.sparse_initializer if s.values.name not in stored)
    known = {value.name for value in graph.input}
    graph.input.extend(value for value in whole.input if value.name not in known)


def _sorted(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes in an order in which every one follows what it reads."""
    waits = [{*reads(node)} for node in nodes]
    makers = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    before = [{makers[name] for name in names if name in makers} for names in waits]
    order: list[int] = []
    done: set[int] = set()
    for first in range(len(nodes)):
        stack = [first]
        while stack:
            number = stack[-1]
            open_ = [other for other in before[number] if other not in done]
            if number in done or not open_:
                stack.pop()
                order += [] if number in done else [number]
                done.add(number)
            else:
                stack += open_
    return [nodes[number] for number in order]
