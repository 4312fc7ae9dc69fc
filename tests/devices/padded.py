"""A machine that is not here: it pads channels to multiples of 32, and moving a layer in costs time.

python padded.py MODEL [MODEL ..] prints a time in ms for each model.
"""

import sys
from math import prod

import onnx

PADDED, GIGA = 32, 2e-6
"""Multiple; ms for a million multiply-adds is GIGA * 1e6."""


def up(channels: int) -> int:
    """Return what so many channels run as; one channel in a group is a narrow unit's business."""
    return channels if channels == 1 else -(-channels // PADDED) * PADDED


def milliseconds(model: onnx.ModelProto) -> float:
    """Return the time of a sample."""
    proto = onnx.shape_inference.infer_shapes(model)
    stored = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*proto.graph.value_info, *proto.graph.output)}
    total = 0.01
    for node in proto.graph.node:
        weight = stored.get(node.input[1], ()) if len(node.input) > 1 else ()
        if node.op_type == "Conv":
            places = prod(dim.dim_value or 1 for dim in shapes[node.output[0]][2:]) if node.output[0] in shapes else 1
            total += GIGA * up(weight[0]) * up(weight[1]) * prod(weight[2:]) * places + 0.0005
        elif node.op_type in ("Gemm", "MatMul") and len(weight) == 2:
            total += GIGA * up(weight[0]) * up(weight[1]) + 0.0005
    return total


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(f"{milliseconds(onnx.load(path)):.6f} ms")
