"""Small whole models for tests of the command line and of validation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> list[TensorProto]:
    """Return normal initializers, scaled so that activations keep their size."""
    rng = np.random.default_rng(seed)
    return [
        numpy_helper.from_array(
            (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return a model of opset 17 that every onnxruntime in use reads."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(initializers))
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def convnet(seed: int = 0, batch: int | str = "batch", width: int = 32) -> onnx.ModelProto:
    """Return two convolutions and a classifier: x (batch, 3, 12, 12) -> logits (batch, 10)."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], "head", transB=1),
    ]
    parameters = weights(
        seed, w1=(width, 3, 3, 3), b1=(width,), w2=(width, width, 3, 3), b2=(width,), w3=(10, width), b3=(10,)
    )
    return model(
        nodes,
        [helper.make_tensor_value_info("x", FLOAT, [batch, 3, 12, 12])],
        [helper.make_tensor_value_info("logits", FLOAT, [batch, 10])],
        parameters,
    )


def custom(seed: int = 0) -> onnx.ModelProto:
    """Return the convnet behind an operator of a domain that onnxruntime does not have."""
    proto = convnet(seed)
    proto.graph.node.insert(0, helper.make_node("Mystery", ["x"], ["y"], "mystery", domain="my.company"))
    proto.graph.node[1].input[0] = "y"
    proto.graph.value_info.append(helper.make_tensor_value_info("y", FLOAT, ["batch", 3, 12, 12]))
    proto.opset_import.append(helper.make_opsetid("my.company", 1))
    return proto


def store(proto: onnx.ModelProto, path: Path) -> Path:
    """Write a model and return its path."""
    onnx.save(proto, path)
    return path
