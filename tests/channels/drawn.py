"""Small graphs with operators that no other suite draws, each between two layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from tests.micro.build import MICROSOFT, Net

Draw = Callable[[Net, str], str]
"""(net, tensor of shape (2, 12) that a layer writes) -> a float tensor whose last axis is read."""
Drawing = Callable[[Net, str, str], str]
WIDTH, CHANNELS, SIZE = 12, 8, 4
DRAWN: dict[tuple[str, str], tuple[Draw, bool]] = {}
"""(domain, operator) -> the drawing, and whether it gets an image (2, 8, 4, 4) instead."""


def drawn(*operators: str, domain: str = "", image: bool = False) -> Callable[[Drawing], Drawing]:
    """Register a drawing (net, tensor, operator) for operators."""

    def register(draw: Drawing) -> Drawing:
        for name in operators:
            DRAWN[domain, name] = (lambda net, y, name=name: draw(net, y, name)), image
        return draw

    return register


def model(key: tuple[str, str]) -> onnx.ModelProto:
    """Return the graph of an operator."""
    draw, image = DRAWN[key]
    net = Net(opset=20)
    if image:
        y = draw(net, net.conv(net.input(2, 3, SIZE, SIZE), 3, CHANNELS))
        net.output(net.conv(y, CHANNELS, 5, kernel=1), shape=None)
    else:
        y = draw(net, net.gemm(net.input(2, 6), 6, WIDTH))
        net.output(net.MatMul(y, net.weight(WIDTH, 5)), shape=None)
    return net.model(runs=False)


def cast(net: Net, y: str, kind: int) -> str:
    return net.Cast(y, to=kind)


def real(net: Net, y: str) -> str:
    return net.Cast(y, to=TensorProto.FLOAT)


@drawn("Trunc")
def unary(net: Net, y: str, name: str) -> str:
    return net.op(name, y)


@drawn("GlobalLpPool", image=True)
def pooled(net: Net, y: str, name: str) -> str:
    return net.op(name, y, p=2)


@drawn("Binarizer", domain="ai.onnx.ml")
def binarizer(net: Net, y: str, name: str) -> str:
    return net.op(name, y, domain="ai.onnx.ml", threshold=0.5)


@drawn("ZipMap", domain="ai.onnx.ml")
def tables(net: Net, y: str, name: str) -> str:
    net.op(name, y, domain="ai.onnx.ml", classlabels_int64s=list(range(WIDTH)))
    return y


def suppressed(net: Net, y: str, name: str, domain: str) -> str:
    boxes = net.constant(np.ones((2, 3, 4), np.float32))
    net.op(name, boxes, net.reshape(y, 2, 3, 4), domain=domain, outputs=4, background_class=-1)
    return y


@drawn("EfficientNMS_TRT")
def plain_plugin(net: Net, y: str, name: str) -> str:
    return suppressed(net, y, name, "")


@drawn("EfficientNMS_TRT", domain="TRT")
def plugin(net: Net, y: str, name: str) -> str:
    return suppressed(net, y, name, "TRT")


@drawn("IsInf", "IsNaN")
def tested(net: Net, y: str, name: str) -> str:
    return real(net, net.op(name, y))


@drawn("Equal", "GreaterOrEqual", "LessOrEqual")
def compared(net: Net, y: str, name: str) -> str:
    return real(net, net.op(name, y, net.weight(WIDTH)))


@drawn("Size")
def counted_all(net: Net, y: str, name: str) -> str:
    return net.Div(y, real(net, net.op(name, y)))


@drawn("BitwiseNot")
def inverted(net: Net, y: str, name: str) -> str:
    return real(net, net.op(name, cast(net, y, TensorProto.INT32)))


@drawn("BitwiseOr", "BitwiseXor", "BitwiseAnd")
def bits(net: Net, y: str, name: str) -> str:
    return real(net, net.op(name, cast(net, y, TensorProto.INT32), np.ones(WIDTH, np.int32)))


@drawn("Or", "Xor")
def logic(net: Net, y: str, name: str) -> str:
    return real(net, net.op(name, cast(net, y, TensorProto.BOOL), np.ones(WIDTH, bool)))


@drawn("BitShift")
def shifted(net: Net, y: str, name: str) -> str:
    return real(net, net.op(name, cast(net, y, TensorProto.UINT32), np.ones(WIDTH, np.uint32), direction="LEFT"))


@drawn("BitCast")
def reread(net: Net, y: str, name: str) -> str:
    return net.op(name, net.op(name, y, to=TensorProto.INT32), to=TensorProto.FLOAT)


@drawn("RandomNormalLike", "RandomUniformLike", "EyeLike")
def like(net: Net, y: str, name: str) -> str:
    return net.Mul(y, net.op(name, y, dtype=TensorProto.FLOAT))


@drawn("RandomNormal", "RandomUniform")
def random(net: Net, y: str, name: str) -> str:
    return net.Add(y, net.op(name, shape=[2, WIDTH]))


@drawn("Multinomial")
def samples(net: Net, y: str, name: str) -> str:
    return real(net, net.op(name, y, sample_size=WIDTH))


@drawn("HannWindow", "HammingWindow", "BlackmanWindow")
def window(net: Net, y: str, name: str) -> str:
    return net.Mul(y, net.op(name, np.array(WIDTH)))


@drawn("MelWeightMatrix")
def mel(net: Net, y: str, name: str) -> str:
    numbers = (np.array(WIDTH), np.array(22), np.array(8000))
    ends = (net.constant(np.float32(0)), net.constant(np.float32(4000)))
    return net.MatMul(y, net.op(name, *numbers, *ends))


@drawn("NonZero")
def places(net: Net, y: str, name: str) -> str:
    return net.Add(y, real(net, net.reduce("Sum", net.op(name, y), [0, 1], keepdims=0)))


@drawn("ImageDecoder")
def decoded(net: Net, y: str, name: str) -> str:
    return net.Add(
        y, net.reduce("Sum", real(net, net.op(name, cast(net, y, TensorProto.UINT8))), [0, 1, 2], keepdims=0)
    )


@drawn("TfIdfVectorizer")
def counted(net: Net, y: str, name: str) -> str:
    grams = {"ngram_counts": [0], "ngram_indexes": list(range(WIDTH)), "pool_int64s": list(range(WIDTH))}
    more = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0}
    return net.op(name, cast(net, y, TensorProto.INT64), **grams, **more)


@drawn("SequenceEmpty", "SequenceInsert")
def inserted(net: Net, y: str, name: str) -> str:
    return net.SequenceAt(net.SequenceInsert(net.SequenceEmpty(), y), np.array(0))


@drawn("SequenceErase")
def erased(net: Net, y: str, name: str) -> str:
    return net.SequenceAt(net.SequenceErase(net.SequenceConstruct(y, y), np.array(1)), np.array(0))


@drawn("SequenceLength")
def length(net: Net, y: str, name: str) -> str:
    return net.Mul(y, real(net, net.SequenceLength(net.SequenceConstruct(y, y))))


@drawn("SequenceMap")
def mapped(net: Net, y: str, name: str) -> str:
    body = net.child()
    inside = body.input(2, WIDTH, name="item")
    body.output(body.Relu(inside), shape=(2, WIDTH))
    return net.SequenceAt(net.SequenceMap(net.SequenceConstruct(y), body=body.graph()), np.array(0))


@drawn("Optional", "OptionalHasElement")
def optional(net: Net, y: str, name: str) -> str:
    box = net.Optional(y)
    return net.Mul(net.OptionalGetElement(box), real(net, net.OptionalHasElement(box)))


@drawn("NonMaxSuppression")
def boxes(net: Net, y: str, name: str) -> str:
    found = net.op(name, net.reshape(y, 1, 6, 4), net.vector(6, shape=(1, 1, 6)))
    return net.Add(y, real(net, net.reduce("Sum", found, [0, 1], keepdims=0)))


@drawn("Trilu", "ReduceLogSumExp")
def triangle(net: Net, y: str, name: str) -> str:
    return net.Trilu(y) if name == "Trilu" else net.Add(y, net.reduce("LogSumExp", y, [0]))


@drawn("ArgMin", "ArgMax")
def least(net: Net, y: str, name: str) -> str:
    return net.Add(y, real(net, net.op(name, y, axis=0)))


@drawn("CumProd", "CumSum")
def running(net: Net, y: str, name: str) -> str:
    return net.op(name, y, np.array(0))


def scale(net: Net) -> str:
    return net.constant(np.float32(0.1))


def zero(net: Net) -> str:
    return net.constant(np.uint8(128))


def quantized(net: Net, y: str) -> str:
    return net.QuantizeLinear(y, scale(net), zero(net))


def floats(net: Net, y: str) -> str:
    return net.DequantizeLinear(y, scale(net), zero(net))


def bytes_of(net: Net, *shape: int) -> str:
    return net.constant(net.rng.integers(0, 255, size=shape).astype(np.uint8))


@drawn("QuantizeLinear", "DequantizeLinear", domain=MICROSOFT)
def there_and_back(net: Net, y: str, name: str) -> str:
    return net.ms("DequantizeLinear", net.ms("QuantizeLinear", y, scale(net), zero(net)), scale(net), zero(net))


@drawn("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def two(net: Net, y: str, name: str) -> str:
    point = (scale(net), zero(net))
    return floats(net, net.ms(name, quantized(net, y), *point, bytes_of(net, WIDTH), *point, *point))


@drawn("QLinearWhere", domain=MICROSOFT)
def chosen(net: Net, y: str, name: str) -> str:
    point = (scale(net), zero(net))
    which = net.constant(np.arange(WIDTH) % 2 == 0)
    return floats(net, net.ms(name, which, quantized(net, y), *point, bytes_of(net, WIDTH), *point, *point))


@drawn("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", domain=MICROSOFT)
def one(net: Net, y: str, name: str) -> str:
    point = (scale(net), zero(net))
    more = {"axis": 0, "opset": 13} if name == "QLinearSoftmax" else {}
    return floats(net, net.ms(name, quantized(net, y), *point, *point, **more))


@drawn("QLinearConcat", domain=MICROSOFT)
def joined(net: Net, y: str, name: str) -> str:
    point = (scale(net), zero(net))
    both = net.ms(name, *point, quantized(net, y), *point, quantized(net, net.Relu(y)), *point, axis=0)
    return floats(net, both)


@drawn("QLinearGlobalAveragePool", "QLinearAveragePool", domain=MICROSOFT, image=True)
def averaged(net: Net, y: str, name: str) -> str:
    point = (scale(net), zero(net))
    more = {"channels_last": 0} if name == "QLinearGlobalAveragePool" else {"kernel_shape": [2, 2]}
    return floats(net, net.ms(name, quantized(net, y), *point, *point, **more))


@drawn("NhwcMaxPool", domain=MICROSOFT, image=True)
def channels_last(net: Net, y: str, name: str) -> str:
    pooled_last = net.ms(name, net.transpose(quantized(net, y), 0, 2, 3, 1), kernel_shape=[2, 2])
    return net.transpose(floats(net, pooled_last), 0, 3, 1, 2)


@drawn("QLinearConv", domain=MICROSOFT, image=True)
def convolved(net: Net, y: str, name: str) -> str:
    point = (scale(net), zero(net))
    weight = bytes_of(net, CHANNELS, CHANNELS, 1, 1)
    return floats(net, net.ms(name, quantized(net, y), *point, weight, *point, *point, kernel_shape=[1, 1]))


@drawn("MatMulIntegerToFloat", domain=MICROSOFT)
def integer_product(net: Net, y: str, name: str) -> str:
    return net.ms(name, quantized(net, y), bytes_of(net, WIDTH, WIDTH), scale(net), scale(net), zero(net), zero(net))


@drawn("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_product(net: Net, y: str, name: str) -> str:
    return net.ms(name, y, bytes_of(net, WIDTH, WIDTH), scale(net), zero(net))


@drawn("QGemm", domain=MICROSOFT)
def gemm(net: Net, y: str, name: str) -> str:
    point = (scale(net), zero(net))
    bias = net.constant(np.zeros(WIDTH, np.int32))
    return floats(net, net.ms(name, quantized(net, y), *point, bytes_of(net, WIDTH, WIDTH), *point, bias, *point))


@drawn("DynamicQuantizeLSTM", domain=MICROSOFT)
def lstm(net: Net, y: str, name: str) -> str:
    weights = bytes_of(net, 1, WIDTH, 4 * WIDTH), bytes_of(net, 1, WIDTH, 4 * WIDTH)
    bias = net.weight(1, 8 * WIDTH)
    point = net.constant(np.full((1,), 0.1, np.float32)), net.constant(np.full((1,), 128, np.uint8))
    inputs = (net.unsqueeze(y, 0), *weights, bias, None, None, None, None, *point, *point)
    return net.squeeze(net.squeeze(net.ms(name, *inputs, hidden_size=WIDTH), 1), 0)


@drawn("MatMulNBits", domain=MICROSOFT)
def four_bits(net: Net, y: str, name: str) -> str:
    shape = {"K": WIDTH, "N": WIDTH, "bits": 4, "block_size": 16}
    return net.ms(name, y, bytes_of(net, WIDTH, 1, 8), net.vector(WIDTH), **shape)


@drawn("MatMulBnb4", domain=MICROSOFT)
def table_of_four_bits(net: Net, y: str, name: str) -> str:
    packed = net.constant(np.full(WIDTH * WIDTH // 2, 0x31, np.uint8))
    largest = net.vector(-(-WIDTH * WIDTH // 16))
    return net.ms(name, y, packed, largest, K=WIDTH, N=WIDTH, block_size=16, quant_type=1)


@drawn("GatherBlockQuantized", domain=MICROSOFT)
def packed_rows(net: Net, y: str, name: str) -> str:
    rows, scales = net.constant(np.full((WIDTH, WIDTH // 2), 0x31, np.uint8)), net.vector(WIDTH, shape=(WIDTH, 1))
    ids = net.ArgMax(y, axis=1, keepdims=0)
    return net.ms(name, rows, ids, scales, gather_axis=0, quantize_axis=1, block_size=16, bits=4)


@drawn("MoE", domain=MICROSOFT)
def experts(net: Net, y: str, name: str) -> str:
    first, second = net.weight(3, 10, WIDTH), net.weight(3, WIDTH, 10)
    return net.ms(name, y, net.linear(y, WIDTH, 3), first, None, second, k=2, activation_type="relu")


@drawn("QMoE", domain=MICROSOFT)
def packed_experts(net: Net, y: str, name: str) -> str:
    x, width = net.Relu(net.linear(y, WIDTH, 32)), 32
    stacks = [net.constant(np.full((3, *shape), 0x79, np.uint8)) for shape in ((64, 16), (WIDTH, 32))]
    scales = [net.vector(3 * rows, 0.01, 0.02, shape=(3, rows)) for rows in (64, WIDTH)]
    given = [stacks[0], scales[0], None, stacks[1], scales[1], None]
    return net.ms(name, x, net.linear(x, width, 3), *given, k=2, activation_type="relu", expert_weight_bits=4)


@drawn("TransposeMatMul", domain=MICROSOFT)
def transposed(net: Net, y: str, name: str) -> str:
    return net.ms(name, y, net.weight(WIDTH, WIDTH), transB=1)


@drawn("BiasAdd", domain=MICROSOFT)
def biased(net: Net, y: str, name: str) -> str:
    tokens = net.unsqueeze(y, 0)
    return net.squeeze(net.ms(name, tokens, net.weight(WIDTH), net.unsqueeze(net.Relu(y), 0)), 0)


@drawn("BiasSplitGelu", domain=MICROSOFT)
def gated(net: Net, y: str, name: str) -> str:
    wide = net.MatMul(net.unsqueeze(y, 0), net.weight(WIDTH, 2 * WIDTH))
    return net.squeeze(net.ms(name, wide, net.weight(2 * WIDTH)), 0)


@drawn("BiasSoftmax", domain=MICROSOFT)
def softmax(net: Net, y: str, name: str) -> str:
    return net.ms(name, y, net.weight(1, WIDTH), axis=0, is_inner_broadcast=0)


@drawn("SimplifiedLayerNormalization")
@drawn("SimplifiedLayerNormalization", domain=MICROSOFT)
def norm(net: Net, y: str, name: str) -> str:
    return net.op(name, y, net.vector(WIDTH), axis=-1)


@drawn("GroupNorm", domain=MICROSOFT, image=True)
def group_norm(net: Net, y: str, name: str) -> str:
    last = net.transpose(y, 0, 2, 3, 1)
    more = {"groups": 2, "activation": 0, "channels_last": 1}
    return net.transpose(net.ms(name, last, net.vector(CHANNELS), net.weight(CHANNELS), **more), 0, 3, 1, 2)


@drawn("SkipGroupNorm", domain=MICROSOFT, image=True)
def skip_group_norm(net: Net, y: str, name: str) -> str:
    last = net.transpose(y, 0, 2, 3, 1)
    more = {"groups": 2, "activation": 0, "channels_last": 1}
    found = net.ms(name, last, net.vector(CHANNELS), net.weight(CHANNELS), net.Relu(last), **more)
    return net.transpose(found, 0, 3, 1, 2)


@drawn("EmbedLayerNormalization", domain=MICROSOFT)
def embedded(net: Net, y: str, name: str) -> str:
    ids = net.input(2, 3, name="ids", dtype=np.int32)
    tables = (net.weight(20, WIDTH), net.weight(8, WIDTH), net.weight(2, WIDTH))
    found = net.ms(name, ids, ids, *tables, net.vector(WIDTH), net.weight(WIDTH), None, outputs=2)
    return net.Add(y, net.reduce("Sum", found[0], [1], keepdims=0))
