"""Attention with and without its own projections."""

from __future__ import annotations

from math import prod

from onnxprune.operators import shapes
from onnxprune.operators.call import Call
from onnxprune.operators.fused import attention_parts
from onnxprune.operators.operator import MICROSOFT, Operator, describe


def _macs(call: Call) -> int:
    """s = q k^T, y = softmax(s) v: every element of q and of y meets every key position once."""
    key, past = call.input(1), call.optional(4)
    length = key[-2] + (past[-2] if past else 0)
    return length * (prod(call.input(0)) + prod(call.output))


def _packed_macs(call: Call) -> int:
    """[q, k, v] = x W, then attention; W is (input, q + k + v)."""
    x, weight = call.input(0), call.input(1)
    past = call.optional(4 if call.op_type == "Attention" else 8)
    length = x[1] + (past[-2] if past else 0)
    hidden = call.attribute("qkv_hidden_sizes") or [weight[-1] // 3]
    return prod(x) * weight[-1] + length * (prod(x[:2]) * int(hidden[0]) + prod(call.output))


def _multi_head_macs(call: Call) -> int:
    """Attention of q (b, s, d) or packed qkv (b, s, heads, 3, head size), k (b, t, d) or (b, heads, t, head size)."""
    query, key, past = call.input(0), call.optional(1), call.optional(6)
    packed = len(query) == 5
    length = query[1] if key is None else key[2] if len(key) == 4 else key[1]
    length += past[-2] if past else 0
    return length * (prod(query) // (3 if packed else 1) + prod(call.output))


def _group_query_macs(call: Call) -> int:
    """Attention where several query heads share a key head: the output is as wide as the query."""
    present = call.outputs[1] if len(call.outputs) > 1 else None
    length = present[-2] if present else call.input(0)[1]
    return 2 * length * prod(call.output)


describe(
    (
        Operator("Attention", macs=_macs, way="attention"),
        Operator(
            "Attention",
            MICROSOFT,
            macs=_packed_macs,
            shapes=shapes.packed_attention,
            way="attention",
            dynamic=(1,),
            parts=attention_parts,
        ),
        Operator("QAttention", MICROSOFT, macs=_packed_macs),
        Operator(
            "MultiHeadAttention",
            MICROSOFT,
            macs=_multi_head_macs,
            shapes=shapes.multi_head_attention,
            way="attention",
        ),
        Operator(
            "GroupQueryAttention",
            MICROSOFT,
            macs=_group_query_macs,
            shapes=shapes.group_query_attention,
            way="attention",
        ),
    )
)
