"""Products behind a Transpose of the batch, written the other way round for float16.

onnxruntime fuses such a Transpose into the product; where the weight is float16, its CPU build (1.32) dies of that
while it opens the model. `Transpose(x) @ w` is `Transpose(x @ w)` as long as the last axis stays, number for number.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import helper

from onnxprune.graph.bodies import reads
from onnxprune.graph.initializers import free_name
from onnxprune.methods.quantization.lift import all_names


def product_first(graph: onnx.GraphProto, left: Collection[str]) -> None:
    """Let products with a stored matrix come before the Transpose that turns their first axis inwards, in place.

    Args:
        left: names of nodes that stay as they are.
    """
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    turns = {node.output[0]: node for node in graph.node if node.op_type == "Transpose" and _turns_batch(node)}
    taken = all_names(graph)
    made: list[onnx.NodeProto] = []
    for node in graph.node:
        turn = turns.get(node.input[0]) if node.op_type == "MatMul" and node.name not in left else None
        if turn is None or node.domain or node.input[1] not in matrices:
            made.append(node)
            continue
        inner = free_name(f"{node.output[0]}_before_transpose", taken)
        if node.output[0] in types or any(node.output[0] == value.name for value in graph.output):
            known = types.get(node.output[0]) or onnx.TensorProto.FLOAT
            graph.value_info.append(helper.make_tensor_value_info(inner, known, None))
        product, after = onnx.NodeProto(), onnx.NodeProto()
        product.CopyFrom(node)
        after.CopyFrom(turn)
        product.input[0], product.output[0] = turn.input[0], inner
        after.input[0], after.output[0], after.name = inner, node.output[0], f"{node.name}_transpose"
        made += [product, after]
    if len(made) == len(graph.node):
        return
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in _needed(made, graph)]
    del graph.node[:]
    graph.node.extend(copies)


def _turns_batch(node: onnx.NodeProto) -> bool:
    """Tell whether a Transpose moves the first axis before the last and leaves all others in order."""
    perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
    rank = len(perm)
    return rank > 2 and not node.domain and perm == [*range(1, rank - 1), 0, rank - 1]


def _needed(nodes: list[onnx.NodeProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes without the Transposes that nobody reads any more."""
    read = {value.name for value in graph.output}
    for node in nodes:
        read.update(reads(node))
    return [node for node in nodes if node.op_type != "Transpose" or node.domain or node.output[0] in read]
