"""The tokens that a text uses, by the tokenizer of the model (package `tokenizers`, extra `text`)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError

LINES = 1024
"""Lines that are encoded at a time."""


def collect(text: Path, tokenizer: Path) -> tuple[int, ...]:
    """Return the ids of all tokens that a text uses, special ones (start, end, padding, unknown) always among them.

    Args:
        text: UTF-8, one piece a line. tokenizer: a tokenizer.json.

    Raises:
        UsageError: a file cannot be read, or the package `tokenizers` is missing.
    """
    opened = _open(tokenizer)
    ids = {number for number, token in opened.get_added_tokens_decoder().items() if token.special}
    try:
        with text.open(encoding="utf-8") as lines:
            for piece in _pieces(lines):
                for encoded in opened.encode_batch(piece):
                    ids.update(encoded.ids)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"tokens_from '{text}' cannot be read ({reason}).") from error
    return tuple(sorted(ids))


def size_of(tokenizer: Path) -> int:
    """Return how many ids a tokenizer has.

    Raises:
        UsageError: see `collect`.
    """
    return int(_open(tokenizer).get_vocab_size(with_added_tokens=True))


def _open(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError("tokens of a text need the package tokenizers: pip install 'onnxprune[text]'.") from None
    if not path.is_file():
        raise UsageError(f"tokenizer '{path}' does not exist; give a tokenizer.json.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises a plain Exception
        raise UsageError(f"tokenizer '{path}' cannot be read ({error}).") from error


def _pieces(lines: Iterator[str]) -> Iterator[list[str]]:
    while piece := [line.rstrip("\n") for line in islice(lines, LINES)]:
        yield piece
