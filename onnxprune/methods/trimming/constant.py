"""Inputs that become constants and sizes that become fixed, with what follows from them computed once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import ModelError, UsageError
from onnxprune.graph.bodies import has_body, reads
from onnxprune.graph.initializers import add
from onnxprune.graph.session import open_session
from onnxprune.graph.tensors import is_external
from onnxprune.methods.trimming.inline import inline_branch
from onnxprune.methods.trimming.spellings import Value
from onnxprune.types import Array

DRAWS = frozenset("RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout".split())
GROWTH = 1 << 16
"""Bytes past which a result that is larger than the weights it is computed from stays computed (an expanded mask)."""


def fix_inputs(model: onnx.ModelProto, values: Mapping[str, Value]) -> None:
    """Make inputs constant, and fold what follows from them; branches that are never taken go.

    Args:
        values: input -> a number, nested lists, an array, or the path of an .npy file.

    Raises:
        UsageError: there is no such input, or a value does not fit its type or shape.
        ModelError: onnxruntime cannot compute what follows.
    """
    if not values:
        return
    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    for name, value in values.items():
        if name not in inputs:
            close = difflib.get_close_matches(name, inputs, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(inputs)}."
            raise UsageError(f"the model has no input '{name}' to fix; {hint}")
        array = fixed_value(inputs[name], value)
        graph.input.remove(inputs[name])
        add(model, name, array)
    known = set(values)
    while _fold(model, known) or _take_branches(graph, known):
        pass


def fix_dims(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    """Give dynamic dimensions a size, wherever they are declared.

    Raises:
        UsageError: no input has a dimension of that name, or a size is no positive number.
    """
    graph = model.graph
    known = {d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim if d.dim_param}
    for name, size in sizes.items():
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise UsageError(f"no input has a dimension '{name}'; there are {there}.")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 1 << 31:
            raise UsageError(f"dimension '{name}': {size!r} is no size; give a whole number from 1.")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]


def fixed_value(declared: onnx.ValueInfoProto, value: Value) -> Array:
    """Return the value of an input as an array of its type and shape.

    Raises:
        UsageError: it does not fit.
    """
    name, kind = declared.name, declared.type.tensor_type
    if declared.type.WhichOneof("value") != "tensor_type":
        raise UsageError(f"input '{name}' is no tensor; it cannot be fixed.")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    try:
        array = np.asarray(value)
        cast = np.asarray(array.astype(dtype))
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"input '{name}': {value!r} is no {dtype} ({error}).") from error
    if dtype.kind != "f" and not np.array_equal(cast, array):
        raise UsageError(f"input '{name}': {value!r} does not fit {dtype}.")
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim] if kind.HasField("shape") else None
    if dims is not None and cast.ndim == 0 and all(size > 0 for size in dims):
        cast = np.broadcast_to(cast, dims).copy()
    if dims is not None and (
        cast.ndim != len(dims) or any(d and d != size for d, size in zip(dims, cast.shape, strict=True))
    ):
        spelled = [size or "?" for size in dims]
        raise UsageError(f"input '{name}' has shape {spelled}; the value has {list(cast.shape)}.")
    return np.asarray(cast)


def read_value(name: str, text: Value) -> Value:
    """Return what a word stands for: a number, true or false, or the content of an .npy file; other values pass.

    Raises:
        UsageError: it stands for nothing.
    """
    if not isinstance(text, str):
        return text
    try:
        if text.endswith(".npy"):
            return np.asarray(np.load(Path(text), allow_pickle=False))
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        return float(text) if "." in text or "e" in text.lower() else int(text)
    except (OSError, ValueError) as error:
        what = f"cannot be read ({error})" if text.endswith(".npy") else "is no number and no .npy file"
        raise UsageError(f"input '{name}': '{text[:80]}' {what}.") from error


def _fold(model: onnx.ModelProto, known: set[str]) -> bool:
    """Compute every node that follows from the known constants; return whether any was."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer if not is_external(tensor)}
    constant = set(stored) | {n.output[0] for n in graph.node if n.op_type == "Constant" and not n.domain}
    follows = set(known)
    chosen: list[onnx.NodeProto] = []
    for node in graph.node:
        taken = {name for name in node.input if name}
        if node.domain or node.op_type in DRAWS or not taken & follows or not taken <= constant | follows:
            continue
        if has_body(node):
            continue
        chosen.append(node)
        follows |= {name for name in node.output if name}
    if not chosen:
        return False
    wanted = _frontier(graph, chosen, follows - known)
    results = _compute(model, chosen, wanted)
    reads = {name for node in chosen for name in node.input}
    least = sum(len(stored[name].raw_data) for name in reads if name in stored)
    if sum(value.nbytes for value in results.values()) > max(GROWTH, least):
        return False
    for name, value in results.items():
        add(model, name, value)
    outputs = {output.name for output in graph.output}
    for node in chosen:
        graph.node.remove(node)
    for name in sorted(outputs & set(wanted)):
        _pass_on(graph, name)
    known |= set(wanted)
    return True


def _frontier(graph: onnx.GraphProto, chosen: list[onnx.NodeProto], made: set[str]) -> list[str]:
    """Return the results that something else reads."""
    inside = {id(node) for node in chosen}
    read = {output.name for output in graph.output}
    for node in graph.node:
        if id(node) not in inside:
            read.update(reads(node))
    return sorted(made & read)


def _compute(model: onnx.ModelProto, nodes: list[onnx.NodeProto], wanted: list[str]) -> dict[str, Array]:
    """Run nodes that need no input in onnxruntime."""
    needed = {name for node in nodes for name in node.input}
    graph = model.graph
    piece = onnx.ModelProto()
    piece.ir_version = model.ir_version
    piece.opset_import.extend(model.opset_import)
    piece.graph.name = "constants"
    piece.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in needed)
    made = {name for node in nodes for name in node.output}
    piece.graph.node.extend(
        n for n in graph.node if n.op_type == "Constant" and not n.domain and n.output[0] in needed - made
    )
    piece.graph.node.extend(nodes)
    piece.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    inferred = onnx.shape_inference.infer_shapes(piece)
    if len(inferred.graph.output) == len(wanted):
        piece = inferred
    with open_session(piece.SerializeToString(), level="none") as session:
        return session.run({})


def _pass_on(graph: onnx.GraphProto, name: str) -> None:
    """An output of the graph that is constant now: a node gives it, as runtimes expect."""
    tensor = next(t for t in graph.initializer if t.name == name)
    tensor.name = f"{name}_constant"
    for value in graph.input:  # before IR version 4 what is stored is an input too
        value.name = tensor.name if value.name == name else value.name
    for node in graph.node:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = tensor.name
    graph.node.append(onnx.helper.make_node("Identity", [tensor.name], [name], name=f"{name}_constant"))


def _take_branches(graph: onnx.GraphProto, known: set[str]) -> bool:
    """Put the branch that a constant condition takes in the place of its If; return whether there was one."""
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.name in known}
    for number, node in enumerate(graph.node):
        if node.op_type != "If" or node.domain or node.input[0] not in stored:
            continue
        condition = numpy_helper.to_array(stored[node.input[0]])
        if condition.size != 1:
            raise ModelError(f"If '{node.name}': its condition has {condition.size} values.")
        inline_branch(graph, number, "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        return True
    return False
