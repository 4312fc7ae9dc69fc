"""Targets: what a model will run on, and which widths suit it. One row of targets.yaml each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, TypedDict

from onnxprune.errors import UsageError
from onnxprune.option import check_text

PRECISIONS = ("float32", "float16", "int8")
"""Numbers that a model computes in; int8 stands for all integers of eight bits."""
TABLE = Path(__file__).parent / "targets.yaml"

Tile = tuple[int, int]
"""What the channels that a layer reads, and those that it writes, run as multiples of."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A row of the table; the file says what its parts mean.

    multiple: precision -> ((from this width on, multiple), ..), narrow ones first.
    tiles: precision -> way of computing (see `onnxprune.operators.operator.Way`) -> tile.
    balance: precision -> multiply-adds for each byte that is moved.
    quantize: option of quantize -> value.
    """

    name: str
    about: str
    source: str
    multiple: Mapping[str, tuple[tuple[int, int], ...]]
    tiles: Mapping[str, Mapping[str, Tile]] = field(default_factory=dict)
    narrow: Literal["any", "whole"] = "whole"
    odd: Literal["padded", "refused"] = "padded"
    minimum: int = 1
    precision: str | None = None
    groups: Literal["any", "depthwise", "none"] = "any"
    kernel: int | None = None
    rank: int | None = None
    lacks: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    balance: Mapping[str, float] = field(default_factory=dict)
    cache: int = 0
    quantize: Mapping[str, str | bool] = field(default_factory=dict)

    @property
    def is_cpu(self) -> bool:
        """Whether it is onnxruntime on a CPU, which times measured on this machine say something of."""
        return self.name.startswith("cpu-")

    def precision_for(self, asked: str | None, stored: str) -> str:
        """Return the numbers that a model computes in here.

        Args:
            asked: by the user, or by what is done to the model later; None: nobody says.
            stored: in which its weights are.

        Raises:
            UsageError: the target does not compute in what was asked for.
        """
        if asked is not None and asked not in self.multiple:
            raise UsageError(f"target '{self.name}' computes in {' and '.join(self.multiple)}, not in {asked}.")
        wanted = asked or self.precision or stored
        return wanted if wanted in self.multiple else next(iter(self.multiple))

    def computes_in(self, precision: str | None) -> bool:
        """Whether it computes in these numbers; None: in any kind of float, as packed weights are unpacked to."""
        return precision in self.multiple if precision is not None else self.multiple.keys() != {"int8"}

    def tile(self, precision: str, way: str) -> Tile:
        """Return what widths run as multiples of; without a line in the table those that the target wants."""
        found = self.tiles.get(precision, {}).get(way)
        return found or (self.multiple[precision][-1][1],) * 2


class Row(TypedDict, total=False):
    """A row of the file, as it is written there."""

    about: str
    source: str
    multiple: Mapping[str, int | Mapping[int, int]]
    tiles: Mapping[str, Mapping[str, Sequence[int]]]
    narrow: Literal["any", "whole"]
    odd: Literal["padded", "refused"]
    minimum: int
    precision: str
    groups: Literal["any", "depthwise", "none"]
    kernel: int
    rank: int
    lacks: Sequence[str]
    forbids: Sequence[str]
    balance: Mapping[str, float]
    cache: int
    quantize: Mapping[str, str | bool]


@cache
def targets() -> Mapping[str, Target]:
    """Return all targets by name, in the order of the table."""
    import yaml

    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {name: _read(name, row) for name, row in rows.items()}


def target_named(name: str) -> Target:
    """Return a target.

    Raises:
        UsageError: there is none of this name, with the nearest; or it is no text.
    """
    check_text("target", name)
    table = targets()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(table)}."
        raise UsageError(f"target '{name}': there is none of this name; {hint}")
    return table[name]


def target_names() -> Iterable[str]:
    """Return the names of all targets."""
    return targets()


def _read(name: str, row: Row) -> Target:
    return Target(
        name=name,
        about=row["about"],
        source=row["source"],
        multiple={precision: _steps(rule) for precision, rule in row["multiple"].items()},
        tiles={
            precision: {way: (int(reads), int(writes)) for way, (reads, writes) in ways.items()}
            for precision, ways in row.get("tiles", {}).items()
        },
        narrow=row.get("narrow", "whole"),
        odd=row.get("odd", "padded"),
        minimum=row.get("minimum", 1),
        precision=row.get("precision"),
        groups=row.get("groups", "any"),
        kernel=row.get("kernel"),
        rank=row.get("rank"),
        lacks=tuple(row.get("lacks", ())),
        forbids=tuple(row.get("forbids", ())),
        balance=row.get("balance", {}),
        cache=row.get("cache", 0),
        quantize=row.get("quantize", {}),
    )


def _steps(rule: int | Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    return ((rule, rule),) if isinstance(rule, int) else tuple(sorted(rule.items()))
