"""Mixtures of experts: inner width and whole experts go, and the router follows."""

import numpy as np
import pytest

from onnxprune.channels.analyse import analyse
from onnxprune.graph.model import Model
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from tests.channels.halving import attribute, halve
from tests.micro.build import Net
from tests.oracle import parity

EXPERTS, WIDTH, INNER = 4, 16, 24


def mixture(net: Net, kind: str, k: int = 2, bias: bool = True, flat: bool = True) -> Net:
    """Draw a layer, a router and experts, and a layer behind them."""
    x = net.linear(net.input("n", 8) if flat else net.input("n", 3, 8), 8, WIDTH)
    router = net.linear(x if flat else net.reshape(x, -1, WIDTH), WIDTH, EXPERTS)
    rows = 2 * INNER if kind == "swiglu" else INNER
    first, second = net.weight(EXPERTS, rows, WIDTH, gain=4), net.weight(EXPERTS, WIDTH, INNER, gain=4)
    biases = [net.weight(EXPERTS, rows), net.weight(EXPERTS, WIDTH)] if bias else [None, None]
    more = {"swiglu_fusion": 1} if kind == "swiglu" else {}
    y = net.ms(
        *("MoE", x, router, first, biases[0], second, biases[1]),
        k=k,
        activation_type=kind,
        normalize_routing_weights=1,
        **more,
    )
    net.output(net.linear(net.Relu(y), WIDTH, 5))
    return net


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["relu", "gelu", "silu", "swiglu"])
def test_inner_width_experts_and_outer_width_go(kind: str, bias: bool) -> None:
    halved = halve(mixture(Net(), kind, bias=bias))
    rows = INNER if kind == "swiglu" else INNER // 2
    assert halved.shape("MoE", 2) == [EXPERTS // 2, rows, WIDTH // 2]
    assert halved.shape("MoE", 4) == [EXPERTS // 2, WIDTH // 2, INNER // 2]
    assert not bias or halved.shape("MoE", 3) == [EXPERTS // 2, rows]


@pytest.mark.parametrize(("k", "left"), [(1, 1), (2, 2), (3, 2)])
def test_no_more_experts_are_taken_than_are_left(k: int, left: int) -> None:
    halved = halve(mixture(Net(), "relu", k=k))
    assert attribute(halved.node("MoE"), "k") == left


def test_without_what_is_not_exact_the_experts_stay() -> None:
    model = mixture(Net(), "silu").model()
    result = prune(model, PruneOptions(ratio=0.5, align=1, exact_only=True, compensate="none"))
    assert parity(model, result.model.proto, result.plan.removed) < 1e-5
    node = next(node for node in result.model.proto.graph.node if node.op_type == "MoE")
    shapes = {tensor.name: list(tensor.dims) for tensor in result.model.proto.graph.initializer}
    assert shapes[node.input[2]] == [EXPERTS, INNER // 2, WIDTH // 2]


def test_a_router_of_other_rows_than_the_tokens_is_followed() -> None:
    assert halve(mixture(Net(), "relu", flat=False)).share < 0.4


def packed_mixture(net: Net, bits: int, block: int, kind: str = "silu", third: bool = False) -> Net:
    """Draw experts of 64 x 96 in few bits."""
    width, inner = 64, 96
    x = net.linear(net.input("n", 8), 8, width)
    router = net.linear(x, width, EXPERTS)

    def stack(rows: int, columns: int) -> list[object]:
        codes = net.rng.integers(0, 256, (EXPERTS, rows, columns * bits // 8)).astype(np.uint8)
        shape = (EXPERTS, rows, columns // block) if block else (EXPERTS, rows)
        scales = net.rng.uniform(0.01, 0.02, shape).astype(np.float32) / 2 ** (bits - 4)
        return [codes, scales, net.weight(EXPERTS, rows)]

    rows = 2 * inner if kind == "swiglu" else inner
    given = [*stack(rows, width), *stack(width, inner), *(stack(inner, width) if third else [])]
    more = {"block_size": block} if block else {}
    more |= {"swiglu_fusion": 1} if kind == "swiglu" else {}
    more |= {"normalize_routing_weights": 1, "expert_weight_bits": bits}
    y = net.ms("QMoE", x, router, *given, k=2, activation_type=kind, **more)
    net.output(net.linear(net.Relu(y), width, 5))
    return net


@pytest.mark.parametrize("kind", ["silu", "relu", "swiglu"])
@pytest.mark.parametrize(("bits", "block"), [(4, 0), (4, 32), (8, 0), (4, 16)])
def test_packed_experts_lose_rows_bytes_and_blocks(kind: str, bits: int, block: int) -> None:
    halved = halve(packed_mixture(Net(), bits, block, kind), tolerance=1e-3 if bits == 8 else 1e-4)
    experts, rows, columns = halved.shape("QMoE", 2)
    assert experts == EXPERTS // 2 and columns == 32 * bits // 8
    inner = halved.shape("QMoE", 5)[2] * 8 // bits
    assert inner < 96 and rows == (2 * inner if kind == "swiglu" else inner)
    assert halved.shape("QMoE", 5)[:2] == [EXPERTS // 2, 32]


def test_weights_that_do_not_fit_hold_it() -> None:
    net = Net()
    x, router = net.input("n", WIDTH), net.input("n", EXPERTS, name="router")
    wide, second = net.weight(EXPERTS, 3 * INNER, WIDTH), net.weight(EXPERTS, WIDTH, INNER)
    net.output(net.ms("MoE", x, router, wide, None, second, k=2, activation_type="relu"))
    locks = analyse(Model(net.model(runs=False))).locks
    assert any("72 rows for a width of 24" in lock.reason for lock in locks)
