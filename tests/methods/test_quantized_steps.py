"""Steps on quantized models: the float form gives what the integers give, masters land on grids, losses shrink."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.compensate.gradient import Gradient
from onnxprune.compensate.rounding_gates import with_rounding
from onnxprune.graph.model import load
from onnxprune.graph.session import open_session
from onnxprune.methods.finetuning.code_grid import packed
from onnxprune.methods.finetuning.plain import plain_form
from onnxprune.methods.finetuning.written import written
from onnxprune.methods.quantization import weight_only
from onnxprune.methods.quantization.unpack import codes_of
from tests import networks

DRAW = np.random.default_rng(5)
X = DRAW.standard_normal((96, 3, 12, 12)).astype(np.float32)
FRESH = DRAW.standard_normal((32, 3, 12, 12)).astype(np.float32)
NET = networks.convnet(width=16)


def given(proto: onnx.ModelProto) -> np.ndarray:
    session = open_session(proto, threads=1, level="none", literal_rounding=True)
    return session.values(["logits"], {"x": FRESH})[0]


def far(proto: onnx.ModelProto) -> float:
    return float(np.square(given(proto) - given(NET)).mean())


def coarse(kind: Any = np.int8, levels: int = 3, block: int = 0) -> onnx.ModelProto:
    """Return the network with few levels of each weight, and activations in 8 bits."""
    proto = onnx.ModelProto()
    proto.CopyFrom(NET)
    graph, stored = proto.graph, {t.name: numpy_helper.to_array(t) for t in NET.graph.initializer}
    proto.opset_import[0].version, proto.ir_version = 21, 10
    nodes, tensors = [], [t for t in graph.initializer if t.name.startswith("b")]
    for name in ("w1", "w2", "w3"):
        weight = stored[name]
        if block and name == "w3":
            cut = weight.reshape(10, -1, block)
            scale = (np.abs(cut).max(2) / levels).astype(np.float32)
            codes = np.rint(weight / np.repeat(scale, block, 1))
            fields: dict[str, int] = {"axis": 1, "block_size": block}
        else:
            scale = (np.abs(weight.reshape(len(weight), -1)).max(1) / levels).astype(np.float32)
            codes = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
            fields = {"axis": 0}
        tensors += [
            numpy_helper.from_array(codes.astype(kind), f"{name}.q"),
            numpy_helper.from_array(scale, f"{name}.s"),
        ]
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", f"{name}.s"], [name], **fields))
    tensors += [numpy_helper.from_array(np.float32(0.05), "s"), numpy_helper.from_array(np.uint8(0), "z")]
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "Relu":
            plain = f"{node.output[0]}.plain"
            made, node.output[0] = node.output[0], plain
            nodes.append(helper.make_node("QuantizeLinear", [plain, "s", "z"], [f"{made}.codes"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{made}.codes", "s", "z"], [made]))
    whole = helper.make_graph(nodes, "g", list(graph.input), list(graph.output), tensors)
    return helper.make_model(whole, opset_imports=list(proto.opset_import), ir_version=10)


def rounded_when_run() -> onnx.ModelProto:
    """Return the network with a weight that is stored in float, and rounded whenever it runs."""
    proto = coarse()
    weight = next(t for t in NET.graph.initializer if t.name == "w2")
    scale = np.abs(numpy_helper.to_array(weight)).max() / np.float32(3)
    more = [numpy_helper.from_array(np.array(scale), "w2.one"), numpy_helper.from_array(np.int8(0), "w2.zero")]
    proto.graph.initializer.extend([weight, *more])
    proto.graph.initializer[-3].name = "w2.float"
    for node in list(proto.graph.node):
        if node.output[0] == "w2":
            node.CopyFrom(helper.make_node("DequantizeLinear", ["w2.codes", "w2.one", "w2.zero"], ["w2"]))
    before = helper.make_node("QuantizeLinear", ["w2.float", "w2.one", "w2.zero"], ["w2.codes"])
    proto.graph.node.insert(0, before)
    return proto


def in_blocks(bits: int = 4) -> onnx.ModelProto:
    """Return the network with its last product in blocks, which its 16 inputs do not fill."""
    proto = onnx.ModelProto()
    proto.CopyFrom(NET)
    head = proto.graph.node[-1]
    matrix = next(numpy_helper.to_array(t) for t in NET.graph.initializer if t.name == "w3").T
    codes, scales, zeros = weight_only.round_blocks(matrix, bits, 32)
    parts = {"w3.q": weight_only.pack(codes, bits), "w3.scales": scales, "w3.zeros": weight_only.pack(zeros, bits)}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in parts.items())
    fields = {"K": 16, "N": 10, "bits": bits, "block_size": 32}
    made = helper.make_node("MatMulNBits", ["flat", *parts, "", "b3"], ["logits"], domain="com.microsoft", **fields)
    head.CopyFrom(made)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


KINDS: dict[str, Any] = {
    "int8 codes": coarse,
    "int4 codes": lambda: coarse(ml_dtypes.int4),
    "int4 codes in blocks": lambda: coarse(ml_dtypes.int4, block=8),
    "int16 codes": lambda: coarse(np.int16),
    "rounded when it runs": rounded_when_run,
    "static": lambda: onnxprune.quantize(NET, {"x": X}, mode="static", guard=False, measure=False).model.proto,
    "products in blocks": in_blocks,
    "products in blocks of 8 bits": lambda: in_blocks(8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_float_form_gives_what_the_integers_give(kind: str) -> None:
    proto = KINDS[kind]()
    plain = plain_form(load(proto))
    assert plain.grids
    with_rounding(plain.model.proto, plain.gates)
    # onnxruntime multiplies in 8 bits in MatMulNBits, so that far apart there; elsewhere sums of floats, in any order
    near = 2e-2 if "products" in kind else 1e-5
    np.testing.assert_allclose(given(plain.model.proto), given(proto), atol=near)


@pytest.mark.parametrize("kind", ["int4 codes in blocks", "rounded when it runs", "products in blocks"])
def test_lost_quality_comes_back_and_weights_stay_on_their_grids(kind: str) -> None:
    proto = KINDS[kind]()
    found = onnxprune.finetune(NET, proto, {"x": X}, steps=300, run=onnxprune.Run(threads=1))
    result = found.model.proto
    assert far(result) < 0.9 * far(proto)
    old, new = ({t.name: t for t in p.graph.initializer} for p in (proto, result))
    assert {n: (t.data_type, list(t.dims)) for n, t in old.items()} == {
        n: (t.data_type, list(t.dims)) for n, t in new.items()
    }
    assert list(result.graph.node) == list(proto.graph.node)
    changed = {grid.stored for grid in plain_form(load(result)).grids.values() if new[grid.stored] != old[grid.stored]}
    assert changed or "products" in kind
    scales = [n for n in old if n.endswith((".s", ".scales", "zeros"))]
    assert scales and all(new[n] == old[n] for n in scales)


@pytest.mark.parametrize("kind", KINDS)
def test_masters_are_written_as_the_nearest_codes_and_read_back(kind: str) -> None:
    proto = KINDS[kind]()
    plain = plain_form(load(proto))
    before = {t.name: numpy_helper.to_array(t) for t in plain.model.proto.graph.initializer if t.name in plain.grids}
    gradient = Gradient(plain.model.proto, before, {}, {})
    same = written(load(proto), gradient, before, plain.grids).proto
    assert same == proto
    moved = {name: value + DRAW.normal(0, value.std() or 1, value.shape) for name, value in before.items()}
    result = written(load(proto), gradient, moved, plain.grids).proto
    after = {t.name: numpy_helper.to_array(t) for t in plain_form(load(result)).model.proto.graph.initializer}
    for name, grid in plain.grids.items():
        np.testing.assert_array_equal(after[name], grid.rounded(moved[name]))
        assert (after[name] != before[name]).any(), name
        step = np.broadcast_to(grid.scale, before[name].shape)
        inside = np.abs(moved[name] - after[name]) <= 0.5001 * step
        assert (inside | np.isin(grid.codes(moved[name]), (grid.low, grid.high))).all()


def test_zeros_of_sparse_integers_stay() -> None:
    sparse = onnxprune.sparsify(NET, pattern="2:4").model.proto
    proto = coarse()
    for tensor in proto.graph.initializer:
        if tensor.name == "w2.q":
            pattern = next(numpy_helper.to_array(t) for t in sparse.graph.initializer if t.name == "w2") != 0
            codes = np.where(pattern, np.where(numpy_helper.to_array(tensor) == 0, 1, numpy_helper.to_array(tensor)), 0)
            tensor.CopyFrom(numpy_helper.from_array(codes.astype(np.int8), "w2.q"))
    result = onnxprune.finetune(NET, proto, {"x": X}, steps=30, rate=0.03).model.proto
    after = next(numpy_helper.to_array(t) for t in result.graph.initializer if t.name == "w2.q")
    assert not after[~pattern].any() and after.any()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_in_bytes_survive(bits: int) -> None:
    codes = DRAW.integers(2**bits, size=(3, 2, 16)).astype(np.uint8)
    assert packed(codes, bits).shape == (3, 2, 16 * bits // 8)
    np.testing.assert_array_equal(codes_of(packed(codes, bits), bits), codes)


def test_what_rounds_an_activation_along_an_axis_is_refused_with_the_node() -> None:
    proto = coarse()
    for tensor in proto.graph.initializer:
        if tensor.name in ("s", "z"):
            several = np.full(16, numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(several, tensor.name))
    with pytest.raises(onnxprune.UsageError, match="DequantizeLinear 'r1'") as caught:
        onnxprune.finetune(NET, proto, {"x": X}, steps=2)
    assert "\n" not in str(caught.value)


def test_a_scale_that_is_computed_is_refused() -> None:
    proto = coarse()
    proto.graph.node.insert(0, helper.make_node("Abs", ["s"], ["s.made"]))
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name == "s" and node.op_type != "Abs":
                node.input[index] = "s.made"
    assert proto.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    with pytest.raises(onnxprune.UsageError, match="its scale is computed"):
        onnxprune.finetune(NET, proto, {"x": X}, steps=2)
