"""Concrete sizes for symbolic dimensions: what each symbol probably is, and which sizes to try."""

from __future__ import annotations

import re
from collections.abc import Mapping

from onnx import TensorProto

from onnxprune.errors import UsageError
from onnxprune.graph.expression import expression_value
from onnxprune.graph.view import View

Shape = tuple[int, ...]
Sizes = Mapping[str, int]
Choice = tuple[tuple[int, ...], tuple[int, ...]]
"""Sizes of the first and of the second assignment, for the first symbol of a kind, the second, .."""

WINDOWED = frozenset(
    "Conv ConvInteger QLinearConv FusedConv ConvTranspose MaxPool AveragePool LpPool STFT DFT MelWeightMatrix".split()
)
"""Operators that take windows: only for these a signal must be long."""

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def axis_symbols(view: View, key: str) -> list[str | int]:
    """Per axis of a graph input: its fixed size, or the symbol that stands for it."""
    symbols: list[str | int] = []
    for axis, dim in enumerate(view.inputs[key].type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            symbols.append(int(dim.dim_value))
        elif re.fullmatch(r"[\w\s.+*/%,()-]+", dim.dim_param or "") and not dim.dim_param.lstrip("-").isdigit():
            symbols.append(dim.dim_param)
        else:
            symbols.append(f"?{axis}/{len(view.inputs[key].type.tensor_type.shape.dim)}")
    return symbols


def kinds_of(view: View) -> dict[str, str]:
    """Symbol -> "batch", "image", "signal" or "sequence", guessed from where it stands first."""
    kinds: dict[str, str] = {}
    windowed = any(node.op_type in WINDOWED for node in view.nodes)
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
            elif windowed and is_float and ((rank == 3 and axis == 2) or (rank == 2 and axis == 1) or rank == 1):
                kinds[symbol] = "signal"
            else:
                kinds[symbol] = "sequence"
    return kinds


_DISTINCT: dict[str, Choice] = {
    "batch": ((3,), (5,)),
    "image": ((224, 256), (256, 320)),
    "signal": ((8192,), (9216,)),
    "sequence": ((37, 43, 53), (41, 47, 59)),
}
"""First choice: primes where nothing speaks against them; images that survive five halvings."""

_ALTERNATIVES: dict[str, tuple[Choice, ...]] = {
    "image": (
        ((224,), (256,)),
        ((48, 320), (48, 256)),
        ((32, 320), (32, 256)),
        ((64, 256), (64, 320)),
        ((640,), (512,)),
        ((64,), (64,)),
        ((32,), (32,)),
        ((128,), (128,)),
        ((224,), (224,)),
        ((416,), (416,)),
        ((299,), (299,)),
    ),
    "signal": (((16384,), (32768,)), ((512,), (512,)), ((16000,), (16000,))),
    "sequence": (((64,), (32,)), ((16,), (16,))),
}
"""What models with fixed heights, windows or strides accept, the likeliest first."""


_SMALL: dict[str, Choice] = {
    "batch": ((1,), (2,)),
    "image": ((64, 96), (96, 128)),
    "signal": ((512,), (640,)),
    "sequence": ((7, 11, 13), (17, 19, 23)),
}
"""For graphs in which the first choice makes huge tensors."""


def assignments(view: View) -> list[tuple[Sizes, Sizes]]:
    """Pairs of assignments to try in order; the empty symbol carries the size of data-dependent dimensions."""
    kinds = kinds_of(view)
    return [_assign(kinds, table) for table in _tables(kinds)]


def ones(view: View) -> list[tuple[Sizes, Sizes]]:
    """Pairs of assignments with sizes of 1, which go with all others but say little of them: the last to try."""
    kinds = kinds_of(view)
    alone: Choice = ((1,), (1,))
    tables = [{**_DISTINCT, "sequence": alone}] if "sequence" in kinds.values() else []
    if "batch" in kinds.values():
        tables += [{**table, "batch": alone} for table in [*_tables(kinds), *tables]]
    return [_assign(kinds, table) for table in tables]


def _tables(kinds: Mapping[str, str]) -> list[Mapping[str, Choice]]:
    used = set(kinds.values())
    changed = [(kind, choice) for kind, choices in _ALTERNATIVES.items() if kind in used for choice in choices]
    return [_DISTINCT, *({**_DISTINCT, kind: choice} for kind, choice in changed)]


def small(view: View, pair: tuple[Sizes, Sizes]) -> tuple[Sizes, Sizes]:
    """Return a pair of assignments with small sizes instead."""
    one, two = _assign(kinds_of(view), _SMALL)
    return {**pair[0], **one}, {**pair[1], **two}


def likely(view: View, pair: tuple[Sizes, Sizes], seen: Mapping[str, tuple[int | None, ...]]) -> tuple[Sizes, Sizes]:
    """Return a pair of assignments whose first has the sizes of data that were seen, and whose second differs.

    Args:
        seen: input -> shape, None where it says nothing.
    """
    one, two = dict(pair[0]), dict(pair[1])
    for key in (key for key in view.inputs if key in seen):
        for symbol, size in zip(axis_symbols(view, key), seen[key], strict=False):
            if isinstance(symbol, str) and size is not None:
                if two[symbol] == size:
                    two[symbol] = one[symbol]
                one[symbol] = size
    return one, two


def _assign(kinds: Mapping[str, str], table: Mapping[str, Choice]) -> tuple[Sizes, Sizes]:
    first: dict[str, int] = {"": 0}
    second: dict[str, int] = {"": 4}
    seen: dict[str, int] = {}
    for symbol, kind in kinds.items():
        number = seen[kind] = seen.get(kind, -1) + 1
        one, two = table[kind]
        first[symbol] = one[number % len(one)]
        second[symbol] = two[number % len(two)]
    return first, second


def size_of(symbol: str, sizes: Mapping[str, int]) -> int:
    """Return the size of an input's axis; a symbol that is an expression of other symbols follows from them."""
    value = expression_value(symbol, {name: size for name, size in sizes.items() if name and name != symbol})
    return value if value is not None and value > 0 and not symbol.isdigit() else sizes[symbol]


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
