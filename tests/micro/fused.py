"""Fused operators: com.microsoft as onnxruntime's optimizer writes them, and ai.onnx since opset 23."""

import numpy as np

from tests.micro.build import Net, case

WIDTH, HEADS, TOKENS = 16, 4, 6


def start(net: Net, size: int = WIDTH, batch: str | int = "batch") -> str:
    """Draw a (batch, tokens, size) stream."""
    return net.linear(net.input(batch, TOKENS, 8), 8, size)


def close(net: Net, y: str, size: int = WIDTH) -> None:
    """Draw two dense layers and the output."""
    net.output(net.linear(net.Relu(net.linear(y, size, 24)), 24, 4))


@case(share=0.35)
def attention(net):
    """Packed weight (width, 3 * hidden)."""
    weight = net.constant((net.rng.normal(size=(WIDTH, 48)) / 4).astype(np.float32))
    close(net, net.ms("Attention", start(net), weight, net.weight(48), num_heads=HEADS))


@case(share=0.35)
def attention_with_unequal_hidden_sizes(net):
    weight = net.constant((net.rng.normal(size=(WIDTH, 16 + 16 + 24)) / 4).astype(np.float32))
    y = net.ms("Attention", start(net), weight, net.weight(56), num_heads=HEADS, qkv_hidden_sizes=[16, 16, 24])
    close(net, y, 24)


@case(share=0.35)
def multi_head_attention(net):
    x = start(net)
    q, k, v = (net.linear(x, WIDTH, WIDTH, bias=False) for _ in range(3))
    close(net, net.ms("MultiHeadAttention", q, k, v, net.weight(48), num_heads=HEADS))


@case(share=0.35)
def group_query_attention(net):
    x = start(net, batch=2)
    q, k, v = net.linear(x, WIDTH, 32), net.linear(x, WIDTH, 16), net.linear(x, WIDTH, 16)
    past = [net.constant(np.zeros((2, 2, 0, 8), np.float32)) for _ in range(2)]
    lengths = net.constant(np.full(2, TOKENS - 1, np.int32)), net.constant(np.array(TOKENS, np.int32))
    y, _, _ = net.ms("GroupQueryAttention", q, k, v, *past, *lengths, num_heads=4, kv_num_heads=2, outputs=3)
    close(net, y, 32)


@case(share=0.35, exact=True)
def skip_layer_normalization(net):
    x = start(net)
    y = net.linear(net.Relu(net.linear(x, WIDTH, 32)), 32, WIDTH)
    y = net.ms("SkipLayerNormalization", x, y, net.vector(WIDTH), net.vector(WIDTH), net.weight(WIDTH))
    close(net, y)


@case(share=0.3)
def bias_and_fast_gelu(net):
    y = net.ms("BiasGelu", net.MatMul(start(net), net.weight(WIDTH, 32)), net.weight(32))
    y = net.ms("FastGelu", net.MatMul(y, net.weight(32, 32)), net.weight(32))
    close(net, net.ms("QuickGelu", y, alpha=1.702), 32)


@case(share=0.35)
def fused_matmul(net):
    y = net.ms("FusedMatMul", start(net), net.weight(24, WIDTH), transB=1, alpha=0.5)
    close(net, y, 24)


@case(share=0.35)
def fused_matmul_of_activations(net):
    """Scores by one FusedMatMul with transB and alpha."""
    x = start(net)
    q, k, v = (net.linear(x, WIDTH, 24) for _ in range(3))
    scores = net.Softmax(net.ms("FusedMatMul", q, k, transB=1, alpha=0.2), axis=-1)
    close(net, net.MatMul(scores, v), 24)


@case(share=0.4)
def fused_gemm(net):
    x = net.linear(net.input("batch", 8), 8, 16)
    y = net.ms("FusedGemm", x, net.weight(32, 16), net.weight(32), transB=1, activation="Relu")
    net.output(net.linear(y, 32, 4))


@case(share=0.35)
def fused_conv(net):
    y = net.conv(net.input("batch", 3, 6, 6), 3, 16)
    y = net.ms("FusedConv", y, net.weight(16, 16, 3, 3), net.weight(16), pads=[1] * 4, activation="Relu")
    y = net.ms("FusedConv", y, net.weight(16, 16, 3, 3), net.weight(16), y, pads=[1] * 4, activation="Relu")
    net.output(net.conv(y, 16, 4))


@case(share=0.35)
def rotary_embedding(net):
    x = start(net)
    angles = np.outer(np.arange(TOKENS), [1.0, 0.1]).astype(np.float32)
    cos, sin = net.constant(np.cos(angles)), net.constant(np.sin(angles))
    zero = net.constant(np.array([0]))
    q, k = (net.ms("RotaryEmbedding", net.linear(x, WIDTH, WIDTH), zero, cos, sin, num_heads=HEADS) for _ in range(2))
    close(net, net.ms("MultiHeadAttention", q, k, net.linear(x, WIDTH, WIDTH), num_heads=HEADS))


@case(share=0.35)
def skip_simplified_layer_normalization(net):
    x = start(net)
    y = net.linear(net.Relu(net.linear(x, WIDTH, 32)), 32, WIDTH)
    close(net, net.ms("SkipSimplifiedLayerNormalization", x, y, net.vector(WIDTH)))


@case(share=0.35)
def attention_with_additive_bias(net):
    """A (1, heads, tokens, tokens) bias follows the heads."""
    x = start(net, batch=2)
    weight = net.constant((net.rng.normal(size=(WIDTH, 48)) / 4).astype(np.float32))
    bias = net.weight(1, HEADS, TOKENS, TOKENS)
    close(net, net.ms("Attention", x, weight, net.weight(48), None, None, bias, num_heads=HEADS))


@case("4d", share=0.35, opset=23)
@case("4d_opset24", share=0.35, opset=24)
def standard_attention(net):
    """ai.onnx Attention on (batch, heads, tokens, dim), with grouped key and value heads."""
    x = start(net)

    def heads(count: int) -> str:
        return net.transpose(net.reshape(net.linear(x, WIDTH, count * 4), 0, 0, count, 4), 0, 2, 1, 3)

    y = net.Attention(heads(4), heads(2), heads(2), is_causal=1)
    close(net, net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, 16))


@case(share=0.35, opset=23)
def standard_attention_3d(net):
    x = start(net)
    q, k, v = net.linear(x, WIDTH, 16), net.linear(x, WIDTH, 8), net.linear(x, WIDTH, 8)
    close(net, net.Attention(q, k, v, q_num_heads=4, kv_num_heads=2))


@case(share=0.4, opset=23)
def rms_normalization(net):
    y = net.RMSNormalization(start(net), net.vector(WIDTH), axis=-1)
    close(net, y)


@case(share=0.35, opset=23)
@case("interleaved", share=0.35, opset=23, weights="constant")
def standard_rotary_embedding(net):
    x = start(net, batch=2)
    angles = np.outer(np.arange(TOKENS), [1.0, 0.1]).astype(np.float32)
    cos, sin = net.constant(np.cos(angles)), net.constant(np.sin(angles))
    positions = net.constant(np.tile(np.arange(TOKENS), (2, 1)))
    more = {"num_heads": HEADS, "interleaved": int(net.style == "constant")}
    q, k = (net.RotaryEmbedding(net.linear(x, WIDTH, WIDTH), cos, sin, positions, **more) for _ in range(2))
    close(net, net.Attention(q, k, net.linear(x, WIDTH, WIDTH), q_num_heads=HEADS, kv_num_heads=HEADS))


@case(share=0.35, opset=24)
def swish(net):
    close(net, net.Swish(net.linear(start(net), WIDTH, 32)), 32)
