"""Sizes of dynamic axes: expressions in names, and sizes at which a graph that spells some of them runs."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxprune
from onnxprune.evidence.inputs import random_inputs
from onnxprune.graph.expression import expression_value
from onnxprune.graph.session import open_session
from onnxprune.graph.trace import Trace, trace
from onnxprune.graph.view import View

SIZES = {"a": 12, "b": 5, "past len": 7, "s0.1": 3, "in": 2}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a + 2*b", 22),
        ("2*b + a", 22),
        ("(a + 2)*b", 70),
        ("a - b - 2", 5),
        ("a - (b - 2)", 9),
        ("a//b", 2),
        ("a / 4", 3),
        ("(a + b) // 4 * 2", 8),
        ("a % b", 2),
        ("-b + a", 7),
        ("past len + s0.1", 10),
        ("in*a", 24),
        ("floor(a/b) + 1", 3),
        ("Max(a, b) - Min(a, b)", 7),
        ("ceiling(a/b)", 3),
    ],
)
def test_an_expression_follows_precedence(expression: str, value: int) -> None:
    assert expression_value(expression, SIZES) == value


@pytest.mark.parametrize(
    "expression",
    [
        "a / b",
        "a // (b - 5)",
        "c + 1",
        "a ** b",
        "a.__class__",
        "print(a)",
        "[a][0]",
        "a if b else 1",
        "",
        "a +",
        "(" * 150,
        "'x'",
    ],
)
def test_what_is_no_whole_number_of_known_sizes_has_no_value(expression: str) -> None:
    assert expression_value(expression, SIZES) is None


def test_an_input_axis_that_is_an_expression_follows_from_the_others() -> None:
    proto = network("(float[n, a] x, float[n, b] z) => (float[n, a] y) { y = Relu(x) }")
    proto.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "a // 2 + 1"
    found = trace(View(onnxprune.load(proto)))
    assert found.shapes["z"][1] == found.shapes["x"][1] // 2 + 1


def network(text: str, **arrays: np.ndarray) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto


def traced(text: str, **arrays: np.ndarray) -> Trace:
    return trace(View(onnxprune.load(network(text, **arrays))))


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


BAKED_LENGTH = network(
    """(float[n, s, 16] x) => (float[p, q, r] y) {
        h = MatMul(x, w)
        z = Reshape(h, target)
        t = Transpose<perm = [0, 2, 1, 3]>(z)
        u = Reshape(t, back)
        y = MatMul(u, w)
    }""",
    w=floats(16, 16), target=integers(-1, 9, 4, 4), back=integers(-1, 9, 16),
)  # fmt: skip
BAKED_BATCH = network(
    """(float[t, n, 8] x) => (float[d, n, 4] y) {
        o, y = GRU<hidden_size = 4>(x, w, r, , , state)
    }""",
    w=floats(1, 12, 8), r=floats(1, 12, 4), state=floats(1, 2, 4),
)  # fmt: skip
POSITIONS = network("(float[n, s, 8] x) => (float[n, s, 8] y) { y = Add(x, table) }", table=floats(1, 21, 8))
CONTRACTED = network("(float[n, k] x) => (float[n, 3] y) { y = MatMul(x, w) }", w=floats(6, 3))
EXPANDED = network(
    "(float[n, 1, 4] x, float[n, s, 4] z) => (float[n, s, 4] y) { e = Expand(x, to)\n y = Add(e, z) }",
    to=integers(1, 11, 1),
)
TWO = network(
    """(float[n, s, 8] x, float[n, t, 8] z) => (float[n, s, 8] y) {
        a = Add(x, one)
        b = Add(z, other)
        c = ReduceMean<axes = [1]>(b)
        y = Add(a, c)
    }""",
    one=floats(7, 8), other=floats(11, 8),
)  # fmt: skip


@pytest.mark.parametrize(
    ("proto", "name", "axis", "size"),
    [
        (BAKED_LENGTH, "x", 1, 9),
        (BAKED_BATCH, "x", 1, 2),
        (POSITIONS, "x", 1, 21),
        (CONTRACTED, "x", 1, 6),
        (EXPANDED, "z", 1, 11),
        (TWO, "z", 1, 11),
    ],
)
def test_a_size_that_the_graph_spells_elsewhere_is_found_and_runs(
    proto: onnx.ModelProto, name: str, axis: int, size: int
) -> None:
    view = View(onnxprune.load(proto))
    found = trace(view)
    assert found.shapes[name][axis] == found.second.shapes[name][axis] == size
    assert not found.failures
    with open_session(proto.SerializeToString()) as session:
        drawn = random_inputs(view, found, session)
        assert drawn.sample(0)[name].shape[axis] == size


def test_what_is_free_stays_dynamic_beside_what_is_held() -> None:
    found = trace(View(onnxprune.load(BAKED_BATCH)))
    assert found.dynamic("x").tolist() == [True, False, False]


def test_a_product_of_dynamic_sizes_is_traced_at_small_ones() -> None:
    found = traced("(float[2, M, K] a, float[2, K, N] b) => (float[2, M, N] y) { y = MatMul(a, b) }")
    assert max(found.shapes["y"] + found.shapes["b"]) < 100
    assert all(found.dynamic("y")[1:])


def test_sizes_of_huge_tensors_become_smaller() -> None:
    text = """(float[n, 1, t] x) => (float[n, t, t] y) {
        c = Conv(x, w)
        u = Transpose<perm = [0, 2, 1]>(c)
        y = MatMul(u, c)
    }"""
    found = traced(text, w=floats(4, 1, 1))
    assert found.first.largest < 1 << 25


def test_sizes_of_data_come_before_those_that_are_tried() -> None:
    text = "(float[n, s, 8] x) => (float[n, 4, q] y) { y = Reshape(x, to) }"
    view = View(onnxprune.load(network(text, to=integers(-1, 4, 10))))
    assert trace(view, seen={"x": (None, 15, 8)}).shapes["x"] == (3, 15, 8)
    assert trace(view).shapes["x"][1] * 8 % 40 == 0


def test_a_size_that_runs_only_in_the_runtime_is_tried_too() -> None:
    """What is inside a body is not traced."""
    proto = network(
        """(float[n, s] x) => (float[n, s] y) {
            y = Scan<num_scan_inputs = 1, body = b (float[s] v) => (float[s] o) { o = Add(v, table) }>(x)
        }""",
        table=floats(21),
    )
    view = View(onnxprune.load(proto))
    with open_session(proto.SerializeToString()) as session:
        assert random_inputs(view, trace(view), session).sample(0)["x"].shape[1] == 21
