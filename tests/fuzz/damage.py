"""What may be wrong with an input: fields of a model, values of a document, bytes of a file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message

Random = np.random.Generator

NUMBERS = (0, 1, -1, 2, 3, 7, 1000, -(2**31), 2**31 - 1, 2**31, 2**40, -(2**63), 2**63 - 1)
FLOATS = (0.0, -1.0, 1.0, 1e30, float("nan"), float("inf"), float("-inf"), 1e-30)
TEXTS = ("", "x", "\x1b[31mred", "..", "/etc/passwd", "a" * 5000, "Conv", "ai.onnx", "\u202eabc", "w1", "logits", "?")


def model(proto: onnx.ModelProto, rng: Random) -> bytes:
    """Return the bytes of a model with one or two things changed, in its fields or in its bytes."""
    damaged = onnx.ModelProto()
    damaged.CopyFrom(proto)
    for _ in range(int(rng.choice([1, 1, 1, 2]))):
        change_field(damaged, rng)
    content = damaged.SerializeToString()
    return content if rng.random() < 0.95 else blob(content, rng)


def change_field(message: Message, rng: Random) -> None:
    """Change one field somewhere below a message."""
    places = list(_messages(message))
    chosen = places[int(rng.integers(len(places)))]
    fields = [field for field, _ in chosen.ListFields()] or list(chosen.DESCRIPTOR.fields)
    field = fields[int(rng.integers(len(fields)))]
    if field.is_repeated:
        _change_list(getattr(chosen, field.name), field, rng)
    elif field.message_type is not None or rng.random() < 0.2:
        chosen.ClearField(field.name)
    else:
        try:
            setattr(chosen, field.name, _scalar(field, getattr(chosen, field.name), rng))
        except (ValueError, TypeError):
            chosen.ClearField(field.name)


def document(value: Any, rng: Random) -> Any:
    """Return plain data with one value changed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[int(rng.integers(len(value)))]
        return (
            {**value, key: document(value[key], rng)} if rng.random() < 0.9 else {**value, str(_odd(rng)): value[key]}
        )
    if isinstance(value, list) and value and rng.random() < 0.85:
        index = int(rng.integers(len(value)))
        return [*value[:index], document(value[index], rng), *value[index + 1 :]]
    return _odd(rng)


def text(content: str, rng: Random) -> bytes:
    """Return a text with some of its bytes changed, or deep, or of another coding."""
    kind = rng.random()
    if kind < 0.1:
        return b"[" * 100_000
    if kind < 0.2:
        return content.encode("utf-16")
    return blob(content.encode(), rng)


def blob(content: bytes, rng: Random) -> bytes:
    """Return bytes that are cut off, flipped, doubled or filled."""
    array = bytearray(content)
    kind = int(rng.integers(4))
    if not array or kind == 0:
        return bytes(array[: int(rng.integers(len(array) + 1))])
    if kind == 1:
        for position in rng.integers(0, len(array), 8):
            array[position] ^= 1 << int(rng.integers(8))
        return bytes(array)
    start = int(rng.integers(len(array)))
    piece = array[start : start + int(rng.integers(1, 64))]
    array[start:start] = piece if kind == 2 else rng.bytes(len(piece))
    return bytes(array)


def arrays(feed: dict[str, np.ndarray], rng: Random) -> bytes:
    """Return an .npz file whose arrays, names, headers or bytes are not what they should be."""
    kinds: list[Callable[[np.ndarray], Any]] = [
        lambda a: a.astype(np.float64) * 1e300,
        lambda a: np.full_like(a, np.nan),
        lambda a: a.astype(object),
        lambda a: a[:0],
        lambda a: a[..., None],
        lambda a: a.astype("U8"),
        lambda a: a.astype(np.complex64),
        lambda a: np.zeros((), a.dtype),
        lambda a: a.astype(">f4"),
        lambda a: np.broadcast_to(a[:1, :1], (1, *a.shape[1:])),
        lambda a: a.astype(np.int8),
        lambda a: np.zeros(3, [("a", "f4"), ("b", "i8")]),
    ]
    names = list(feed)
    chosen = names[int(rng.integers(len(names)))]
    values = dict(feed)
    if rng.random() < 0.6:
        values[chosen] = kinds[int(rng.integers(len(kinds)))](values[chosen])
    if rng.random() < 0.2:
        values[str(_odd(rng))[:40].replace("/", "-") or "n"] = values.pop(chosen)
    buffer = io.BytesIO()
    with np.errstate(all="ignore"):
        np.savez(buffer, **values)
    content = buffer.getvalue()
    if rng.random() < 0.3:
        header = f"({int(rng.choice([10**6, 2**40, -5]))}, 3, 12, 12)".encode()
        content = content.replace(b"(8, 3, 12, 12)", header)
    return content if rng.random() < 0.7 else blob(content, rng)


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if field.is_repeated else [value]:
            yield from _messages(item)


def _change_list(values: Any, field: Any, rng: Random) -> None:
    if not len(values):
        if field.message_type is not None:
            values.add()
        else:
            values.append(_scalar(field, field.default_value or 0, rng))
        return
    index, kind = int(rng.integers(len(values))), int(rng.integers(4))
    if kind == 0:
        del values[index]
    elif kind == 1 and field.message_type is not None:
        values.add().CopyFrom(values[index])
    elif kind == 1:
        values.append(values[index])
    elif field.message_type is None:
        values[index] = _scalar(field, values[index], rng)
    else:
        change_field(values[index], rng)


def _scalar(field: Any, old: Any, rng: Random) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES or isinstance(old, bytes):
            return blob(old if isinstance(old, bytes) else b"", rng)
        return TEXTS[int(rng.integers(len(TEXTS)))]
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return FLOATS[int(rng.integers(len(FLOATS)))]
    if kind == field.CPPTYPE_ENUM:
        return int(rng.integers(0, 25))
    number = NUMBERS[int(rng.integers(len(NUMBERS)))]
    return number if kind in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else max(min(number, 2**31 - 1), -(2**31))


def _odd(rng: Random) -> Any:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    values = (None, True, [], {}, deep, "\x1b]0;x\x07", "é", "9" * 5000, 10**400, *NUMBERS, *FLOATS[:4], *TEXTS)
    return values[int(rng.integers(len(values)))]


def dumped(value: Any) -> str:
    """Return plain data as JSON, also numbers that have more digits than Python prints at once."""
    return json.dumps(value, default=str) if not _is_huge(value) else _written(value)


def _is_huge(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_huge, value.values()))
    if isinstance(value, list):
        return any(map(_is_huge, value))
    return isinstance(value, int) and abs(value) > 10**300


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return "9" * 5000 if _is_huge(value) else json.dumps(value)
