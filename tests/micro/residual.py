"""Pattern 6: the residual width of transformers and ConvNeXt."""

import numpy as np

from tests.micro.attention import attend, heads_of, merge
from tests.micro.build import Net, case

WIDTH = 16


def block(net: Net, x: str, tokens: int, scale: bool = False) -> str:
    """Draw one pre-norm transformer block, with layer scale if asked."""
    y = net.layer_norm(x, WIDTH)
    q, k, v = (heads_of(net, net.linear(y, WIDTH, WIDTH), tokens=tokens) for _ in range(3))
    y = net.linear(merge(net, attend(net, q, k, v)), WIDTH, WIDTH)
    x = net.Add(x, net.Mul(y, net.vector(WIDTH)) if scale else y)
    y = net.linear(gelu(net, net.linear(net.layer_norm(x, WIDTH), WIDTH, 32)), 32, WIDTH)
    return net.Add(x, net.Mul(net.vector(WIDTH), y) if scale else y)


def gelu(net: Net, x: str) -> str:
    """Draw Gelu: the operator since opset 20, else by Erf."""
    if net.opset >= 20:
        return net.Gelu(x)
    erf = net.Add(net.Erf(net.Div(x, net.number(2**0.5))), net.number(1.0))
    return net.Mul(net.Mul(x, erf), net.number(0.5))


@case(share=0.4)
@case("opset11", share=0.4, opset=11)
@case("opset13_constants", share=0.4, opset=13, weights="constant")
@case("opset20", share=0.4, opset=20)
def vit(net):
    """Patch Conv, class token by Expand, position embedding, blocks, the class token's row into the head."""
    x = net.Conv(net.input("batch", 3, 8, 8), net.weight(WIDTH, 3, 4, 4), net.weight(WIDTH), strides=[4, 4])
    x = net.transpose(net.reshape(x, 0, WIDTH, 4), 0, 2, 1)
    batch = net.unsqueeze(net.Gather(net.Shape(x), net.constant(np.array(0)), axis=0), 0)
    token = net.Expand(net.weight(1, 1, WIDTH), net.Concat(batch, np.array([1, 1]), axis=0))
    x = net.Add(net.Concat(token, x, axis=1), net.weight(1, 5, WIDTH))
    x = net.layer_norm(block(net, x, 5, scale=True), WIDTH)
    net.output(net.gemm(net.Gather(x, net.constant(np.array(0)), axis=1), WIDTH, 5))


@case(share=0.4)
def vit_mean_pool(net):
    x = net.Conv(net.input("batch", 3, 8, 8), net.weight(WIDTH, 3, 4, 4), net.weight(WIDTH), strides=[4, 4])
    x = net.transpose(net.computed_reshape(x, 0, 0, -1), 0, 2, 1)
    x = block(net, net.Add(x, net.weight(1, 4, WIDTH)), 4)
    net.output(net.gemm(net.layer_norm(net.reduce("Mean", x, [1], keepdims=0), WIDTH), WIDTH, 5))


@case(share=0.35)
@case("opset14", share=0.35, opset=14)
def bert(net):
    """Token, position and type embeddings; post-norm."""
    tokens = net.input("batch", 6, name="tokens", dtype=np.int64)
    kinds = net.input("batch", 6, name="kinds", dtype=np.int64)
    x = net.Add(net.Gather(net.weight(20, WIDTH), tokens, axis=0), net.Gather(net.weight(2, WIDTH), kinds, axis=0))
    x = net.layer_norm(net.Add(x, net.Gather(net.weight(12, WIDTH), net.constant(np.arange(6)), axis=0)), WIDTH)
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for _ in range(3))
    x = net.layer_norm(net.Add(x, net.linear(merge(net, attend(net, q, k, v)), WIDTH, WIDTH)), WIDTH)
    x = net.layer_norm(net.Add(x, net.linear(gelu(net, net.linear(x, WIDTH, 32)), 32, WIDTH)), WIDTH)
    net.output(net.Tanh(net.gemm(net.Gather(x, net.constant(np.array(0)), axis=1), WIDTH, 5)))


@case(share=0.35)
def convnext(net):
    """Depthwise 7x7 -> NHWC -> LayerNorm -> MLP -> layer scale -> NCHW -> add."""
    x = net.Conv(net.input("batch", 3, 8, 8), net.weight(WIDTH, 3, 2, 2), net.weight(WIDTH), strides=[2, 2])
    for _ in range(2):
        y = net.transpose(net.conv(x, WIDTH, WIDTH, kernel=3, group=WIDTH), 0, 2, 3, 1)
        y = net.linear(gelu(net, net.linear(net.layer_norm(y, WIDTH), WIDTH, 64)), 64, WIDTH)
        x = net.Add(x, net.transpose(net.Mul(y, net.vector(WIDTH)), 0, 3, 1, 2))
    y = net.Flatten(net.GlobalAveragePool(x))
    net.output(net.gemm(net.layer_norm(y, WIDTH), WIDTH, 5))


@case(share=0.35)
def convnext_channels_first_norm(net):
    """LayerNorm2d written out over axis 1, layer scale of shape (C, 1, 1)."""

    def norm2d(x: str, size: int) -> str:
        centred = net.Sub(x, net.reduce("Mean", x, [1]))
        spread = net.Sqrt(net.Add(net.reduce("Mean", net.Mul(centred, centred), [1]), net.number(1e-6)))
        scale, shift = net.vector(size, shape=(size, 1, 1)), net.vector(size, shape=(1, size, 1, 1))
        return net.Add(net.Mul(net.Div(centred, spread), scale), shift)

    x = norm2d(net.conv(net.input("batch", 3, 8, 8), 3, WIDTH), WIDTH)
    y = net.conv(gelu(net, net.conv(norm2d(x, WIDTH), WIDTH, 48, kernel=1)), 48, WIDTH, kernel=1)
    x = net.Add(x, net.Mul(y, net.vector(WIDTH, shape=(WIDTH, 1, 1))))
    net.output(net.conv(norm2d(x, WIDTH), WIDTH, 4, kernel=1))


@case(share=0.35)
@case("opset13", share=0.35, opset=13)
def llama_block(net):
    """RMSNorm written out, gated MLP, no biases, tied to nothing."""

    def rms(x: str) -> str:
        power = net.reduce("Mean", net.Pow(x, net.number(2.0)), [-1])
        return net.Mul(net.vector(WIDTH), net.Mul(x, net.Reciprocal(net.Sqrt(net.Add(power, net.number(1e-6))))))

    x = net.Gather(net.weight(20, WIDTH), net.input("batch", 6, name="tokens", dtype=np.int64), axis=0)
    q, k, v = (heads_of(net, net.linear(y, WIDTH, WIDTH, bias=False)) for y in [rms(x)] * 3)
    x = net.Add(x, net.linear(merge(net, attend(net, q, k, v)), WIDTH, WIDTH, bias=False))
    y = rms(x)
    gate = net.linear(y, WIDTH, 40, bias=False)
    gate = net.Mul(gate, net.Sigmoid(gate))
    y = net.linear(net.Mul(gate, net.linear(y, WIDTH, 40, bias=False)), 40, WIDTH, bias=False)
    net.output(net.linear(rms(net.Add(x, y)), WIDTH, 20, bias=False))


@case(share=0.4)
def mixer(net):
    """Token mixing through a transpose: the token axis is locked by nothing but its hidden layer is free."""
    x = net.linear(net.input("batch", 8, 6), 6, WIDTH)
    y = net.transpose(net.layer_norm(x, WIDTH), 0, 2, 1)
    x = net.Add(x, net.transpose(net.linear(gelu(net, net.linear(y, 8, 24)), 24, 8), 0, 2, 1))
    x = net.Add(x, net.linear(gelu(net, net.linear(net.layer_norm(x, WIDTH), WIDTH, 32)), 32, WIDTH))
    net.output(net.linear(net.reduce("Mean", x, [1], keepdims=0), WIDTH, 5))


@case(share=0.3)
def residual_without_norm(net):
    """An exact residual stream: three writers and four readers share one set of channels."""
    x = net.linear(net.input("batch", 8), 8, WIDTH)
    for _ in range(2):
        x = net.Add(x, net.linear(net.Relu(net.linear(x, WIDTH, 32)), 32, WIDTH))
    net.output(net.linear(x, WIDTH, 5))


@case(exact=False, share=0.55)
def layer_norm_only(net):
    """Nothing but the normalised width can go, so an exact prune finds nothing."""
    y = net.layer_norm(net.linear(net.input("batch", 8), 8, WIDTH), WIDTH)
    net.output(net.linear(y, WIDTH, 5))


@case(share=0.4)
def layer_norm_over_heads(net):
    """q and k normalised inside every head (ViT-22B, Qwen3): heads go exactly, positions do not."""
    x = net.linear(net.input("batch", 6, 8), 8, WIDTH)
    q, k, v = (heads_of(net, net.linear(x, WIDTH, WIDTH)) for _ in range(3))
    y = attend(net, net.layer_norm(q, 4), net.layer_norm(k, 4), v)
    net.output(net.linear(merge(net, y), WIDTH, 5))
