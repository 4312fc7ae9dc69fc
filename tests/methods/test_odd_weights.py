"""Weights that the quantizers cannot have in the way that they have plain matrices: stacks, vectors, shared ones."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.methods.factorize import factorize
from onnxprune.methods.factorize_options import FactorizeOptions
from onnxprune.methods.quantization.integer import unshare_axes
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from tests.methods.test_normal_form import check, drawn, model, node, run

WAYS = pytest.mark.parametrize(
    ("mode", "asked"),
    [("dynamic", {}), ("static", {}), ("static", {"format": "qoperator"}), ("static", {"per_channel": False})],
    ids=["dynamic", "qdq", "qoperator", "tensor"],
)


def experts(form: str) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Return products with a stack of matrices: of each sample's own, of experts for all, of one alone."""
    relu = node("Relu", ["h"], ["r"])
    second = node("MatMul", ["r", "w2"], ["y"])
    if form == "batch":
        stored = {"w": drawn(4, 32, 48) / 6, "w2": drawn(1, 48, 16) / 7}
        return model([node("MatMul", ["x", "w"], ["h"]), relu, second], stored, (4, 12, 32)), (4, 12, 32)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    spread = [node("Unsqueeze", ["x", "axes"], ["u"]), node("MatMul", ["u", "w"], ["h"])]
    depth = 1 if form == "one" else 4
    made = model(
        [*spread, relu, second], {"w": drawn(depth, 32, 48) / 6, "w2": drawn(depth, 48, 16) / 7}, ("n", 12, 32)
    )
    made.graph.initializer.append(axes)
    return made, (8, 12, 32)


@WAYS
@pytest.mark.parametrize("form", ["batch", "experts", "one"])
def test_stacks_of_matrices_give_what_they_gave(form: str, mode: str, asked: dict[str, object]) -> None:
    proto, shape = experts(form)
    check(proto, mode, shape, **asked)


@WAYS
@pytest.mark.parametrize("side", [0, 1, 2])
def test_products_with_a_stored_vector_stay_float(side: int, mode: str, asked: dict[str, object]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", [("h", "v")[side % 2], ("v", "h")[side % 2]], ["y"])]
    if side == 2:
        nodes[1] = node("MatMul", ["h", "column"], ["y"])
    check(model(nodes, {"w": drawn(32, 16), "v": drawn(16), "column": drawn(16, 1)}, (16, 32)), mode, **asked)


@WAYS
@pytest.mark.parametrize("turned", ["second", "first", "thrice"])
def test_a_matrix_that_is_read_both_ways_gives_what_it_gave(turned: str, mode: str, asked: dict[str, object]) -> None:
    first = node("Gemm", ["x", "w"], ["h"], transB=int(turned == "first"))
    nodes = [first, node("Relu", ["h"], ["r"]), node("Gemm", ["r", "w"], ["z"], transB=int(turned != "first"))]
    nodes.append(node("MatMul", ["z", "w"], ["y"]) if turned == "thrice" else node("Identity", ["z"], ["y"]))
    made = check(model(nodes, {"w": drawn(32, 32) / 5}), mode, **asked)
    size = sum(len(tensor.raw_data) for tensor in made.graph.initializer if len(tensor.dims) == 2)
    assert size <= 2 * 32 * 32 + 256


def test_copies_for_another_axis_are_made_once() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Gemm", ["a", "w"], ["b"], transB=1),
        node("Gemm", ["b", "w"], ["c"], transB=1),
        node("Gemm", ["c", "w"], ["y"]),
    ]
    made = unshare_axes(model(nodes, {"w": drawn(32, 32)}), ())
    assert [item.input[1] for item in made.graph.node] == ["w", "w.0", "w.0", "w"]
    assert [item.input[1] for item in unshare_axes(model(nodes, {"w": drawn(32, 32)}), {"n1", "n2"}).graph.node] == (
        ["w"] * 4
    )


@pytest.mark.parametrize("head", ["gemm", "turned", "product"])
@pytest.mark.parametrize("asked", [{}, {"format": "qoperator"}])
def test_a_table_that_is_a_matrix_too_gives_what_it_gave(head: str, asked: dict[str, object]) -> None:
    last = {
        "gemm": [node("Gemm", ["e", "table", "b"], ["y"], transB=1)],
        "turned": [node("Transpose", ["table"], ["t"], perm=[1, 0]), node("MatMul", ["e", "t"], ["y"])],
        "product": [node("Relu", ["e"], ["r"]), node("Gemm", ["r", "table"], ["y"])],
    }[head]
    proto = model([node("Gather", ["table", "x"], ["e"]), *last], {"table": drawn(64, 64), "b": drawn(64)}, ("n",))
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    feeds = [{"x": abs(drawn(40) * 20).astype("int64") % 64} for _ in range(4)]
    made = quantize(proto, QuantizeOptions(mode="static", guard=False, measure=False, **asked), feeds=feeds).model.proto
    before, after = run(proto, feeds[0])[0], run(made, feeds[0])[0]
    assert ((before - after) ** 2).sum() < 0.003 * (before**2).sum()


@pytest.mark.parametrize("operator", ["Where", "Softmax", "LeakyRelu"])
def test_operators_that_stay_float_read_floats_also_among_integer_operators(operator: str) -> None:
    """onnxruntime's quantizer for Where hands on what it was told to leave, with an input that nothing makes."""
    middle = {
        "Where": node("Where", ["mask", "h", "zero"], ["m"]),
        "Softmax": node("Softmax", ["h"], ["m"]),
        "LeakyRelu": node("LeakyRelu", ["h"], ["m"]),
    }[operator]
    nodes = [node("MatMul", ["x", "w"], ["h"]), middle, node("MatMul", ["m", "w2"], ["y"])]
    proto = model(nodes, {"w": drawn(32, 16), "w2": drawn(16, 8), "zero": drawn() * 0})
    proto.graph.initializer.append(numpy_helper.from_array(drawn(16) > 0, "mask"))
    check(proto, "static", least=20, format="qoperator", op_block_list=(operator,))


@pytest.mark.parametrize("form", ["left", "both", "right"])
def test_weight_only_mode_fits_matrices_behind_what_is_computed_alone(form: str) -> None:
    """A matrix before it has no second moment of inputs to look at, and no operator of blocks."""
    nodes = [node("MatMul", ["x", "w"] if form == "right" else ["v", "x"], ["h"])]
    nodes += [node("MatMul", ["h", "w2"], ["y"])] if form != "left" else [node("Tanh", ["h"], ["t"])]
    nodes += [node("MatMul", ["t", "w2"], ["y"])] if form == "left" else []
    proto = model(nodes, {"v": drawn(64, 32), "w": drawn(32, 32), "w2": drawn(32, 512)}, (32, 32))
    made = check(proto, "weight-only", (32, 32), least=15)
    assert [item.op_type for item in made.graph.node].count("MatMulNBits") == (2 if form == "right" else 1)


@pytest.mark.parametrize("form", ["construct", "split", "concat"])
def test_sequences_have_no_noise_and_stop_nothing(form: str) -> None:
    make = {
        "construct": [node("SequenceConstruct", ["h", "x"], ["s"])],
        "split": [node("SplitToSequence", ["h", "parts"], ["s"], axis=1)],
        "concat": [node("SequenceConstruct", ["x", "h"], ["s"])],
    }[form]
    last = (
        [node("ConcatFromSequence", ["s"], ["c"], axis=1), node("MatMul", ["c", "w2"], ["y"])]
        if form == "concat"
        else [
            node("SequenceAt", ["s", "place"], ["c"]),
            node("MatMul", ["c", "w3" if form == "construct" else "w2"], ["y"]),
        ]
    )
    width = {"construct": 32, "split": 64, "concat": 160}[form]
    proto = model([node("MatMul", ["x", "w"], ["h"]), *make, *last], {"w": drawn(32, 128), "w2": drawn(width, 16)})
    for name, values in (("parts", [64, 64]), ("place", 1)):
        shape = [2] if name == "parts" else []
        proto.graph.initializer.append(
            helper.make_tensor(name, TensorProto.INT64, shape, values if shape else [values])
        )
    proto.graph.initializer.append(numpy_helper.from_array(drawn(32, 16), "w3"))
    check(proto, "fp16", least=40)


@pytest.mark.parametrize("operator", ["Conv", "MatMul", "Gemm"])
def test_a_sparse_weight_stops_no_factorization(operator: str) -> None:
    dense = drawn(64, 64, *((3, 3) if operator == "Conv" else ()))
    attributes = {"pads": [1] * 4} if operator == "Conv" else {}
    nodes = [node(operator, ["x", "w"], ["h"], **attributes), node(operator, ["h", "w2"], ["y"], **attributes)]
    proto = model(nodes, {"w2": dense}, (2, 64, 8, 8) if operator == "Conv" else (2, 64))
    values = numpy_helper.from_array(dense.reshape(-1)[:50], "w")
    places = helper.make_tensor("w.places", TensorProto.INT64, [50], list(range(50)))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, list(dense.shape)))
    made = factorize(proto, FactorizeOptions(params=0.6)).model.proto
    assert len(made.graph.node) > 2 and len(made.graph.sparse_initializer) == 1
