"""The rates of `onnxprune/graph/cost_rules.py`: one operator at a time, CPU nanoseconds of one thread.

    python benchmarks/cost_rates.py [--only Conv]

Each line is one operator between an input and a maximum over everything (whose own time is taken off), at the sizes of
small real networks: numbers that it gives, nanoseconds for each, and multiply-adds a nanosecond where it has any.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from math import prod

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

Feed = dict[str, np.ndarray]
IMAGES, RUNS, SECONDS = (64, 32, 28, 28), 5, 0.02
ELEMENTWISE = "Relu Sigmoid Tanh Exp Erf Sqrt Log Sign Softplus HardSwish LeakyRelu Reciprocal Softmax".split()
BINARY = "Add Mul Div Sub Max Pow PRelu".split()


def main() -> None:
    """Print a line for every operator and size."""
    parser = argparse.ArgumentParser(description="Nanoseconds of single operators.")
    parser.add_argument("--only", default="", help="part of the line's name")
    only = parser.parse_args().only
    print(f"{'operator':44} {'numbers':>10} {'ns each':>9} {'MACs a ns':>10}")
    for name, node, inputs, constants, macs in cases():
        if only not in name:
            continue
        seconds, made = measured(node, inputs, constants)
        rate = f"{macs / seconds / 1e9:10.1f}" if macs else ""
        print(f"{name:44} {made:10} {1e9 * seconds / made:9.3f} {rate}", flush=True)


def cases() -> Iterator[tuple[str, onnx.NodeProto, Feed, Feed, int]]:
    """Yield name, node, inputs, constants and multiply-adds."""
    x = normal(*IMAGES)
    for op in ELEMENTWISE:
        yield op, helper.make_node(op, ["x"], ["a"]), {"x": np.abs(x)}, {}, 0
    for op in BINARY:
        for shape in (IMAGES, (32, 1, 1), (1,), (28,)):
            yield f"{op} {shape}", helper.make_node(op, ["x", "z"], ["a"]), {"x": x, "z": abs(normal(*shape))}, {}, 0
    for axes in ((0,), (1,), (3,), (0, 1), (2, 3), (0, 2, 3), (0, 2)):
        node = helper.make_node("ReduceSum", ["x", "axes"], ["a"], keepdims=0)
        yield f"ReduceSum {axes} of {x.size}", node, {"x": x}, {"axes": np.array(axes)}, 0
    for perm in ((1, 0, 2, 3), (0, 2, 3, 1), (0, 2, 1, 3), (0, 1, 3, 2)):
        yield f"Transpose {perm}", helper.make_node("Transpose", ["x"], ["a"], perm=perm), {"x": x}, {}, 0
    pads = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    yield "Pad", helper.make_node("Pad", ["x", "p"], ["a"]), {"x": x}, pads, 0
    yield "Concat", helper.make_node("Concat", ["x", "x"], ["a"], axis=1), {"x": x}, {}, 0
    yield "MaxPool", helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2], strides=[2, 2]), {"x": x}, {}, 0
    yield from convolutions()
    for rows, inner, columns in ((64, 64, 64), (1, 512, 512), (512, 768, 768), (4096, 64, 64), (4096, 16, 16)):
        node = helper.make_node("MatMul", ["x", "w"], ["a"])
        name, macs = f"MatMul {rows} x {inner} x {columns}", rows * inner * columns
        yield name, node, {"x": normal(rows, inner)}, {"w": normal(inner, columns)}, macs
    for op, gates, steps, samples, width in (("LSTM", 4, 28, 64, 64), ("GRU", 3, 28, 64, 64), ("GRU", 3, 500, 1, 400)):
        node = helper.make_node(op, ["x", "w", "r"], ["a"], hidden_size=width)
        given = {"x": normal(steps, samples, width)}
        weights = {name: 0.1 * normal(1, gates * width, width) for name in "wr"}
        macs = steps * samples * gates * width * 2 * width
        yield f"{op} {steps} steps, {samples} samples, {width}", node, given, weights, macs


def convolutions() -> Iterator[tuple[str, onnx.NodeProto, Feed, Feed, int]]:
    """Yield convolutions with a constant weight (blocked) and with one that is an input (patches)."""
    for op, n, read, made, size, k, groups in (
        ("Conv", 64, 16, 16, 28, 3, 1),
        ("Conv", 64, 24, 20, 14, 3, 1),
        ("Conv", 64, 64, 64, 7, 3, 1),
        ("Conv", 64, 64, 64, 14, 1, 1),
        ("Conv", 8, 256, 256, 14, 3, 1),
        ("Conv", 64, 32, 32, 14, 3, 32),
        ("Conv", 64, 33, 33, 14, 3, 33),
        ("Conv", 8, 128, 128, 14, 3, 32),
        ("ConvTranspose", 64, 32, 32, 14, 3, 1),
    ):
        weight = {"w": normal(made, read // groups, k, k)}
        node = helper.make_node(op, ["x", "w"], ["a"], pads=[k // 2] * 4, group=groups)
        macs = n * size * size * prod(weight["w"].shape)
        name = f"{op} {n}x{read}x{size}x{size}, {made}, {k}x{k}, group {groups}"
        yield f"{name}", node, {"x": normal(n, read, size, size)}, weight, macs
        yield f"{name}, fed", node, {"x": normal(n, read, size, size)} | weight, {}, macs


def normal(*shape: int) -> np.ndarray:
    """Return random numbers."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def measured(node: onnx.NodeProto, inputs: Feed, constants: Feed) -> tuple[float, int]:
    """Return the CPU seconds of a node and how many numbers it gives."""
    (made,) = session([node], inputs, constants, "a").run(["a"], inputs)
    largest = helper.make_node("ReduceMax", ["a"], ["y"], keepdims=0)
    if node.op_type == "Transpose":  # a maximum takes no notice of the order, and the node would go
        return quickest(session([node], inputs, constants, "a"), inputs), made.size
    base = quickest(session([largest], {"a": made}, {}, "y"), {"a": made})
    return max(quickest(session([node, largest], inputs, constants, "y"), inputs) - base, 1e-9), made.size


def session(nodes: list[onnx.NodeProto], inputs: Feed, constants: Feed, output: str) -> onnxruntime.InferenceSession:
    """Return a session of one thread."""
    given = [helper.make_tensor_value_info(name, 1, array.shape) for name, array in inputs.items()]
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", given, [onnx.ValueInfoProto(name=output)], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def quickest(opened: onnxruntime.InferenceSession, feed: Feed) -> float:
    """Return the least CPU seconds of a run."""
    names = [value.name for value in opened.get_outputs()]
    opened.run(names, feed)
    best = float("inf")
    for _ in range(RUNS):
        start, count = time.process_time(), 0
        while time.process_time() - start < SECONDS:
            opened.run(names, feed)
            count += 1
        best = min(best, (time.process_time() - start) / count)
    return best


if __name__ == "__main__":
    main()
