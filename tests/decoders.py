"""Decoders of two layers with caches of keys and values, and the configuration that lies beside such models."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from onnxprune.methods.quantization.weight_only import pack, round_blocks
from tests.micro.build import Net
from tests.oracle import session

LAYERS, WIDTH, WORDS = 2, 64, 20
HEADS, SHARED, SIZE = 4, 2, 16
"""Heads of the queries, of keys and values, and their size."""


def fused(layers: int = LAYERS) -> onnx.ModelProto:
    """GroupQueryAttention, lengths computed from the mask, as exporters for onnxruntime-genai write it."""
    net = Net()
    ids = net.input("n", 1, name="input_ids", dtype=np.int64)
    mask = net.input("n", "total", name="attention_mask", dtype=np.int64)
    length = net.Sub(net.Cast(net.reduce("Sum", mask, [1], keepdims=0), to=6), net.constant(np.array(1, np.int32)))
    total = net.Cast(net.Gather(net.Shape(mask), net.constant(np.array(1)), axis=0), to=6)
    x = net.Gather(net.weight(WORDS, WIDTH), ids, axis=0)
    for layer in range(layers):
        y = net.layer_norm(x, WIDTH)
        operands = [net.linear(y, WIDTH, count * SIZE) for count in (HEADS, SHARED, SHARED)]
        past = [_past(net, layer, kind) for kind in ("key", "value")]
        found = net.ms(
            "GroupQueryAttention", *operands, *past, length, total, num_heads=HEADS, kv_num_heads=SHARED, outputs=3
        )
        _presents(net, layer, found[1:])
        x = net.op("Add", x, net.linear(found[0], HEADS * SIZE, WIDTH), name=f"attention{layer}")
        x = _feed(net, x, layer)
    return _closed(net, x)


def written_out(layers: int = LAYERS) -> onnx.ModelProto:
    """Attention as MatMul and Softmax, caches joined by Concat, heads of keys repeated for those of the queries."""
    net = Net()
    ids = net.input("n", 1, name="input_ids", dtype=np.int64)
    x = net.Gather(net.weight(WORDS, WIDTH), ids, axis=0)
    for layer in range(layers):
        y = net.layer_norm(x, WIDTH)
        joined = []
        for kind in ("key", "value"):
            new = net.transpose(net.reshape(net.linear(y, WIDTH, SHARED * SIZE), 0, 1, SHARED, SIZE), 0, 2, 1, 3)
            joined.append(net.Concat(_past(net, layer, kind), new, axis=2))
        _presents(net, layer, joined)
        query = net.reshape(net.linear(y, WIDTH, HEADS * SIZE), 0, SHARED, HEADS // SHARED, SIZE)
        scores = net.Mul(net.MatMul(query, net.transpose(f"present.{layer}.key", 0, 1, 3, 2)), net.number(SIZE**-0.5))
        mixed = net.MatMul(net.Softmax(scores, axis=-1), f"present.{layer}.value")
        out = net.linear(net.reshape(mixed, 0, 1, HEADS * SIZE), HEADS * SIZE, WIDTH)
        x = net.op("Add", x, out, name=f"attention{layer}")
        x = _feed(net, x, layer)
    return _closed(net, x)


PACKED_WIDTH, PACKED_HEADS, INNER, WORD_ROWS, BLOCK = 128, 8, 256, 64, 32


def product(net: Net, x: str, inner: int, outer: int, block: int = BLOCK) -> str:
    """Add a MatMulNBits of 4 bits with zero points."""
    codes, scales, zeros = round_blocks(net._dense(inner, outer), 4, block)
    stored = [net.constant(values, net.fresh("packed")) for values in (pack(codes, 4), scales, pack(zeros, 4))]
    return str(net.ms("MatMulNBits", x, *stored, K=inner, N=outer, bits=4, block_size=block))


def packed(layers: int = LAYERS) -> onnx.ModelProto:
    """4-bit weights, rotated heads (8 and 2), norms that add the skip, gated layers, as builders for genai write it."""
    net, width = Net(), PACKED_WIDTH
    ids = net.input("n", "new", name="input_ids", dtype=np.int64)
    mask = net.input("n", "total", name="attention_mask", dtype=np.int64)
    places = net.input("n", "new", name="position_ids", dtype=np.int64)
    length = net.Sub(net.Cast(net.reduce("Sum", mask, [1], keepdims=0), to=6), net.constant(np.array(1, np.int32)))
    total = net.Cast(net.Gather(net.Shape(mask), net.constant(np.array(1)), axis=0), to=6)
    angles = np.outer(np.arange(WORD_ROWS), 100.0 ** (-np.arange(SIZE // 2) / SIZE * 2)).astype(np.float32)
    tables = [net.constant(values, name) for values, name in ((np.cos(angles), "cosines"), (np.sin(angles), "sines"))]
    x = net.Gather(net.weight(WORD_ROWS, width), ids, axis=0)
    y = net.SimplifiedLayerNormalization(x, net.vector(width), axis=-1, epsilon=1e-5, stash_type=1)
    for layer in range(layers):
        query, key, value = (product(net, y, width, count * SIZE) for count in (PACKED_HEADS, SHARED, SHARED))
        query, key = (net.ms("RotaryEmbedding", part, places, *tables) for part in (query, key))
        past = [_past(net, layer, kind) for kind in ("key", "value")]
        found = net.ms(
            *("GroupQueryAttention", query, key, value, *past, length, total),
            num_heads=PACKED_HEADS,
            kv_num_heads=SHARED,
            outputs=3,
        )
        _presents(net, layer, found[1:])
        y, x = _added(net, x, product(net, found[0], PACKED_HEADS * SIZE, width), f"attention{layer}")
        gate, up = product(net, y, width, INNER), product(net, y, width, INNER)
        y, x = _added(net, x, product(net, net.Mul(net.Mul(gate, net.Sigmoid(gate)), up), INNER, width), f"feed{layer}")
    net.nodes.append(onnx.helper.make_node("Identity", [product(net, y, width, WORD_ROWS)], ["logits"]))
    net.output("logits")
    return net.model(runs=False)


def _added(net: Net, x: str, y: str, name: str) -> tuple[str, str]:
    """Return the norm of a sum, and the sum."""
    found = net.ms(
        "SkipSimplifiedLayerNormalization", x, y, net.vector(PACKED_WIDTH), epsilon=1e-5, outputs=4, name=name
    )
    net.nodes[-1].output[1:3] = ["", ""]
    return found[0], found[3]


def decoded(model: onnx.ModelProto, words: np.ndarray) -> np.ndarray:
    """Return (n, steps, words): scores of the next word, fed one by one with the caches that the model gave back.

    Caches that the model takes and does not give are zeros: of attention that gives nothing.
    """
    opened = session(model)
    shapes = {value.name: value.shape for value in opened.get_inputs()}
    names = [value.name for value in opened.get_outputs()]
    count = len(words)
    caches: dict[str, np.ndarray] = {}
    scores = []
    for step in range(words.shape[1]):
        feeds = {
            "input_ids": words[:, step : step + 1],
            "attention_mask": np.ones((count, step + 1), np.int64),
            "position_ids": np.full((count, 1), step),
            **{n: np.zeros((count, s[1], step, s[3]), np.float32) for n, s in shapes.items() if n.startswith("past")},
            **caches,
        }
        feeds["input_ids"] = feeds["input_ids"].reshape([count, 1][: len(shapes["input_ids"])])
        given = dict(zip(names, opened.run(None, {name: feeds[name] for name in shapes}), strict=True))
        caches = {n.replace("present", "past_key_values"): a for n, a in given.items() if n.startswith("present")}
        scores.append(given["logits"])
    return np.concatenate(scores, axis=1)


def configuration(file: str, **more: Any) -> dict[str, Any]:
    """Return a genai_config.json for one of the decoders."""
    counts = {"head_size": SIZE, "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS}
    names = {f"{way}_{kind}_names": f"{stem}.%d.{kind}" for way, stem in _WAYS for kind in ("key", "value")}
    inputs = {"input_ids": "input_ids", **{k: v for k, v in names.items() if k.startswith("past")}}
    outputs = {"logits": "logits", **{k: v for k, v in names.items() if k.startswith("present")}}
    part = {"filename": file, **counts, "num_key_value_heads": SHARED, "inputs": inputs, "outputs": outputs, **more}
    return {"model": {"bos_token_id": 1, "decoder": part, "type": "llama", "vocab_size": WORDS}, "search": {"top_k": 1}}


_WAYS = (("past", "past_key_values"), ("present", "present"))


def _past(net: Net, layer: int, kind: str) -> str:
    return net.input("n", SHARED, "past", SIZE, name=f"past_key_values.{layer}.{kind}")


def _presents(net: Net, layer: int, tensors: Any) -> None:
    """Give the caches the names that exporters give them."""
    for kind, tensor in zip(("key", "value"), tensors, strict=True):
        name = f"present.{layer}.{kind}"
        for node in net.nodes:
            node.output[:] = [name if output == tensor else output for output in node.output]
        net.output(name)


def _feed(net: Net, x: str, layer: int) -> str:
    y = net.linear(net.Relu(net.linear(net.layer_norm(x, WIDTH), WIDTH, 32)), 32, WIDTH)
    return str(net.op("Add", x, y, name=f"feed{layer}"))


def _closed(net: Net, x: str) -> onnx.ModelProto:
    y = net.linear(net.layer_norm(x, WIDTH), WIDTH, WORDS)
    net.nodes.append(onnx.helper.make_node("Identity", [y], ["logits"]))
    net.output("logits")
    return net.model(runs=False)
