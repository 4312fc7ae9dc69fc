"""What a command tells the process that watches it: drafts it has begun, what it is at, whether it ended by itself.

The lines go to a file that both have open, so that they can be read when the writer is gone, however it ended.
Where nobody watches, they go nowhere.
"""

from __future__ import annotations

import os
from contextlib import suppress

_file: int | None = None


def write_to(file: int | None) -> None:
    """Send notes of this process to an open file; None: nowhere."""
    global _file
    _file = file


def note(kind: str, text: str = "") -> None:
    """Leave a line of a kind: "draft" (a path), "stage" (what is being done), "written", "limit", "exit" (a code)."""
    if _file is None:
        return
    line = f"{kind} {text}".replace("\n", " ").encode("utf-8", "surrogateescape")
    with suppress(OSError):
        os.write(_file, line + b"\n")


def read(file: int, offset: int = 0) -> tuple[list[tuple[str, str]], int]:
    """Return the (kind, text) of the complete lines behind an offset of the file, and the offset behind them."""
    content = bytearray()
    while chunk := os.pread(file, 1 << 16, offset + len(content)):
        content += chunk
    end = content.rfind(b"\n") + 1
    lines = content[:end].decode("utf-8", "surrogateescape").splitlines()
    pairs = [line.partition(" ") for line in lines]
    return [(kind, text) for kind, _, text in pairs], offset + end
