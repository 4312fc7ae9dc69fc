"""Golden tables: the groups of every graph of the zoo, so that a change in what is prunable shows in review.

python -m tests.zoo.golden            write the tables again (all, or the names given)
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

import onnxprune
from models import zoo

FOLDER = Path(__file__).parent / "golden"


def path(name: str) -> Path:
    """Return the file of one graph."""
    return FOLDER / f"{name}.json"


def table(proto: onnx.ModelProto) -> dict[str, Any]:
    """Return groups (name, kind, size, number of sites, exact, active) and how many positions each reason locks."""
    channels = onnxprune.analyse(proto)
    locked: Counter[str] = Counter()
    for lock in channels.locks:
        locked[lock.reason] += lock.size
    return {
        "groups": [[g.name, g.kind, g.size, len(g.sites), g.exact, g.active] for g in channels.groups],
        "locked": dict(sorted(locked.items())),
    }


def text(content: dict[str, Any]) -> str:
    """Write a table with one group a line."""
    groups = ",\n".join(f"  {json.dumps(row)}" for row in content["groups"])
    locked = json.dumps(content["locked"], indent=2)
    return f'{{\n"groups": [\n{groups}\n],\n"locked": {locked}\n}}\n'


def main(names: list[str]) -> None:
    """Write the tables of the given graphs, or of all."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or zoo.names():
        path(name).write_text(text(table(zoo.build(name))))


if __name__ == "__main__":
    main(sys.argv[1:])
