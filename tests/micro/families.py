"""Pieces of well-known networks that no other file draws."""

import numpy as np

from tests.micro.attention import attend, heads_of, merge
from tests.micro.build import Net, case


def image(net: Net, size: int = 16) -> str:
    """Draw the input and one Conv."""
    return net.Relu(net.conv(net.input("batch", 3, 8, 8), 3, size))


def stream(net: Net, size: int = 16, tokens: int = 6) -> str:
    """Draw a (batch, tokens, size) stream."""
    return net.linear(net.input("batch", tokens, 8), 8, size)


@case(share=0.35)
def yolo_head_with_distribution(net):
    """YOLOv8: boxes and classes flattened together, split, Softmax over 4 bins, expectation by a Conv with 0 to 3."""
    y = image(net)
    boxes = net.conv(net.Relu(net.conv(y, 16, 12)), 12, 16, kernel=1)
    classes = net.conv(net.Relu(net.conv(y, 16, 12)), 12, 5, kernel=1)
    flat = net.reshape(net.Concat(boxes, classes, axis=1), 0, 21, -1)
    boxes, classes = net.split(flat, [16, 5])
    bins = net.Softmax(net.transpose(net.reshape(boxes, 0, 4, 4, 64), 0, 2, 1, 3), axis=1)
    expectation = net.Conv(bins, net.constant(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)))
    net.output(net.Concat(net.reshape(expectation, 0, 4, 64), net.Sigmoid(classes), axis=1))


@case(share=0.3)
def feature_pyramid(net):
    a = image(net)
    b = net.Relu(net.conv(a, 16, 16, strides=[2, 2]))
    c = net.Relu(net.conv(b, 16, 24, strides=[2, 2]))
    sides = [net.conv(x, size, 12, kernel=1) for x, size in ((a, 16), (b, 16), (c, 24))]
    scales = np.array([1, 1, 2, 2], np.float32)
    middle = net.Add(sides[1], net.Resize(sides[2], None, scales))
    low = net.Add(sides[0], net.Resize(middle, None, scales))
    heads = net.weight(4, 12, 3, 3)
    net.output(*(net.Conv(y, heads, pads=[1] * 4) for y in (low, middle, sides[2])))


@case(share=0.35)
def weighted_fusion(net):
    """BiFPN: scalar weights normalised inside the graph."""
    y = image(net)
    w = net.Relu(net.vector(2))
    w = net.Div(w, net.Add(net.reduce("Sum", w, [0]), net.number(1e-4)))
    a, b = (net.Mul(net.conv(y, 16, 12), net.Gather(w, net.constant(np.array(i)), axis=0)) for i in range(2))
    net.output(net.conv(net.Add(a, b), 12, 4))


@case(share=0.4)
def conformer_convolution(net):
    """Pointwise GLU, depthwise Conv1d, BatchNorm, swish, on (batch, channels, time)."""
    x = stream(net)
    y = net.transpose(net.layer_norm(x, 16), 0, 2, 1)
    a, b = net.split(net.Conv(y, net.weight(32, 16, 1), net.weight(32)), [16, 16])
    y = net.Conv(net.Mul(a, net.Sigmoid(b)), net.weight(16, 1, 3), group=16, pads=[1, 1])
    y = net.norm(y, 16)
    y = net.Conv(net.Mul(y, net.Sigmoid(y)), net.weight(16, 16, 1), net.weight(16))
    net.output(net.linear(net.Add(x, net.transpose(y, 0, 2, 1)), 16, 4))


@case(share=0.4)
def relative_shift_attention(net):
    """Transformer-XL: position scores shifted by Pad -> Reshape -> Slice, with learned biases u and v per head."""
    q, k, v = (heads_of(net, net.linear(x, 16, 16)) for x in [stream(net)] * 3)
    u, w = net.weight(1, 4, 1, 4), net.weight(1, 4, 1, 4)
    positions = heads_of(
        net, net.linear(net.constant(net.rng.normal(size=(1, 6, 8)).astype(np.float32)), 8, 16, bias=False)
    )
    content = net.MatMul(net.Add(q, u), net.transpose(k, 0, 1, 3, 2))
    place = net.MatMul(net.Add(q, w), net.transpose(positions, 0, 1, 3, 2))
    place = net.reshape(net.pad(place, [0, 0, 0, 1, 0, 0, 0, 0]), -1, 4, 7, 6)
    place = net.reshape(net.slice(place, 1, 7, 2), -1, 4, 6, 6)
    weights = net.Softmax(net.Mul(net.Add(content, place), net.number(0.5)), axis=-1)
    net.output(net.linear(merge(net, net.MatMul(weights, v)), 16, 4))


@case(share=0.35)
def cosine_attention(net):
    """Swin v2: q and k normalised per position, a learned scale per head."""
    q, k, v = (heads_of(net, net.linear(x, 16, 16)) for x in [stream(net)] * 3)
    q, k = (net.Div(t, net.Clip(net.ReduceL2(t, axes=[-1], keepdims=1), 1e-6, None)) for t in (q, k))
    scale = net.Exp(net.Clip(net.vector(4, shape=(4, 1, 1)), None, 4.6))
    net.output(net.linear(merge(net, attend(net, q, k, v, scale=scale)), 16, 4))


@case(share=0.5)
def contrastive_head(net):
    """CLIP: the features of the last token by ArgMax, L2 normalisation, logits by a learned temperature."""
    tokens = net.input("batch", 6, name="tokens", dtype=np.int64)
    x = net.Add(net.Gather(net.weight(20, 16), tokens, axis=0), net.weight(6, 16))
    x = net.layer_norm(x, 16)
    last = net.ArgMax(tokens, axis=1, keepdims=1)
    rows = net.reshape(net.Range(np.array(0), net.squeeze(net.slice(net.Shape(x), 0, 1, 0), 0), np.array(1)), -1, 1)
    text = net.linear(net.GatherND(x, net.Concat(rows, last, axis=1)), 16, 12, bias=False)
    other = net.linear(net.input("batch", 10, name="image"), 10, 12, bias=False)
    text, other = (net.Div(t, net.ReduceL2(t, axes=[1], keepdims=1)) for t in (text, other))
    net.output(net.Mul(net.MatMul(text, net.transpose(other, 1, 0)), net.Exp(net.number(0.5))))


@case(share=0.4)
def key_value_cache(net):
    """A decoder step: past keys and values come in, present ones go out, so heads stay and the rest goes."""
    x = stream(net, tokens=1)
    past = [net.input("batch", 4, 5, 4, name=name) for name in ("past_k", "past_v")]
    q, k, v = (heads_of(net, net.linear(x, 16, 16), tokens=1) for _ in range(3))
    k, v = net.Concat(past[0], k, axis=2), net.Concat(past[1], v, axis=2)
    y = net.linear(merge(net, attend(net, q, k, v)), 16, 16)
    y = net.linear(net.Relu(net.linear(net.Add(x, y), 16, 48)), 48, 16)
    net.output(net.linear(y, 16, 8), k, v)


@case(share=0.35)
def bucketed_position_bias(net):
    """T5: a (heads) embedding gathered by constants computed in the graph."""
    q, k, v = (heads_of(net, net.linear(x, 16, 16, bias=False)) for x in [stream(net)] * 3)
    steps = net.Range(np.array(0), np.array(6), np.array(1))
    distance = net.Abs(net.Sub(net.unsqueeze(steps, 0), net.unsqueeze(steps, 1)))
    bias = net.Gather(net.weight(8, 4), net.Min(distance, net.constant(np.array(7))), axis=0)
    bias = net.unsqueeze(net.transpose(bias, 2, 0, 1), 0)
    net.output(net.linear(merge(net, attend(net, q, k, v, bias=bias)), 16, 4))


@case(share=0.35)
def learned_queries(net):
    """Perceiver and DETR: latents expanded to the batch attend to the stream."""
    x = stream(net)
    latents = net.weight(1, 3, 16)
    batch = net.slice(net.Shape(x), 0, 1, 0)
    y = net.Expand(latents, net.Concat(batch, np.array([3, 16]), axis=0))
    q = heads_of(net, net.linear(y, 16, 16), tokens=3)
    k, v = (heads_of(net, net.linear(x, 16, 16)) for _ in range(2))
    y = net.Add(y, net.linear(merge(net, attend(net, q, k, v)), 16, 16))
    net.output(net.linear(net.Relu(net.linear(y, 16, 24)), 24, 4))


@case(share=0.4)
def pool_former(net):
    """GroupNorm(1) as one instance, pooling minus identity, layer scale (C, 1, 1)."""
    x = image(net)
    y = net.InstanceNormalization(
        net.reshape(x, 0, 1, -1), net.constant(np.ones(1, np.float32)), net.constant(np.zeros(1, np.float32))
    )
    y = net.Reshape(y, net.Shape(x))
    y = net.Add(net.Mul(y, net.vector(16, shape=(16, 1, 1))), net.vector(16, shape=(16, 1, 1)))
    y = net.Sub(net.AveragePool(y, kernel_shape=[3, 3], pads=[1] * 4), y)
    x = net.Add(x, net.Mul(y, net.vector(16, shape=(16, 1, 1))))
    x = net.Add(x, net.conv(net.Relu(net.conv(x, 16, 32, kernel=1)), 32, 16, kernel=1))
    net.output(net.gemm(net.reduce("Mean", x, [-2, -1], keepdims=0), 16, 4))


@case(share=0.4)
def temporal_shift(net):
    """TSM: an eighth of the channels moves one frame on, an eighth back."""
    x = net.Relu(net.conv(net.input(4, 3, 6, 6), 3, 16))
    y = net.reshape(x, 1, 4, 16, 6, 6)
    ahead = net.pad(net.slice(net.slice(y, 0, 4, 2), 1, 4, 1), [0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    behind = net.pad(net.slice(net.slice(y, 4, 8, 2), 0, 3, 1), [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    y = net.reshape(net.Concat(ahead, behind, net.slice(y, 8, 16, 2), axis=2), 4, 16, 6, 6)
    net.output(net.conv(net.Relu(net.Add(x, net.conv(y, 16, 16))), 16, 4))


@case(share=0.45)
def non_local(net):
    x = image(net)
    a, b, c = (net.reshape(net.conv(x, 16, 8, kernel=1), 0, 8, 64) for _ in range(3))
    weights = net.Softmax(net.MatMul(net.transpose(a, 0, 2, 1), b), axis=-1)
    y = net.reshape(net.transpose(net.MatMul(weights, net.transpose(c, 0, 2, 1)), 0, 2, 1), 0, 8, 8, 8)
    net.output(net.conv(net.Add(x, net.conv(y, 8, 16, kernel=1)), 16, 4))


@case(share=0.55)
def vlad(net):
    """NetVLAD: soft assignment, residuals to centres, normalised, flattened into a dense layer."""
    x = image(net)
    share = net.Softmax(net.reshape(net.conv(x, 16, 6, kernel=1), 0, 6, 64), axis=1)
    flat = net.reshape(x, 0, 16, 64)
    first = net.MatMul(share, net.transpose(flat, 0, 2, 1))
    second = net.Mul(net.reduce("Sum", share, [2]), net.weight(6, 16))
    y = net.Sub(first, second)
    y = net.Div(y, net.Add(net.ReduceL2(y, axes=[2], keepdims=1), net.number(1e-6)))
    net.output(net.gemm(net.Flatten(y), 96, 4))


@case(share=0.3)
def autoencoder_with_two_heads(net):
    """A VAE without the noise: mean and log variance by Split, decoder by ConvTranspose."""
    y = net.Relu(net.conv(image(net), 16, 24, strides=[2, 2]))
    mean, spread = net.split(net.gemm(net.Flatten(y), 24 * 16, 16), [8, 8])
    z = net.Add(mean, net.Exp(net.Mul(spread, net.number(0.5))))
    y = net.Relu(net.reshape(net.gemm(z, 8, 24 * 16), -1, 24, 4, 4))
    y = net.ConvTranspose(y, net.weight(24, 12, 4, 4), net.weight(12), strides=[2, 2], pads=[1] * 4)
    net.output(net.Sigmoid(net.conv(net.Relu(y), 12, 3)))


@case(share=0.35)
def modulated_convolution(net):
    """StyleGAN: weights scaled by data, demodulated, used as groups of the batch: never wrong, at worst less pruned."""
    style = net.Add(net.linear(net.Relu(net.linear(net.input(1, 6, name="style"), 6, 32)), 32, 16), net.number(1.0))
    x = net.Relu(net.conv(net.input(1, 3, 8, 8), 3, 16))
    weight = net.Mul(net.weight(12, 16, 3, 3), net.reshape(style, 1, 16, 1, 1))
    power = net.reduce("Sum", net.Mul(weight, weight), [1, 2, 3])
    weight = net.Div(weight, net.Sqrt(net.Add(power, net.number(1e-6))))
    net.output(net.conv(net.Relu(net.Conv(x, weight, pads=[1] * 4)), 12, 3))


@case(share=0.45)
def efficient_vit_multi_scale(net):
    """qkv and a depthwise + grouped aggregation of it, concatenated, then heads of three."""
    x = image(net)
    qkv = net.conv(x, 16, 24, kernel=1, bias=False)
    more = net.conv(net.conv(qkv, 24, 24, group=24, bias=False), 24, 24, kernel=1, group=6, bias=False)
    y = net.reshape(net.Concat(qkv, more, axis=1), 0, -1, 12, 64)
    q, k, v = (net.slice(net.transpose(y, 0, 1, 3, 2), i, i + 4, 3) for i in (0, 4, 8))
    y = net.MatMul(net.Relu(q), net.MatMul(net.transpose(net.Relu(k), 0, 1, 3, 2), v))
    y = net.reshape(net.transpose(y, 0, 1, 3, 2), 0, 16, 8, 8)
    net.output(net.conv(net.conv(y, 16, 16, kernel=1), 16, 4))


@case(share=0.35)
def rep_vgg(net):
    """Training-time branches: 3x3, 1x1 and identity BatchNorm."""
    x = image(net)
    y = net.Add(net.norm(net.conv(x, 16, 16, bias=False), 16), net.norm(net.conv(x, 16, 16, kernel=1, bias=False), 16))
    net.output(net.conv(net.Relu(net.Add(y, net.norm(x, 16))), 16, 4))


@case(share=0.45)
def keras_separable(net):
    """tf2onnx: depthwise weights by Reshape and Transpose of a stored HWC kernel, explicit Pad, NHWC bias."""
    x = net.transpose(net.input("batch", 8, 8, 3), 0, 3, 1, 2)
    y = net.Conv(net.pad(x, [0, 0, 1, 1, 0, 0, 1, 1]), net.weight(16, 3, 3, 3))
    kernel = net.reshape(net.transpose(net.weight(3, 3, 16, 1), 2, 3, 0, 1), 16, 1, 3, 3)
    y = net.Conv(net.Relu(y), kernel, group=16, pads=[1] * 4)
    y = net.Add(net.transpose(net.Conv(y, net.weight(24, 16, 1, 1)), 0, 2, 3, 1), net.weight(24))
    y = net.reduce("Mean", net.Relu(y), [1, 2], keepdims=0)
    net.output(net.Softmax(net.linear(y, 24, 5)))


@case(share=0.3)
def mixture_of_experts(net):
    """Dense mixture: experts stacked in one tensor, weighted by a gate."""
    x = stream(net)
    gate = net.unsqueeze(net.Softmax(net.linear(x, 16, 4), axis=-1), 3)
    y = net.MatMul(net.unsqueeze(net.unsqueeze(x, 2), 2), net.weight(4, 16, 24))
    y = net.MatMul(net.Relu(y), net.weight(4, 24, 16))
    y = net.reduce("Sum", net.Mul(net.squeeze(y, 3), gate), [2], keepdims=0)
    net.output(net.linear(net.Add(x, y), 16, 4))


@case(share=0.35)
def crnn_column_features(net):
    """PP-OCR: (B, C, 1, W) squeezed, two LSTMs, CTC head with Softmax."""
    y = net.Relu(net.Conv(net.input("batch", 1, 4, 8), net.weight(12, 1, 4, 1), net.weight(12)))
    y = net.transpose(net.squeeze(y, 2), 2, 0, 1)
    for inner in (12, 16):
        weights = [net.weight(2, 32, size, gain=0.4) for size in (inner, 8)]
        y = net.LSTM(y, *weights, net.weight(2, 64), hidden_size=8, direction="bidirectional")
        y = net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, -1)
    net.output(net.Softmax(net.linear(net.transpose(y, 1, 0, 2), 16, 7), axis=2))
