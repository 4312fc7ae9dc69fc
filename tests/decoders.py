"""Decoders of two layers with caches of keys and values, and the configuration that lies beside such models."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.micro.build import Net

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
