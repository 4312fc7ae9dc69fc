"""One golden line for every registered rule: a small graph with the operator, and the groups and locks found in it.

python -m tests.channels.golden [OPERATOR ..]    write the table again, or lines of what drawn.py draws
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

import onnxprune
import tests.test_micro  # noqa: F401 (registers the micro cases)
from onnxprune.channels.registry import RULES
from tests.backend.between import Place, build, places, suite
from tests.channels.drawn import DRAWN, model
from tests.micro.build import CASES

FILE = Path(__file__).parent / "golden.txt"
Key = tuple[str, str]


def operators(graph: onnx.GraphProto) -> set[Key]:
    """Return the operators of a graph and of its bodies."""
    found = {(node.domain, node.op_type) for node in graph.node}
    bodies = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return found.union(*(operators(body) for body in bodies))


def sources() -> dict[Key, str]:
    """Return rule -> the graph of its line: drawn for it, of the backend suite (the axis that is freest), or micro."""
    found = {key: f"drawn {key[0]}.{key[1]}" for key in RULES if key in DRAWN}
    by_operator: dict[Key, list[Place]] = {}
    for place in places():
        node = suite()[place.model].model.graph.node[-1]
        by_operator.setdefault((node.domain, node.op_type), []).append(place)
    for key in RULES:
        if key not in found and key in by_operator:
            first = sorted(by_operator[key], key=lambda place: (place.model, place.input, place.axis))[:4]
            best = max(first, key=lambda place: sum(g.size for g in onnxprune.analyse(build(place)[0]).groups))
            found[key] = f"backend {best.model} {best.input} {best.axis}"
    small = {name: case.model() for name, case in sorted(CASES.items()) if case.runs}
    for key in RULES:
        if key not in found:
            names = [name for name, proto in small.items() if key in operators(proto.graph)]
            if names:
                found[key] = f"micro {min(names, key=lambda name: len(small[name].graph.node))}"
    return found


def graph(source: str) -> onnx.ModelProto | None:
    """Return the graph of a line; None where the installed onnx has no such node model."""
    kind, *rest = source.split()
    if kind == "drawn":
        domain, _, operator = rest[0].rpartition(".")
        return model((domain, operator))
    if kind == "micro":
        return CASES[rest[0]].model()
    return build(Place(rest[0], int(rest[1]), int(rest[2])))[0] if rest[0] in suite() else None


def groups(proto: onnx.ModelProto) -> str:
    """Return what is found in a graph: each group with its kind, size and roles, and what locks the rest."""
    channels = onnxprune.analyse(proto)
    found: list[Any] = []
    for group in channels.groups:
        roles = Counter(site.role for site in group.sites)
        counts = " ".join(f"{count} {role}" for role, count in sorted(roles.items(), key=str))
        found.append(f"{group.name} {group.kind} {group.size}{'' if group.exact else ' inexact'} ({counts})")
    locked = Counter(lock.reason for lock in channels.locks)
    return json.dumps({"groups": found, "locks": sorted(locked)}, ensure_ascii=False)


def lines() -> dict[str, tuple[str, str]]:
    """Read the table: operator -> (source, what is found)."""
    rows = (line.split("\t") for line in FILE.read_text(encoding="utf-8").splitlines())
    return {operator: (source, found) for operator, source, found in rows}


def main(*names: str) -> None:
    """Write the table, or the lines of the operators that are named (of those with a line, or drawn)."""
    old = {name: f"{name}\t{source}\t{found}\n" for name, (source, found) in lines().items()} if names else {}
    known = sources() if not names else {key: f"drawn {key[0]}.{key[1]}" for key in DRAWN if key[1] in names}
    for key, source in sorted(known.items()):
        proto = graph(source)
        if proto is not None:
            name = ".".join(filter(None, key))
            old[name] = f"{name}\t{source}\t{groups(proto)}\n"
    FILE.write_text("".join(old[name] for name in sorted(old)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
