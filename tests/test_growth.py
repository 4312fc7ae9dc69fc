"""What a prune does grows with the size of a file, not with its square: calls are counted, no time is taken."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.graph.session import open_session

WIDTH = 4
SIZES = (25, 50, 100)
MOST = 2.15
"""A search of all nodes for every layer gives 2.25 to 2.4 at these sizes."""
node = helper.make_node


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32), name)


def model(nodes: list[onnx.NodeProto], stored: list[onnx.TensorProto]) -> onnx.ModelProto:
    """Return a model of x from which the last tensor, h, goes through one matrix more."""
    nodes = [node("MatMul", ["x", "first"], ["h0"]), *nodes, node("MatMul", ["h", "last"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in ("x", "y")]
    ends = [weight("first", WIDTH, WIDTH), weight("last", WIDTH, WIDTH)]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [*ends, *stored])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tensor(number: int, count: int) -> str:
    return "h" if number == count else f"h{number}"


def chain(count: int) -> onnx.ModelProto:
    """Layers one after another."""
    nodes, stored = [], []
    for n in range(count):
        stored.append(weight(f"w{n}", WIDTH, WIDTH))
        nodes += [node("MatMul", [f"h{n}", f"w{n}"], [f"m{n}"]), node("Relu", [f"m{n}"], [tensor(n + 1, count)])]
    return model(nodes, stored)


def residual(count: int) -> onnx.ModelProto:
    """Blocks with a sum."""
    nodes, stored = [], []
    for n in range(count):
        stored += [weight(f"w{n}", WIDTH, WIDTH), weight(f"v{n}", WIDTH, WIDTH)]
        nodes += [node("MatMul", [f"h{n}", f"w{n}"], [f"m{n}"]), node("Relu", [f"m{n}"], [f"r{n}"])]
        nodes += [node("MatMul", [f"r{n}", f"v{n}"], [f"s{n}"])]
        nodes += [node("Add", [f"s{n}", f"h{n}"], [tensor(n + 1, count)])]
    return model(nodes, stored)


def plain(count: int) -> onnx.ModelProto:
    """Nodes without a weight."""
    return model([node("Relu", [f"h{n}"], [tensor(n + 1, 4 * count)]) for n in range(4 * count)], [])


def unread(count: int) -> onnx.ModelProto:
    """Stored tensors that nothing reads."""
    return model([node("Relu", ["h0"], ["h"])], [weight(f"e{n}", 0) for n in range(4 * count)])


def calls(proto: onnx.ModelProto) -> int:
    """Return how many functions one prune calls, steps of generators included."""
    count = 0

    def counted(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        onnxprune.prune(proto, ratio=0.25)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("make", [chain, residual, plain, unread])
def test_calls_grow_with_the_size(make: Callable[[int], onnx.ModelProto]) -> None:
    """Twice the size adds twice as much; more, where each part looks at all the others."""
    calls(make(SIZES[0]))  # what only the first prune imports
    small, middle, large = (calls(make(size)) for size in SIZES)
    assert large - middle < MOST * (middle - small)


def read_by_body() -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [node("Add", ["h0", "e0"], ["inner"])], "b", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    true = node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    return [true, node("If", ["yes"], ["h"], then_branch=body, else_branch=body)]


READ = {
    "by nothing": ([node("Relu", ["h0"], ["h"])], False),
    "by a node whose result nobody wants": ([node("Relu", ["h0"], ["h"]), node("Relu", ["e0"], ["dead"])], True),
    "by the body of a node": (read_by_body(), True),
}


@pytest.mark.parametrize("case", READ)
def test_what_is_opened_has_all_that_is_read(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    nodes, is_read = READ[case]
    proto = model(nodes, [weight("e0", WIDTH), weight("e1", WIDTH)])
    opened, opener = [], onnxruntime.InferenceSession

    def open_bytes(content: bytes, *rest: object, **named: object) -> object:
        opened.append(onnx.load_from_string(content))
        return opener(content, *rest, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_bytes)
    open_session(proto).run({"x": np.zeros((1, WIDTH), np.float32)})
    names = {tensor.name for tensor in opened[0].graph.initializer}
    assert names == {"first", "last"} | ({"e0"} if is_read else set())
    assert len(proto.graph.initializer) == 4
