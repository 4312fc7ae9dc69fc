"""Take away what no kept output needs: nodes, weights, inputs, declarations."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

import onnx

from onnxprune.errors import UsageError
from onnxprune.graph.bodies import reads


def keep_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Leave only the named outputs, in the order that the model has them.

    Raises:
        UsageError: the model has no such output.
    """
    known = [output.name for output in model.graph.output]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}."
            raise UsageError(f"the model has no output '{name}'; {hint}")
    kept = [output for output in model.graph.output if output.name in set(names)]
    copies = [onnx.ValueInfoProto.FromString(output.SerializeToString()) for output in kept]
    del model.graph.output[:]
    model.graph.output.extend(copies)


def strip(model: onnx.ModelProto, *, inputs: bool = True, spare: Collection[str] = ()) -> tuple[str, ...]:
    """Remove nodes, initializers, declarations and inputs that no output needs; bodies are left as they are.

    Args:
        inputs: inputs that nothing reads go too.
        spare: names that stay although no output needs them.

    Returns:
        the names of the inputs that went.
    """
    graph = model.graph
    keep, needed = _needed(graph, spare)
    _filter(graph.node, keep)
    made = {name for node in graph.node for name in node.output}
    stored = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    _filter(graph.initializer, [tensor.name in needed for tensor in graph.initializer])
    _filter(graph.sparse_initializer, [sparse.values.name in needed for sparse in graph.sparse_initializer])
    there = needed & (made | stored | {value.name for value in graph.input})
    _filter(graph.value_info, [value.name in there for value in graph.value_info])
    _filter(graph.quantization_annotation, [note.tensor_name in there for note in graph.quantization_annotation])
    gone = tuple(v.name for v in graph.input if v.name not in needed and (inputs or v.name in stored))
    _filter(graph.input, [value.name not in gone for value in graph.input])
    return tuple(name for name in gone if name not in stored)


def unneeded(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the names of tensors and inputs of a graph that no output needs."""
    names = {name for node in graph.node for name in node.output if name}
    names |= {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    return frozenset((names | {value.name for value in graph.input}) - _needed(graph)[1])


def _needed(graph: onnx.GraphProto, spare: Collection[str] = ()) -> tuple[list[bool], set[str]]:
    """Return which nodes the outputs need, and which tensors."""
    needed = {output.name for output in graph.output} | set(spare)
    keep: list[bool] = []
    for node in reversed(graph.node):
        used = any(name in needed for name in node.output if name)
        keep.append(used)
        if used:
            needed.update(reads(node))
    return list(reversed(keep)), needed


def _filter(field: object, keep: Sequence[bool]) -> None:
    """Delete the entries of a repeated field that do not stay."""
    repeated: list[object] = field  # type: ignore[assignment]  # all repeated fields delete alike
    for number in range(len(keep) - 1, -1, -1):
        if not keep[number]:
            del repeated[number]
