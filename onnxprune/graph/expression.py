"""What a dimension's name says where it is an expression of other names: `past + sequence`, `(a + 2*b) // 4`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

LONGEST = 200
"""Characters; longer names are no expressions that anyone wrote."""

_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: lambda a, b: a % b,
}
_CALLS: dict[str, Callable[..., Fraction | int]] = {
    "floor": lambda a: a.__floor__(),
    "ceiling": lambda a: a.__ceil__(),
    "ceil": lambda a: a.__ceil__(),
    "max": max,
    "min": min,
}
"""As exporters spell them, whatever the case."""


def expression_value(expression: str, sizes: Mapping[str, int]) -> int | None:
    """Return the value of a dimension's name; None where it is no expression of known sizes, or not a whole number.

    `+ - * / // %`, signs, parentheses, `floor`, `ceiling`, `max` and `min` are known, with their usual precedence.
    """
    if expression in sizes:
        return sizes[expression]
    if len(expression) > LONGEST:
        return None
    text, values = _with_plain_names(expression.strip(), sizes)
    try:
        value = _value(ast.parse(text, mode="eval").body, values)
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError, MemoryError):
        return None
    return int(value) if value.denominator == 1 else None


def _with_plain_names(text: str, sizes: Mapping[str, int]) -> tuple[str, dict[str, int]]:
    """Put identifiers in the place of names with spaces or dots, which Python would not read."""
    names = [name for name in sizes if re.fullmatch(r"[^\W\d][\w .]*", name)]
    if not names:
        return text, {}
    table = {name: f"n{number}" for number, name in enumerate(sorted(names, key=len, reverse=True))}
    pattern = "|".join(re.escape(name) for name in table)
    plain = re.sub(rf"(?<![\w.])(?:{pattern})(?![\w.])", lambda found: table[found.group()], text)
    return plain, {table[name]: sizes[name] for name in table}


def _value(node: ast.expr, sizes: Mapping[str, int]) -> Fraction:
    """Evaluate one node of the syntax tree; nothing that is not listed here is.

    Raises:
        ValueError: anything else, or a name without a size.
    """
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return Fraction(value)
        case ast.Name(id=name) if name in sizes:
            return Fraction(sizes[name])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, sizes)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, sizes)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
            return _BINARY[type(operator)](_value(left, sizes), _value(right, sizes))
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name.lower() in _CALLS:
            return Fraction(_CALLS[name.lower()](*(_value(one, sizes) for one in given)))
    raise ValueError("not an expression of known sizes")
