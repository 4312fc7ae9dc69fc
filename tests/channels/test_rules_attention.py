"""Fused attention in every layout: heads and positions inside heads go, the scale stays."""

import numpy as np
import pytest

from onnxprune.channels.analyse import analyse
from onnxprune.graph.model import Model
from tests.channels.halving import attribute, halve
from tests.micro.build import Net

WIDTH, HEADS, DIM, TOKENS = 16, 4, 6, 5
FLAT = HEADS * DIM


def start(net: Net, batch: int | str = "batch") -> str:
    return net.linear(net.input(batch, TOKENS, 8), 8, WIDTH)


def close(net: Net, y: str, size: int = FLAT) -> Net:
    net.output(net.linear(y, size, 3))
    return net


def dense(net: Net, *shape: int) -> str:
    return net.constant((net.rng.normal(size=shape) / 4).astype(np.float32))


def packed(net: Net, **more) -> Net:
    return close(net, net.ms("Attention", start(net), dense(net, WIDTH, 3 * FLAT), net.weight(3 * FLAT), **more))


def test_packed_attention_loses_heads_and_counts_them() -> None:
    halved = halve(packed(Net(), num_heads=HEADS), heads=True)
    assert "head" in halved.kinds
    assert attribute(halved.node("Attention"), "num_heads") == HEADS // 2
    assert halved.shape("Attention", 1) == [WIDTH // 2, 3 * FLAT // 2]


def test_packed_attention_that_loses_positions_spells_the_old_scale() -> None:
    halved = halve(packed(Net(), num_heads=HEADS), heads=False, head_dim=True)
    assert "head-dim" in halved.kinds
    assert attribute(halved.node("Attention"), "num_heads") == HEADS
    assert attribute(halved.node("Attention"), "scale") == pytest.approx(1 / np.sqrt(DIM))


def test_a_spelled_scale_stays() -> None:
    halved = halve(packed(Net(), num_heads=HEADS, scale=0.3), heads=False, head_dim=True)
    assert attribute(halved.node("Attention"), "scale") == pytest.approx(0.3)


def test_unequal_hidden_sizes_lose_positions_of_q_and_v_apart() -> None:
    net = Net()
    sizes = [HEADS * 4, HEADS * 4, HEADS * 8]
    y = net.ms("Attention", start(net), dense(net, WIDTH, 64), net.weight(64), num_heads=HEADS, qkv_hidden_sizes=sizes)
    halved = halve(close(net, y, 32), heads=False, head_dim=True)
    assert attribute(halved.node("Attention"), "qkv_hidden_sizes") == [8, 8, 16]


def multi_head(net: Net, layout: str) -> str:
    x = start(net, 2)

    def flat(size: int = FLAT) -> str:
        return net.linear(x, WIDTH, size)

    def heads(y: str) -> str:
        return net.transpose(net.reshape(y, 0, 0, HEADS, DIM), 0, 2, 1, 3)

    if layout == "flat":
        operands = [flat(), flat(), flat(), net.weight(3 * FLAT)]
    elif layout == "cross":
        operands = [flat(), heads(flat()), heads(flat())]
    elif layout == "packed key and value":
        operands = [flat(), net.reshape(flat(2 * FLAT), 0, 0, HEADS, 2, DIM)]
    else:
        operands = [net.reshape(flat(3 * FLAT), 0, 0, HEADS, 3, DIM)]
    return net.ms("MultiHeadAttention", *operands, num_heads=HEADS)


@pytest.mark.parametrize("head_dim", [False, True])
@pytest.mark.parametrize("layout", ["flat", "cross"])
def test_multi_head_attention_in_every_layout(layout: str, head_dim: bool) -> None:
    net = Net()
    halved = halve(close(net, multi_head(net, layout)), heads=not head_dim, head_dim=head_dim)
    assert ("head-dim" if head_dim else "head") in halved.kinds
    assert halved.share < 0.45


@pytest.mark.parametrize("layout", ["packed key and value", "packed"])
def test_packed_layouts_lose_heads(layout: str) -> None:
    """onnxruntime has no kernel for them on a CPU, so only the sizes are checked."""
    net = Net()
    original = close(net, multi_head(net, layout)).model(runs=False)
    channels = analyse(Model(original), heads=True)
    assert not channels.state.defects
    keep = {group.name: np.arange(group.size) % 2 == 0 for group in channels.groups if group.active}
    shapes = channels.shapes(keep)
    node = next(node for node in channels.view.nodes if node.op_type == "MultiHeadAttention")
    assert shapes[node.inputs[0]][2] == (HEADS // 2 * DIM if layout != "packed" else HEADS // 2)
    assert shapes[node.outputs[0]] == (2, TOKENS, HEADS // 2 * DIM)


def test_multi_head_attention_with_a_past_gives_a_present() -> None:
    net = Net()
    x = start(net, 2)
    q, k, v = (net.linear(x, WIDTH, FLAT) for _ in range(3))
    past = [net.constant(np.zeros((2, HEADS, 3, DIM), np.float32)) for _ in range(2)]
    y, key, value = net.ms("MultiHeadAttention", q, k, v, None, None, None, *past, num_heads=HEADS, outputs=3)
    net.output(net.reduce("Sum", key, [1, 3]), net.reduce("Sum", value, [1, 3]))
    halved = halve(close(net, y), heads=True)
    assert "head" in halved.kinds


@pytest.mark.parametrize("packed", [False, True])
def test_grouped_query_attention_keeps_head_sizes_and_loses_heads(packed: bool) -> None:
    net = Net()
    x = start(net, 2)
    sizes = [4 * 16, 2 * 16, 2 * 16]
    operands = [net.linear(x, WIDTH, sum(sizes)), None, None] if packed else [net.linear(x, WIDTH, s) for s in sizes]
    lengths = net.constant(np.full(2, TOKENS - 1, np.int32)), net.constant(np.array(TOKENS, np.int32))
    past = [None, None] if packed else [net.constant(np.zeros((2, 2, 0, 16), np.float32)) for _ in range(2)]
    y, _, _ = net.ms("GroupQueryAttention", *operands, *past, *lengths, num_heads=4, kv_num_heads=2, outputs=3)
    halved = halve(close(net, y, 64), heads=True)
    counts = [attribute(halved.node("GroupQueryAttention"), n) for n in ("num_heads", "kv_num_heads")]
    assert counts in ([1, 1], [2, 1], [2, 2])


@pytest.mark.parametrize("head_dim", [False, True])
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_standard_attention_with_shared_heads(shared: int, head_dim: bool) -> None:
    net = Net(opset=23)
    x = start(net)
    q, k, v = net.linear(x, WIDTH, FLAT), net.linear(x, WIDTH, shared * DIM), net.linear(x, WIDTH, shared * 8)
    y = net.Attention(q, k, v, q_num_heads=HEADS, kv_num_heads=shared)
    halved = halve(close(net, y, HEADS * 8), heads=not head_dim, head_dim=head_dim)
    if head_dim:
        assert attribute(halved.node("Attention"), "scale") == pytest.approx(1 / np.sqrt(DIM))
    else:
        assert attribute(halved.node("Attention"), "q_num_heads") == 2


def tables(net: Net, angles: int) -> list[str]:
    angle = np.outer(np.arange(TOKENS), 1.0 / (1 + np.arange(angles))).astype(np.float32)
    return [net.constant(np.cos(angle)), net.constant(np.sin(angle))]


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rotated", [4, 8])
def test_rotated_positions_go_in_pairs(interleaved: int, rotated: int) -> None:
    net = Net(opset=23)
    x = start(net, 2)
    positions = net.constant(np.tile(np.arange(TOKENS), (2, 1)))
    more = {"interleaved": interleaved, "num_heads": HEADS, **({"rotary_embedding_dim": 4} if rotated == 4 else {})}
    cos, sin = tables(net, rotated // 2)
    q, k = (net.RotaryEmbedding(net.linear(x, WIDTH, 32), cos, sin, positions, **more) for _ in range(2))
    y = net.Attention(q, k, net.linear(x, WIDTH, FLAT), q_num_heads=HEADS, kv_num_heads=HEADS)
    halved = halve(close(net, y), heads=False, head_dim=True)
    assert halved.shape("RotaryEmbedding", 1) == [TOKENS, rotated // 4]
    assert attribute(halved.node("RotaryEmbedding"), "rotary_embedding_dim") == (2 if rotated == 4 else None)


def test_fused_rotary_embedding_of_separate_heads() -> None:
    net = Net()
    x = start(net, 2)
    cos, sin = tables(net, 4)
    zero = net.constant(np.array([0]))
    heads = [net.transpose(net.reshape(net.linear(x, WIDTH, 32), 0, 0, HEADS, 8), 0, 2, 1, 3) for _ in range(2)]
    q, k = (net.ms("RotaryEmbedding", y, zero, cos, sin) for y in heads)
    scores = net.Softmax(net.MatMul(q, net.transpose(k, 0, 1, 3, 2)), axis=-1)
    y = net.MatMul(scores, net.transpose(net.reshape(net.linear(x, WIDTH, FLAT), 0, 0, HEADS, DIM), 0, 2, 1, 3))
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, -1)
    halved = halve(close(net, y), heads=False, head_dim=True)
    assert halved.shape("RotaryEmbedding", 2) == [TOKENS, 2]


def spelled(net: Net, kind: str, scale: float) -> Net:
    """Return attention that spells its scale; 0 is how exporters say "one over the square root of the size"."""
    if kind == "Attention":
        return packed(net, num_heads=HEADS, scale=scale)
    x = start(net)
    q, k, v = (net.MatMul(x, dense(net, WIDTH, FLAT)) for _ in range(3))
    return close(net, net.ms(kind, q, k, v, num_heads=HEADS, scale=scale))


@pytest.mark.parametrize("kind", ["Attention", "MultiHeadAttention"])
@pytest.mark.parametrize("scale", [0.0, -0.0, 0.4])
def test_a_scale_that_is_spelled_is_there_once_and_0_is_the_old_size(kind: str, scale: float) -> None:
    halved = halve(spelled(Net(), kind, scale), heads=False, head_dim=True)
    node = halved.node(kind)
    assert [item.name for item in node.attribute].count("scale") == 1
    assert attribute(node, "scale") == pytest.approx(scale or 1 / np.sqrt(DIM))
