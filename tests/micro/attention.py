"""Pattern 5: attention in the ways exporters write it."""

import numpy as np

from tests.micro.build import Net, case

WIDTH, HEADS, DIM, TOKENS = 16, 4, 4, 6


def attend(net: Net, q: str, k: str, v: str, scale: str | float = 0.5, bias: str | None = None) -> str:
    """Draw Softmax(q k^T * scale + bias) v for (batch, heads, tokens, dim) tensors."""
    order = [0, 1, 3, 2]
    scores = net.Mul(net.MatMul(q, net.transpose(k, *order)), net.number(scale) if isinstance(scale, float) else scale)
    return net.MatMul(net.Softmax(net.Add(scores, bias) if bias else scores, axis=-1 if net.opset >= 13 else 3), v)


def heads_of(net: Net, x: str, heads: int = HEADS, dim: int = DIM, tokens: int = TOKENS, computed: bool = False) -> str:
    """Split (batch, tokens, heads * dim) into (batch, heads, tokens, dim)."""
    y = net.computed_reshape(x, 0, 0, heads, dim) if computed else net.reshape(x, -1, tokens, heads, dim)
    return net.transpose(y, 0, 2, 1, 3)


def merge(net: Net, x: str, width: int = WIDTH, computed: bool = False) -> str:
    """Merge (batch, heads, tokens, dim) back into (batch, tokens, width)."""
    y = net.transpose(x, 0, 2, 1, 3)
    return net.computed_reshape(y, 0, 0, width) if computed else net.reshape(y, 0, 0, width)


def body(net: Net, tokens: int | str = TOKENS) -> str:
    """Draw the input and one dense layer, so that the width of the stream is free."""
    return net.linear(net.input("batch", tokens, 8), 8, WIDTH)


def close(net: Net, y: str) -> None:
    """Draw the output projection."""
    net.output(net.linear(net.linear(y, WIDTH, WIDTH), WIDTH, 5))


@case(share=0.35)
@case("opset9", share=0.35, opset=9)
@case("opset11_computed", share=0.35, opset=11)
@case("opset14_constants", share=0.35, opset=14, weights="constant")
def separate_qkv(net):
    x = body(net)
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH), computed=net.opset == 11) for _ in range(3))
    close(net, merge(net, attend(net, q, k, v), computed=net.opset == 11))


@case(share=0.35)
@case("opset11", share=0.35, opset=11)
@case("opset18", share=0.35, opset=18)
def packed_qkv_gather(net):
    """timm: (B, N, 3, H, D) -> (3, B, H, N, D) -> Gather."""
    y = net.reshape(net.linear(body(net), WIDTH, 3 * WIDTH), -1, TOKENS, 3, HEADS, DIM)
    y = net.transpose(y, 2, 0, 3, 1, 4)
    q, k, v = (net.Gather(y, net.constant(np.array(i)), axis=0) for i in range(3))
    close(net, merge(net, attend(net, q, k, v)))


@case(share=0.35)
@case("opset11", share=0.35, opset=11)
def packed_qkv_split_of_slices(net):
    """The q/k/v axis split into three single slices, then squeezed."""
    y = net.reshape(net.linear(body(net), WIDTH, 3 * WIDTH), 0, 0, 3, HEADS, DIM)
    parts = net.split(net.transpose(y, 2, 0, 3, 1, 4), [1, 1, 1], axis=0)
    close(net, merge(net, attend(net, *(net.squeeze(part, 0) for part in parts))))


@case(share=0.35)
def packed_qkv_slices(net):
    y = net.reshape(net.linear(body(net), WIDTH, 3 * WIDTH), 0, TOKENS, 3, HEADS, DIM)
    y = net.transpose(y, 2, 0, 3, 1, 4)
    close(net, merge(net, attend(net, *(net.squeeze(net.slice(y, i, i + 1, 0), 0) for i in range(3)))))


@case(share=0.35)
@case("opset18_equal", share=0.35, opset=18)
def packed_qkv_split_first(net):
    """GPT-2: Split of the packed width, then one reshape each."""
    parts = net.split(net.linear(body(net), WIDTH, 3 * WIDTH), [WIDTH] * 3, axis=2, equal=net.opset == 18)
    close(net, merge(net, attend(net, *(heads_of(net, part) for part in parts))))


@case(share=0.35)
def packed_per_head(net):
    """LeViT and NeoX: (B, N, H, 3 D), the split is inside each head, with unequal q, k and v."""
    y = net.reshape(net.linear(body(net), WIDTH, HEADS * 16), 0, TOKENS, HEADS, 16)
    q, k, v = (net.transpose(p, 0, 2, 1, 3) for p in net.split(y, [4, 4, 8], axis=3))
    y = merge(net, attend(net, q, k, v), HEADS * 8)
    net.output(net.linear(net.linear(y, HEADS * 8, WIDTH), WIDTH, 5))


@case(share=0.35)
def heads_by_5d_per_head_qkv(net):
    """BLOOM: (B, N, H, 3, D), q/k/v inside the head."""
    y = net.reshape(net.linear(body(net), WIDTH, 3 * WIDTH), 0, TOKENS, HEADS, 3, DIM)
    parts = (net.Gather(y, net.constant(np.array(i)), axis=3) for i in range(3))
    close(net, merge(net, attend(net, *(net.transpose(p, 0, 2, 1, 3) for p in parts))))


@case(share=0.5)
@case("opset13", share=0.5, opset=13)
def swin_window(net):
    """Window attention: 8x8 image, 4x4 windows, relative position bias by a table and static indices."""
    x = net.linear(net.input("batch", 8, 8, 6), 6, WIDTH)
    y = net.reshape(net.transpose(net.reshape(x, -1, 2, 4, 2, 4, WIDTH), 0, 1, 3, 2, 4, 5), -1, 16, WIDTH)
    y = net.reshape(net.linear(y, WIDTH, 3 * WIDTH), -1, 16, 3, HEADS, DIM)
    y = net.transpose(y, 2, 0, 3, 1, 4)
    q, k, v = (net.Gather(y, net.constant(np.array(i)), axis=0) for i in range(3))
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij")).reshape(2, -1)
    offset = grid[:, :, None] - grid[:, None, :] + 3
    index = (offset[0] * 7 + offset[1]).ravel()
    bias = net.reshape(net.Gather(net.weight(49, HEADS), net.constant(index), axis=0), 16, 16, HEADS)
    bias = net.unsqueeze(net.transpose(bias, 2, 0, 1), 0)
    y = net.linear(net.reshape(net.transpose(attend(net, q, k, v, bias=bias), 0, 2, 1, 3), -1, 16, WIDTH), WIDTH, WIDTH)
    y = net.transpose(net.reshape(y, -1, 2, 2, 4, 4, WIDTH), 0, 1, 3, 2, 4, 5)
    net.output(net.linear(net.Add(x, net.reshape(y, -1, 8, 8, WIDTH)), WIDTH, 5))


@case(share=0.35)
def swin_folded_bias(net):
    """The relative position bias folded into a (1, heads, tokens, tokens) constant."""
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for x in [body(net)] * 3)
    close(net, merge(net, attend(net, q, k, v, bias=net.weight(1, HEADS, TOKENS, TOKENS))))


def repeat(net: Net, x: str, groups: int, times: int, computed: bool) -> str:
    """Repeat key / value heads by Unsqueeze -> Expand -> Reshape."""
    y = net.unsqueeze(x, 2)
    if computed:
        sizes = net.Shape(x)
        batch = net.unsqueeze(net.Gather(sizes, net.constant(np.array(0)), axis=0), 0)
        target = net.Concat(batch, np.array([groups, times, TOKENS, DIM]), axis=0)
    else:
        target = np.array([1, groups, times, TOKENS, DIM])
    return net.reshape(net.Expand(y, target), -1, groups * times, TOKENS, DIM)


@case(share=0.45)
@case("computed", share=0.45, opset=14)
def grouped_query(net):
    """LLaMA: 4 query heads, 2 key and value heads by Expand."""
    x = body(net)
    q = heads_of(net, net.linear(x, WIDTH, WIDTH, bias=False))
    k, v = (
        repeat(net, heads_of(net, net.linear(x, WIDTH, 8, bias=False), heads=2), 2, 2, net.opset == 14)
        for _ in range(2)
    )
    close(net, merge(net, attend(net, q, k, v)))


@case(share=0.4)
def multi_query_by_broadcast(net):
    """One key and value head, broadcast over the query heads by MatMul."""
    x = body(net)
    q = heads_of(net, net.linear(x, WIDTH, WIDTH))
    k, v = (net.unsqueeze(net.linear(x, WIDTH, DIM), 1) for _ in range(2))
    close(net, merge(net, attend(net, q, k, v)))


def tables(net: Net, size: int) -> tuple[str, str]:
    """Return cos and sin tables of shape (1, 1, tokens, size), each angle where RoPE wants it."""
    angles = np.outer(np.arange(TOKENS), 10.0 ** -np.arange(size)).astype(np.float32)[None, None]
    return net.constant(np.cos(angles)), net.constant(np.sin(angles))


@case(share=0.4)
@case("opset13", share=0.4, opset=13)
def rope_halves(net):
    """x * cos + concat(-x2, x1) * sin: position i goes together with i + D/2."""

    def rotate(x: str) -> str:
        half = net.Concat(net.Neg(net.slice(x, 2, 4, 3)), net.slice(x, 0, 2, 3), axis=-1)
        return net.Add(net.Mul(x, cos), net.Mul(half, sin))

    x = body(net)
    cos, sin = (net.Concat(t, t, axis=-1) for t in tables(net, 2))
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for _ in range(3))
    close(net, merge(net, attend(net, rotate(q), rotate(k), v)))


@case(share=0.4)
def rope_interleaved(net):
    """Pairs (2 i, 2 i + 1) rotate, by strided slices and a stack."""

    def rotate(x: str) -> str:
        even, odd = net.slice(x, 0, 4, 3, 2), net.slice(x, 1, 4, 3, 2)
        a = net.Sub(net.Mul(even, cos), net.Mul(odd, sin))
        b = net.Add(net.Mul(even, sin), net.Mul(odd, cos))
        stacked = net.Concat(net.unsqueeze(a, 4), net.unsqueeze(b, 4), axis=4)
        return net.reshape(stacked, -1, HEADS, TOKENS, DIM)

    x = body(net)
    cos, sin = tables(net, 2)
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for _ in range(3))
    close(net, merge(net, attend(net, rotate(q), rotate(k), v)))


@case(share=0.35)
def rope_computed_tables(net):
    """cos and sin come from positions and inverse frequencies inside the graph, as LLaMA exports have it."""

    def rotate(x: str) -> str:
        half = net.Concat(net.Neg(net.slice(x, 2, 4, 3)), net.slice(x, 0, 2, 3), axis=-1)
        return net.Add(net.Mul(x, net.Cos(angles)), net.Mul(half, net.Sin(angles)))

    x = body(net)
    frequency = net.constant(np.array([1.0, 0.1], np.float32).reshape(1, 2, 1))
    positions = net.constant(np.arange(TOKENS, dtype=np.float32).reshape(1, 1, TOKENS))
    angles = net.transpose(net.MatMul(frequency, positions), 0, 2, 1)
    angles = net.unsqueeze(net.Concat(angles, angles, axis=-1), 1)
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for _ in range(3))
    close(net, merge(net, attend(net, rotate(q), rotate(k), v)))


@case(share=0.35)
@case("opset13", share=0.35, opset=13)
def scale_from_shape(net):
    """torch >= 2 exports 1 / sqrt(D) as Shape -> Gather -> Cast -> Sqrt -> Div: the value must stay the original's."""
    x = body(net)
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for _ in range(3))
    size = net.Cast(net.Gather(net.Shape(q), net.constant(np.array(-1)), axis=0), to=1)
    close(net, merge(net, attend(net, q, k, v, scale=net.Div(net.number(1.0), net.Sqrt(size)))))


@case(share=0.35)
def scale_from_shape_by_slice(net):
    """The same by Slice of the shape, with the square root taken on both sides (torch's scaled_dot_product)."""
    x = body(net)
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for _ in range(3))
    size = net.Sqrt(net.Cast(net.Slice(net.Shape(q), *(np.array([i]) for i in (-1, 2**63 - 1))), to=1))
    root = net.Sqrt(net.Div(net.constant(np.array([1.0], np.float32)), size))
    scores = net.MatMul(net.Mul(q, root), net.Mul(net.transpose(k, 0, 1, 3, 2), root))
    close(net, merge(net, net.MatMul(net.Softmax(scores, axis=-1), v)))


@case(share=0.45)
def causal_mask(net):
    """GPT-2: a triangular buffer sliced to the sequence, Where with a large negative number."""
    x = body(net)
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for _ in range(3))
    mask = net.slice(net.slice(net.constant(np.tril(np.ones((1, 1, 16, 16), bool))), 0, TOKENS, 2), 0, TOKENS, 3)
    scores = net.Where(mask, net.Div(net.MatMul(q, net.transpose(k, 0, 1, 3, 2)), net.number(2.0)), net.number(-1e4))
    close(net, merge(net, net.MatMul(net.Softmax(scores, axis=-1), v)))


@case(share=0.35)
def dynamic_sequence(net):
    x = body(net, "sequence")
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH), computed=True) for _ in range(3))
    close(net, merge(net, attend(net, q, k, v), computed=True))


@case(share=0.4)
def cross_attention(net):
    x, memory = body(net), net.input("batch", 9, 6, name="memory")
    q = heads_of(net, net.linear(x, WIDTH, WIDTH))
    k, v = (heads_of(net, net.linear(memory, 6, WIDTH), tokens=9) for _ in range(2))
    close(net, merge(net, attend(net, q, k, v)))


@case(share=0.35)
def heads_in_the_batch(net):
    """fairseq and tf: (batch * heads, tokens, dim)."""
    x = net.linear(net.input(TOKENS, "batch", 8), 8, WIDTH)
    shape = net.Shape(x)
    count = net.Mul(net.Gather(shape, net.constant(np.array([1])), axis=0), net.constant(np.array([HEADS])))
    target = net.Concat(np.array([TOKENS]), count, np.array([DIM]), axis=0)
    q, k, v = (net.transpose(net.Reshape(net.linear(x, WIDTH, WIDTH), target), 1, 0, 2) for _ in range(3))
    y = net.MatMul(net.Softmax(net.MatMul(q, net.transpose(k, 0, 2, 1)), axis=-1), v)
    y = net.Reshape(net.transpose(y, 1, 0, 2), shape)
    close(net, y)


@case(share=0.25)
def einsum_attention(net):
    """Haiku and t5x: every product is an Einsum."""
    x = body(net)
    q, k, v = (net.Einsum(x, net.weight(WIDTH, HEADS, DIM), equation="bnc,chd->bnhd") for _ in range(3))
    weights = net.Softmax(net.Einsum(q, k, equation="bnhd,bmhd->bhnm"), axis=-1)
    y = net.Einsum(weights, v, equation="bhnm,bmhd->bnhd")
    y = net.Einsum(y, net.weight(HEADS, DIM, WIDTH), equation="bnhd,hdc->bnc")
    net.output(net.linear(y, WIDTH, 5))


@case(share=0.35)
def channel_attention_xcit(net):
    """XCiT: attention between the channels of a head, q and k normalised over the tokens: heads go exactly."""
    q, k, v = (net.transpose(heads_of(net, net.linear(x, WIDTH, WIDTH)), 0, 1, 3, 2) for x in [body(net)] * 3)
    q, k = (net.Div(t, net.Add(net.ReduceL2(t, axes=[-1], keepdims=1), net.number(1e-6))) for t in (q, k))
    y = net.MatMul(net.Softmax(net.MatMul(q, net.transpose(k, 0, 1, 3, 2)), axis=-1), v)
    y = net.reshape(net.transpose(y, 0, 3, 1, 2), -1, TOKENS, WIDTH)
    close(net, y)


@case(share=0.35)
def linear_attention(net):
    """k^T v first: the head positions of q and k are contracted, those of v written."""
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for x in [body(net)] * 3)
    y = net.MatMul(net.Elu(q), net.MatMul(net.transpose(net.Elu(k), 0, 1, 3, 2), v))
    close(net, merge(net, y))


@case(share=0.35)
def talking_heads(net):
    """A dense mix over the head axis of the scores."""
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for x in [body(net)] * 3)
    scores = net.transpose(net.MatMul(q, net.transpose(k, 0, 1, 3, 2)), 0, 2, 3, 1)
    mixed = net.transpose(net.linear(scores, HEADS, HEADS), 0, 3, 1, 2)
    close(net, merge(net, net.MatMul(net.Softmax(mixed, axis=-1), v)))
