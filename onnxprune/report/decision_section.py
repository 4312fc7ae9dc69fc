"""What a report shows of samples whose answer changed: a table, and on the page small pictures of them."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOURS = 0, 2
"""Kinds of pixels of the format."""


def decisions(report: Report) -> Iterator[Section]:
    """Show what changed, the most confident first."""
    found = report.details.get("decisions")
    if not found:
        return
    rows = tuple(
        (
            line["output"],
            str(line["sample"]),
            *map(str, _answers(line)),
            *(f"{sure:.1%}" for sure in line["confidence"]),
        )
        for line in found["shown"]
    )
    told = ", ".join(f"{number} of output '{name}'" for name, number in found["changed"].items())
    lines = (f"Decisions that changed: {told}. The most confident ones first.",)
    headers = ("output", "sample", "original says", "result says", "its confidence", "confidence")
    yield Section("Decisions that changed", lines, Table(headers, rows, 1), detail=True, name="decisions")


def _answers(line: Mapping[str, object]) -> tuple[str, str]:
    return f"class {line['before']}", f"class {line['after']}"


def pictures_of(report: Report) -> list[tuple[str, str]]:
    """Return (data of the picture, what is seen on it) of the samples that are images."""
    found = report.details.get("decisions") or {}
    return [
        (line["picture"], f"sample {line['sample']}: {' became '.join(_answers(line))}")
        for line in found.get("shown", ())
        if line.get("picture")
    ]


def to_png(rows: Sequence[bytes], width: int, *, colours: bool) -> str:
    """Return pixels as a `data:` address.

    Args:
        rows: of one byte a pixel, or of three.
    """
    head = struct.pack(">IIBBBBB", width, len(rows), 8, COLOURS if colours else GREY, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    parts = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    file = SIGNATURE + b"".join(_part(kind, content) for kind, content in parts)
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def _part(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
