"""The names of all criteria as their files spell them, without loading these: that imports numpy and onnx."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

DEFAULT, DEFAULT_WITH_DATA = "l2", "lstsq"
_REGISTERED = re.compile(r"^@criterion\(((?:\s*\"[^\"]+\",?)+)", re.MULTILINE)


@cache
def spelled() -> dict[str, tuple[str, ...]]:
    """Return file of this room -> the names that it registers."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))}
    found = {stem: _REGISTERED.findall(text) for stem, text in texts.items()}
    return {stem: tuple(re.findall(r'"([^"]+)"', " ".join(lines))) for stem, lines in found.items() if lines}


def spelled_names() -> list[str]:
    """Return the names of all criteria, the default first."""
    return sorted((name for names in spelled().values() for name in names), key=lambda name: (name != DEFAULT, name))
