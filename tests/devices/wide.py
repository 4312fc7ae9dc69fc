"""A network whose widths a machine that pads to 32 can tell apart."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests import networks

WIDTHS = (128, 192, 128, 160)


def wide(widths: tuple[int, ...] = WIDTHS) -> onnx.ModelProto:
    """Return a chain of convolutions and a classifier: x (batch, 3, 8, 8) -> logits (batch, 10)."""
    rng = np.random.default_rng(0)
    nodes, stored, before, tensor = [], [], 3, "x"
    for number, width in enumerate(widths):
        weight = rng.standard_normal((width, before, 3, 3)) / np.sqrt(9 * before)
        stored.append(numpy_helper.from_array(weight.astype(np.float32), f"w{number}"))
        nodes.append(helper.make_node("Conv", [tensor, f"w{number}"], [f"c{number}"], f"conv{number}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"], f"relu{number}"))
        before, tensor = width, f"r{number}"
    head = rng.standard_normal((10, before)) / np.sqrt(before)
    stored.append(numpy_helper.from_array(head.astype(np.float32), "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head"], ["logits"], "gemm", transB=1),
    ]
    ends = [("x", ["batch", 3, 8, 8]), ("logits", ["batch", 10])]
    ports = [helper.make_tensor_value_info(name, networks.FLOAT, shape) for name, shape in ends]
    return networks.model(nodes, ports[:1], ports[1:], stored)
