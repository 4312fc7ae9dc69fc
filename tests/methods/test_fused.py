"""Fused layers are refitted like those that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import NothingToPruneError
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.types import Array
from tests.methods.test_bodies import run, same

OPTIONS = PruneOptions(ratio=0.5, compensate="lstsq", align=1)
RUNTIME = Runtime(threads=1)
MICROSOFT = "com.microsoft"
Nodes = Sequence[onnx.NodeProto]


def network(nodes: Nodes, table: dict[str, Array], x: Sequence[int], y: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *[None] * y])]
    tensors = [numpy_helper.from_array(array, name) for name, array in table.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, tensors), opset_imports=opsets, ir_version=8
    )


def drawn(*shape: int, seed: int) -> Array:
    fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    values: Array = (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(fan)).astype(np.float32)
    return values


def convolutions() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    table = {"w1": drawn(12, 3, 3, seed=0), "b1": drawn(12, seed=1), "w2": drawn(16, 12, 3, seed=2)}
    table |= {"b2": drawn(16, seed=3), "w3": drawn(5, 16, 3, seed=4)}
    fused = [
        helper.make_node(
            "FusedConv", ["x", "w1", "b1"], ["r1"], "c1", domain=MICROSOFT, activation="Relu", pads=[1, 1]
        ),
        helper.make_node(
            "FusedConv", ["r1", "w2", "b2"], ["r2"], "c2", domain=MICROSOFT,
            activation="LeakyRelu", activation_params=[0.1], pads=[1, 1],
        ),
        helper.make_node("FusedConv", ["r2", "w3"], ["y"], "c3", domain=MICROSOFT, pads=[1, 1]),
    ]  # fmt: skip
    plain = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a1"], "c1", pads=[1, 1]),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["a2"], "c2", pads=[1, 1]),
        helper.make_node("LeakyRelu", ["a2"], ["r2"], alpha=0.1),
        helper.make_node("Conv", ["r2", "w3"], ["y"], "c3", pads=[1, 1]),
    ]
    return network(fused, table, (3, 8), 2), network(plain, table, (3, 8), 2)


def gemms() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    table = {"w1": drawn(24, 6, seed=0), "b1": drawn(24, seed=1), "w2": drawn(24, 5, seed=2), "b2": drawn(5, seed=3)}
    fused = [
        helper.make_node("FusedGemm", ["x", "w1", "b1"], ["r1"], "g1", domain=MICROSOFT, activation="Relu", transB=1),
        helper.make_node("FusedGemm", ["r1", "w2", "b2"], ["y"], "g2", domain=MICROSOFT, activation="Tanh"),
    ]
    plain = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a1"], "g1", transB=1),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Gemm", ["r1", "w2", "b2"], ["a2"], "g2"),
        helper.make_node("Tanh", ["a2"], ["y"]),
    ]
    return network(fused, table, (6,), 1), network(plain, table, (6,), 1)


def products() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    table = {"w1": drawn(6, 24, seed=0), "w2": drawn(5, 24, seed=2), "half": np.array(0.5, np.float32)}
    fused = [
        helper.make_node("FusedMatMul", ["x", "w1"], ["a1"], "m1", domain=MICROSOFT),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("FusedMatMul", ["r1", "w2"], ["y"], "m2", domain=MICROSOFT, transB=1, alpha=0.5),
    ]
    plain = [
        helper.make_node("MatMul", ["x", "w1"], ["a1"], "m1"),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Transpose", ["w2"], ["w2t"], perm=[1, 0]),
        helper.make_node("MatMul", ["r1", "w2t"], ["a2"], "m2"),
        helper.make_node("Mul", ["a2", "half"], ["y"]),
    ]
    used = {name: array for name, array in table.items() if name != "half"}
    return network(fused, used, (4, 6), 2), network(plain, table, (4, 6), 2)


def shared() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A small matrix that two layers read the other way round: each gets a copy of its own."""
    table = {"w1": drawn(6, 24, seed=0), "v1": drawn(6, 24, seed=1), "w2": drawn(5, 24, seed=2)}
    ends = [
        helper.make_node("MatMul", ["x", "w1"], ["a1"], "m1"),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("MatMul", ["x", "v1"], ["d1"], "n1"),
        helper.make_node("Tanh", ["d1"], ["t1"]),
    ]
    total = helper.make_node("Mul", ["y1", "y2"], ["y"])
    fused = [
        helper.make_node("FusedMatMul", ["r1", "w2"], ["y1"], "m2", domain=MICROSOFT, transB=1),
        helper.make_node("FusedMatMul", ["t1", "w2"], ["y2"], "n2", domain=MICROSOFT, transB=1),
    ]
    plain = [
        helper.make_node("Transpose", ["w2"], ["w2t"], perm=[1, 0]),
        helper.make_node("MatMul", ["r1", "w2t"], ["y1"], "m2"),
        helper.make_node("MatMul", ["t1", "w2t"], ["y2"], "n2"),
    ]
    return network([*ends, *fused, total], table, (4, 6), 2), network([*ends, *plain, total], table, (4, 6), 2)


def contractions() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    table = {"w1": drawn(6, 24, seed=0), "w2": drawn(5, 24, seed=2)}
    written = [
        helper.make_node("Einsum", ["x", "w1"], ["a1"], "e1", equation="btc,cd->btd"),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Einsum", ["r1", "w2"], ["y"], "e2", equation="btd,od->bto"),
    ]
    plain = [
        helper.make_node("MatMul", ["x", "w1"], ["a1"], "e1"),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Transpose", ["w2"], ["w2t"], perm=[1, 0]),
        helper.make_node("MatMul", ["r1", "w2t"], ["y"], "e2"),
    ]
    return network(written, table, (4, 6), 2), network(plain, table, (4, 6), 2)


def attentions() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    table = {
        "w0": drawn(6, 24, seed=0),
        "w1": drawn(24, 48, seed=1),
        "b1": drawn(48, seed=2),
        "w2": drawn(16, 5, seed=3),
    }
    sizes = np.array([16, 16, 16], np.int64)
    ends = [helper.make_node("MatMul", ["x", "w0"], ["a0"], "m0"), helper.make_node("Relu", ["a0"], ["r0"])]
    last = helper.make_node("MatMul", ["z", "w2"], ["y"], "m2")
    whole = helper.make_node("Attention", ["r0", "w1", "b1"], ["z"], "att", domain=MICROSOFT, num_heads=2)
    parts = [
        helper.make_node("MatMul", ["r0", "w1"], ["packed"], "att"),
        helper.make_node("Add", ["packed", "b1"], ["biased"]),
        helper.make_node("Split", ["biased", "sizes"], ["q", "k", "v"], axis=-1),
        helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["z"], domain=MICROSOFT, num_heads=2),
    ]
    return network([*ends, whole, last], table, (4, 6), 2), network(
        [*ends, *parts, last], {**table, "sizes": sizes}, (4, 6), 2
    )


def samples(proto: onnx.ModelProto, seed: int = 1) -> list[dict[str, Array]]:
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    generator = np.random.default_rng(seed)
    base = np.random.default_rng(9).standard_normal((3, *shape))
    mixed = np.tensordot(generator.standard_normal((40, 3)), base, 1) + 0.3 * generator.standard_normal((40, *shape))
    return [{"x": mixed[start : start + 4].astype(np.float32)} for start in range(0, 40, 4)]


@pytest.mark.parametrize("make", [convolutions, gemms, products, shared, contractions, attentions])
def test_a_fused_layer_is_refitted_like_its_parts(make: Callable[[], tuple[onnx.ModelProto, onnx.ModelProto]]) -> None:
    fused, plain = make()
    fresh = samples(fused, seed=7)
    assert same(run(fused, fresh), run(plain, fresh))
    result = prune(fused, OPTIONS, samples(fused), runtime=RUNTIME)
    wanted = prune(plain, OPTIONS, samples(fused), runtime=RUNTIME)
    assert not any(reason.startswith("read by") for reason in result.reasons.values())
    assert [node.op_type for node in result.model.proto.graph.node] == [node.op_type for node in fused.graph.node]
    assert same(run(result.model, fresh), run(wanted.model, fresh))
    assert not same(run(result.model, fresh), run(fused, fresh))


def test_what_no_refit_knows_is_left_alone_and_cut_when_asked_for() -> None:
    """The weight of three axes that every sample shares is no matrix."""
    table = {"w1": drawn(6, 24, seed=0), "w2": drawn(1, 24, 5, seed=2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a1"], "m1"),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("MatMul", ["r1", "w2"], ["y"], "m2"),
    ]
    proto = network(nodes, table, (4, 6), 2)
    with pytest.raises(NothingToPruneError, match=r"read by MatMul.*cut_unfitted"):
        prune(proto, OPTIONS, samples(proto), runtime=RUNTIME)
    cut = prune(proto, replace(OPTIONS, cut_unfitted=True), samples(proto), runtime=RUNTIME)
    assert cut.keep
    assert any("read by MatMul 'm2'" in warning for warning in cut.warnings)
    assert prune(proto, replace(OPTIONS, compensate="none"), samples(proto), runtime=RUNTIME).keep
