"""Concrete sizes for symbolic dimensions: what each symbol probably is, and which sizes to try."""

from __future__ import annotations

import re
from collections.abc import Mapping

from onnx import TensorProto

from onnxprune.errors import UsageError
from onnxprune.graph.view import View

Shape = tuple[int, ...]
FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def axis_symbols(view: View, key: str) -> list[str | int]:
    """Per axis of a graph input: its fixed size, or the symbol that stands for it."""
    symbols: list[str | int] = []
    for axis, dim in enumerate(view.inputs[key].type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            symbols.append(int(dim.dim_value))
        elif re.fullmatch(r"[\w\s.+*/()-]+", dim.dim_param or "") and not dim.dim_param.lstrip("-").isdigit():
            symbols.append(dim.dim_param)
        else:
            symbols.append(f"?{axis}/{len(view.inputs[key].type.tensor_type.shape.dim)}")
    return symbols


def _kinds(view: View) -> dict[str, str]:
    """Symbol -> "batch", "image", "signal" or "sequence", guessed from where it stands first."""
    kinds: dict[str, str] = {}
    for key, value in view.inputs.items():
        symbols = axis_symbols(view, key)
        is_float = value.type.tensor_type.elem_type in FLOAT_TYPES
        rank = len(symbols)
        channels_last = rank == 4 and isinstance(symbols[3], int) and not isinstance(symbols[1], int)
        for axis, symbol in enumerate(symbols):
            if isinstance(symbol, int) or symbol in kinds:
                continue
            lowered = symbol.lower()
            if "batch" in lowered or (axis == 0 and rank > 1 and "seq" not in lowered):
                kinds[symbol] = "batch"
            elif is_float and rank >= 4 and (axis >= 2 or channels_last) and "seq" not in lowered:
                kinds[symbol] = "image"
            elif is_float and ((rank == 3 and axis == 2) or (rank == 2 and axis == 1) or rank == 1):
                kinds[symbol] = "signal"
            else:
                kinds[symbol] = "sequence"
    return kinds


_DISTINCT = {
    "batch": ((3,), (5,)),
    "image": ((224, 256), (256, 320)),
    "signal": ((8192,), (9216,)),
    "sequence": ((37, 43, 53), (41, 47, 59)),
}
"""First choice: primes where nothing speaks against them; images that survive five halvings."""

_ALTERNATIVES: dict[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]] = {
    "image": (
        ((224,), (256,)),
        ((48, 320), (48, 256)),
        ((32, 320), (32, 256)),
        ((64, 256), (64, 320)),
        ((640,), (512,)),
        ((224,), (224,)),
        ((416,), (416,)),
        ((299,), (299,)),
    ),
    "signal": (((16384,), (32768,)), ((512,), (512,)), ((16000,), (16000,))),
    "sequence": (((64,), (32,)), ((16,), (16,)), ((1,), (1,))),
}
"""What models with fixed heights, windows or strides accept, the likeliest first."""


def assignments(view: View) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Pairs of assignments to try in order; the empty symbol carries the size of data-dependent dimensions."""
    kinds = _kinds(view)
    used = set(kinds.values())
    tables = [_DISTINCT]
    for kind, choices in _ALTERNATIVES.items():
        if kind in used:
            tables += [{**_DISTINCT, kind: choice} for choice in choices]
    if "batch" in used:
        tables += [{**table, "batch": ((1,), (1,))} for table in tables]
    return [_assign(kinds, table) for table in tables]


def _assign(
    kinds: dict[str, str], table: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
) -> tuple[dict[str, int], dict[str, int]]:
    first: dict[str, int] = {"": 0}
    second: dict[str, int] = {"": 4}
    seen: dict[str, int] = {}
    for symbol, kind in kinds.items():
        number = seen[kind] = seen.get(kind, -1) + 1
        one, two = table[kind]
        first[symbol] = one[number % len(one)]
        second[symbol] = two[number % len(two)]
    return first, second


def expression_value(expression: str, sizes: dict[str, int]) -> int | None:
    """Value of a dimension name, which may be a sum, difference or product of names ("past + sequence")."""
    if expression in sizes:
        return sizes[expression]
    parts = re.split(r"\s*([+*-])\s*", expression.strip())
    if len(parts) < 3:
        return None
    total: int | None = None
    operator = "+"
    for part in parts:
        if part in ("+", "-", "*"):
            operator = part
            continue
        value = int(part) if part.isdigit() else sizes.get(part)
        if value is None:
            return None
        total = value if total is None else {"+": total + value, "-": total - value, "*": total * value}[operator]
    return total


def size_of(symbol: str, sizes: dict[str, int]) -> int:
    parts = re.split(r"\s*[+*-]\s*", symbol.strip())
    if len(parts) > 1 and all(p.isdigit() or (p in sizes and p != symbol) for p in parts):
        value = _evaluate_sum(symbol, sizes)
        if value is not None and value > 0:
            return value
    return sizes[symbol]


def _evaluate_sum(symbol: str, sizes: dict[str, int]) -> int | None:
    return expression_value(symbol, {name: size for name, size in sizes.items() if name != symbol})


def check_input_shapes(view: View, input_shapes: dict[str, Shape]) -> dict[str, int]:
    fixed: dict[str, int] = {}
    for name, shape in input_shapes.items():
        if name not in view.inputs:
            known = ", ".join(view.inputs) or "none"
            raise UsageError(f"--input-shape: the model has no input '{name}' (inputs: {known}).")
        symbols = axis_symbols(view, name)
        if len(symbols) != len(shape):
            raise UsageError(f"--input-shape: input '{name}' has {len(symbols)} axes, {len(shape)} sizes were given.")
        for axis, (symbol, size) in enumerate(zip(symbols, shape, strict=True)):
            if isinstance(symbol, int):
                if symbol != size:
                    raise UsageError(f"--input-shape: axis {axis} of input '{name}' is fixed at {symbol}, not {size}.")
            else:
                fixed[symbol] = size
    return fixed
