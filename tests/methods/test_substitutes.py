"""What takes the place of dropped branches: fitted where a branch is what it can be, taken over where that is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import Run
from onnxprune.compensate.substitute_values import merged
from onnxprune.errors import UsageError
from onnxprune.graph.drop import shorten
from onnxprune.graph.model import load
from onnxprune.graph.substitute import KINDS, Substitute, put_in
from tests import plain
from tests.methods import residual
from tests.micro.build import Net
from tests.oracle import random_inputs, relative_error, run

WIDTH = 8
Build = Callable[..., onnx.ModelProto]


def image(kind: str, *, linear: bool = False, dtype: str = "float") -> onnx.ModelProto:
    """An image network with a residual branch that a substitute of a kind can be, and one that none can be."""
    net = Net(dtype=dtype)
    x = net.conv(net.input("n", 3, 6, 6), 3, WIDTH)
    x = x if linear else net.Relu(x)
    branch = {
        "bias": lambda: net.Add(
            net.Mul(net.conv(x, WIDTH, WIDTH), net.number(0)), net.vector(WIDTH, -1, -0.2, shape=(WIDTH, 1, 1))
        ),
        "scale": lambda: net.conv(x, WIDTH, WIDTH, kernel=1, group=WIDTH),
        "linear": lambda: net.conv(net.conv(x, WIDTH, 12, kernel=1), 12, WIDTH, kernel=1),
    }[kind]()
    x = net.Relu(net.op("Add", x, branch, name="first"))
    y = net.conv(net.Relu(net.conv(x, WIDTH, WIDTH)), WIDTH, WIDTH)
    x = net.Relu(net.op("Add", y, x, name="second"))
    net.output(net.gemm(net.Flatten(net.MaxPool(x, kernel_shape=[6, 6])), WIDTH, 5))
    return net.model()


def words(kind: str, *, linear: bool = False, dtype: str = "float") -> onnx.ModelProto:
    """The same over tokens, channels last."""
    net = Net(dtype=dtype)
    x = net.linear(net.input("n", 5, 6), 6, WIDTH)
    x = x if linear else net.Relu(x)
    branch = {
        "bias": lambda: net.Add(net.Mul(net.linear(x, WIDTH, WIDTH), net.number(0)), net.vector(WIDTH, -1, -0.2)),
        "scale": lambda: net.Add(net.Mul(x, net.vector(WIDTH)), net.vector(WIDTH, -1, -0.2)),
        "linear": lambda: net.linear(net.linear(x, WIDTH, 12), 12, WIDTH),
    }[kind]()
    x = net.Relu(net.op("Add", x, branch, name="first"))
    y = net.linear(net.Relu(net.linear(x, WIDTH, WIDTH)), WIDTH, WIDTH)
    x = net.Relu(net.op("Add", y, x, name="second"))
    net.output(net.gemm(net.reduce("Max", x, [1], keepdims=0), WIDTH, 5))
    return net.model()


def samples(model: onnx.ModelProto, count: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    kind = onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    return {"x": np.random.default_rng(seed).normal(size=(count, *shape)).astype(kind)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [image, words])
def test_a_branch_that_a_substitute_can_be_is_repaired(build: Build, kind: str) -> None:
    original = build(kind)
    data, fresh = samples(original), samples(original, seed=1)
    errors = {}
    for given in ("none", kind):
        result = plain.prune(original, data, drop=["first"], substitute=given, compensate="lstsq")
        onnx.checker.check_model(result.model.proto, full_check=True)
        errors[given] = relative_error(run(original, fresh)[0], run(result.model.proto, fresh)[0])
    assert errors[kind] < 1e-3
    assert errors["none"] > 10 * errors[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [image, words])
@pytest.mark.parametrize("dtype", ["float", "half"])
def test_an_idle_substitute_changes_nothing(build: Build, kind: str, dtype: str) -> None:
    model = load(build(kind, dtype=dtype))
    short = shorten(model, ["first"])
    assert short is not None
    total = short.branches[0].end.outputs[0]
    axis, rank = (1, 4) if build is image else (-1, 3)
    changed = put_in(short.model, [Substitute.idle(total, kind, axis, rank, WIDTH)])
    onnx.checker.check_model(changed.proto, full_check=True)
    feeds = samples(model.proto, 3)
    assert relative_error(run(short.model.proto, feeds)[0], run(changed.proto, feeds)[0]) < 1e-6


@pytest.mark.parametrize(("build", "kind"), [(image, k) for k in KINDS] + [(words, "bias"), (words, "linear")])
def test_a_linear_layer_before_takes_it_over_exactly(build: Build, kind: str) -> None:
    model = load(build("linear", linear=True))
    short = shorten(model, ["first"])
    assert short is not None
    total, rng = short.branches[0].end.outputs[0], np.random.default_rng(0)
    axis, rank = (1, 4) if build is image else (-1, 3)
    matrix = rng.normal(size=(WIDTH, WIDTH) if kind == "linear" else WIDTH)
    given = Substitute(total, kind, axis, rank, matrix, rng.normal(size=WIDTH))
    apart = put_in(short.model, [given])
    together = merged(apart, [total])
    onnx.checker.check_model(together.proto, full_check=True)
    assert len(together.proto.graph.node) == len(short.model.proto.graph.node)
    assert len(together.proto.graph.initializer) == len(short.model.proto.graph.initializer)
    feeds = samples(model.proto, 3)
    assert relative_error(run(apart.proto, feeds)[0], run(together.proto, feeds)[0]) < 1e-5


def test_a_layer_that_others_read_too_takes_nothing_over() -> None:
    model = load(residual.transformer())
    short = shorten(model, ["attention0", "feed1"])
    assert short is not None
    totals = [branch.end.outputs[0] for branch in short.branches]
    apart = put_in(short.model, [Substitute.idle(total, "linear", -1, 3, 16) for total in totals])
    left = [node.op_type for node in merged(apart, totals).proto.graph.node if node.output[0] in totals]
    assert left == ["Identity", "Add"]  # before feed1 stands a sum, of which one side alone cannot take a map


def test_a_bias_goes_into_a_layer_before_a_sum() -> None:
    model = load(residual.transformer())
    short = shorten(model, ["feed0"])
    assert short is not None
    total = short.branches[0].end.outputs[0]
    given = Substitute(total, "bias", -1, 3, np.ones(16), np.random.default_rng(0).normal(size=16))
    apart = put_in(short.model, [given])
    together = merged(apart, [total])
    assert len(together.proto.graph.node) == len(short.model.proto.graph.node)
    feeds = random_inputs(model.proto, np.random.default_rng(1))
    assert relative_error(run(apart.proto, feeds)[0], run(together.proto, feeds)[0]) < 1e-5


def test_what_is_not_worth_its_time_is_not_taken_and_what_is_is() -> None:
    original = image("linear")
    data = samples(original, 96)
    found = onnxprune.prune(original, data, drop=["first"], compensate="lstsq")
    assert [one.kind for one in found.substitutes] == ["linear"]
    assert found.report.details["dropped"]["substitutes"] == {"first": "linear"}
    assert found.report.details["masked_parity"]["relative_error"]
    none = onnxprune.prune(original, data, drop=["first"], compensate="lstsq", substitute="none")
    assert none.substitutes == () and found.report.output.macs > none.report.output.macs


def test_a_target_holds_with_substitutes() -> None:
    original = image("linear")
    data = samples(original, 96)
    options: dict[str, Any] = {"drop": ["first"], "substitute": "linear", "align": 1, "compensate": "lstsq"}
    found = onnxprune.prune(original, data, macs=0.3, run=Run(verify=True), **options)
    assert found.substitutes and found.keep
    assert found.report.output.macs / found.report.input.macs == pytest.approx(0.3, abs=0.03)


def test_a_plan_gives_the_same_substitutes_again() -> None:
    original = words("linear")
    data = samples(original, 96)
    first = plain.prune(original, data, drop=["first"], ratio=0.25, align=1, compensate="lstsq")
    again = plain.apply(original, first.plan, data, compensate="lstsq")
    assert first.substitutes and first.model.proto.SerializeToString() == again.model.proto.SerializeToString()


def test_norms_that_add_a_skip_have_substitutes_too() -> None:
    original = residual.fused()
    data = samples(original, 64)
    result = plain.prune(original, data, drop=["norm1"], substitute="linear", compensate="lstsq")
    assert len(result.substitutes) == 1
    onnx.checker.check_model(result.model.proto)
    plainly = plain.prune(original, data, drop=["norm1"], substitute="none", compensate="lstsq")
    kinds = [node.op_type for node in result.model.proto.graph.node]
    assert kinds.count("MatMul") == [node.op_type for node in plainly.model.proto.graph.node].count("MatMul") + 1


def test_a_dropped_attention_with_caches_can_be_replaced() -> None:
    original = residual.decoder()
    rng = np.random.default_rng(0)
    data = [random_inputs(original, rng, 4) for _ in range(16)]
    result = onnxprune.prune(original, data, drop=["attention0"], substitute="linear", compensate="lstsq")
    assert len(result.substitutes) == 1 and result.report.parity


def test_there_is_no_other_substitute() -> None:
    with pytest.raises(UsageError, match="substitute"):
        plain.prune(image("bias"), drop=["first"], substitute="map")
