"""float16: products behind a Transpose of the batch, on which onnxruntime dies when it opens them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxprune.graph.session import open_session
from onnxprune.methods.quantization.turned import product_first
from tests import networks

READ_TWICE = """(float[a, b, 32] x) => (float[b, a, 48] y, int64[r] s) {
    u = Transpose<perm = [1, 0, 2]>(x)
    s = Shape(u)
    m = MatMul(u, w)
    y = Relu(m)
}"""
ALONE = """(float[a, b, 32] x) => (float[b, a, 48] y) {
    u = Transpose<perm = [1, 0, 2]>(x)
    y = MatMul(u, w)
}"""
FOUR_AXES = """(float[a, b, c, 32] x) => (float[b, c, a, 48] y) {
    u = Transpose<perm = [1, 2, 0, 3]>(x)
    y = MatMul(u, w)
}"""
CHAIN = """(float[a, b, 32] x) => (float[a, b, 32] y) {
    u = Transpose<perm = [1, 0, 2]>(x)
    h = MatMul(u, w)
    k = MatMul(u, w)
    i = Add(h, k)
    t = Transpose<perm = [1, 0, 2]>(i)
    y = MatMul(t, v)
}"""


def network(text: str) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    shapes = {"w": (32, 48), "v": (48, 32)} if "v)" in text else {"w": (32, 48)}
    proto.graph.initializer.extend(networks.weights(**shapes))
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    return proto


@pytest.mark.parametrize("text", [READ_TWICE, ALONE, FOUR_AXES, CHAIN])
def test_the_product_comes_first_and_gives_the_same(text: str) -> None:
    before, after = network(text), network(text)
    product_first(after.graph, ())
    onnx.checker.check_model(after, full_check=True)
    makers = {node.output[0]: node.op_type for node in after.graph.node}
    products = [node for node in after.graph.node if node.op_type == "MatMul"]
    assert products and all(makers.get(node.input[0]) != "Transpose" for node in products)
    assert len({name for node in after.graph.node for name in node.output}) == len(after.graph.node)
    x = np.random.default_rng(0).standard_normal(
        (2, 3, 4, 32)[-len(before.graph.input[0].type.tensor_type.shape.dim) :]
    )
    feeds = {"x": x.astype(np.float32)}
    one, two = (open_session(proto.SerializeToString()).run(feeds) for proto in (before, after))
    assert all(np.allclose(one[name], two[name], atol=1e-6) for name in one)  # sums of 32 products of about 0.2


@pytest.mark.parametrize("perm", ["[0, 2, 1]", "[1, 2, 0]", "[2, 1, 0]"])
def test_a_transpose_that_moves_the_last_axis_stays_before_the_product(perm: str) -> None:
    proto = network(ALONE.replace("[1, 0, 2]", perm))
    same = proto.SerializeToString()
    product_first(proto.graph, ())
    assert proto.SerializeToString() == same


def test_nodes_that_stay_float_are_left_alone() -> None:
    proto = network(ALONE)
    same = proto.SerializeToString()
    product_first(proto.graph, ("n1",))
    assert proto.SerializeToString() == same


@pytest.mark.parametrize("text", [READ_TWICE, FOUR_AXES])
def test_what_is_written_opens_in_a_process_of_its_own(text: str, tmp_path: Path) -> None:
    source, target = networks.store(network(text), tmp_path / "net.onnx"), tmp_path / "half.onnx"
    command = [sys.executable, "-m", "onnxprune", "quantize", str(source), "--mode", "fp16", "-o", str(target)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert open_session(target).inputs[0].name == "x"
