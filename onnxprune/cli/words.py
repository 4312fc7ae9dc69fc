"""How words of the command line become values: shapes, sizes, numbers between commas, bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import click

from onnxprune.option import bytes_of


class Word(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """A kind of word, read by a function that raises `ValueError` for what it cannot read."""

    def __init__(self, name: str, like: str, read: Callable[[str], object]) -> None:
        self.name, self.like, self.read = name, like, read

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if isinstance(value, tuple):
            return value
        try:
            return self.read(str(value))
        except (ValueError, OverflowError):
            self.fail(f"'{value}' is not like {self.like}.", param, ctx)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read `name:1,3,224,224`; the name may hold colons itself."""
    name, colon, sizes = text.rpartition(":")
    shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    if not colon or not name or any(size < 1 for size in shape):
        _refuse()
    return name, shape


def _tolerance(text: str) -> tuple[str, float]:
    """Read `NAME:1e-3`, or `1e-3` for every output; the name may hold colons itself."""
    name, _, number = text.rpartition(":")
    limit = float(number)
    if not 0 <= limit < float("inf"):
        _refuse()
    return name, limit


def _size(text: str) -> tuple[int, int]:
    """Read `224` or `height,width`."""
    sizes = text.replace("x", ",").split(",")
    if len(sizes) > 2 or not all(size.isdigit() and int(size) for size in sizes):
        _refuse()
    return int(sizes[0]), int(sizes[-1])


def _latency(text: str) -> float | str:
    """Read `0.6`, a share, or `5ms`, a time, which stays as it is."""
    if text.strip().lower().endswith("ms"):
        return text
    share = float(text)
    if not 0 < share <= 1:
        _refuse()
    return share


def _refuse() -> NoReturn:
    raise ValueError


def whole_numbers(least: int, most: int = 1 << 16) -> Word:
    """Return whole numbers between commas: `1,2,4`."""

    def read(text: str) -> tuple[int, ...]:
        words = text.split(",")
        if not all(word.isascii() and word.isdigit() and least <= int(word) <= most for word in words):
            _refuse()
        return tuple(dict.fromkeys(int(word) for word in words))

    return Word("N[,N..]", f"4 or 1,2,4 (whole numbers from {least} to {most})", read)


LATENCY = Word("R|TIMEms", "0.6 (a share, above 0 and up to 1) or 5ms", _latency)
SHAPE = Word("NAME:SIZES", "name:1,3,224,224 (positive sizes, one for each axis)", _shape)
NUMBERS = Word("X[,X..]", "0.5 or 0.485,0.456,0.406", lambda text: tuple(map(float, text.split(","))))
TOLERANCE = Word("[NAME:]X", "logits:1e-3 or 1e-3 (largest difference, from 0)", _tolerance)
IMAGE_SIZE = Word("H[,W]", "224 or 480,640", _size)
BYTES = Word("SIZE", "4GB or 512MB (from 1MB)", bytes_of)
