"""Imports point down the list of rooms, never up."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "onnxprune"
ROOMS = [
    {"cli"},
    {"api"},
    {"recipe"},
    {"job", "keywords"},
    {"methods"},
    {"validate", "report", "differences"},
    {"allocate"},
    {"score"},
    {"compensate"},
    {"statistics"},
    {"channels"},
    {"graph"},
    {"operators"},
    {"files", "processes"},
    {"errors", "types"},
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
SIDEWAYS = {("statistics", "validate")}
"""Synthetic calibration data are the random inputs of the validation."""


def imports() -> list[tuple[str, str, str]]:
    """List (file, its room, the room it imports) of the whole package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("onnxprune."):
                found.append((str(path.relative_to(PACKAGE)), room, node.module.split(".")[1]))
    return found


def test_every_room_has_a_level() -> None:
    assert {room for _, own, other in imports() for room in (own, other)} <= set(LEVEL)


def test_imports_point_down() -> None:
    upward = [
        f"{path} imports {other}"
        for path, own, other in imports()
        if LEVEL[other] < LEVEL[own] and (own, other) not in SIDEWAYS
    ]
    assert upward == []
