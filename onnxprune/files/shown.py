"""Names that others chose, as text that a terminal may get: nothing in it moves the cursor or turns the line round."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories that draw nothing: controls (also the C1 range, which holds a CSI of one character), marks of
direction and invisible characters, halves of surrogate pairs, private characters, separators of lines."""


def shown(text: str, keep: str = "") -> str:
    r"""Return a text with every character that draws nothing spelled out, such as `\x1b`.

    Args:
        keep: characters that stay as they are, such as a line's end.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or not _is_hidden(char) else _spelled(char) for char in text)


def one_line(text: object, limit: int = 2000) -> str:
    """Return anything as one line that can be shown; what is longer than the limit loses its middle."""
    line = shown(" ".join(str(text).split()))
    if len(line) <= limit:
        return line
    half = limit // 2
    return f"{line[:half]} .. {line[-half:]}"


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN


def _spelled(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
