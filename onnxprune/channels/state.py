"""What the walk over a graph collects: ids of every tensor, roles of weights, edits, and what reports tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.channels.boundary import Boundary, Ranking
from onnxprune.channels.edits import (
    Edit,
)
from onnxprune.channels.groups import Role
from onnxprune.channels.numbers import Numbers
from onnxprune.channels.space import Axes, Space
from onnxprune.graph.trace import Shape, Trace
from onnxprune.graph.view import Node, View
from onnxprune.types import IntArray

STACKED = frozenset({"MatMul", "Einsum", "Gather"})
HANDED_ON = ("Identity", "Transpose", "Cast", "DequantizeLinear")


@dataclass(frozen=True, eq=False)
class Use:
    """A private copy of a small constant at one node input."""

    root: str
    node: Node
    input: int
    axes: tuple[IntArray, ...]
    label: str

    @property
    def name(self) -> str:
        """ "node:input", as plans write it; a node whose name another one has is called by its first output."""
        return f"{self.label}:{self.input}"

    @property
    def former_name(self) -> str:
        """The name in plans of earlier releases, which two nodes of one name shared."""
        return f"{self.node.name or self.node.outputs[0]}:{self.input}"


@dataclass(frozen=True, eq=False)
class Contest:
    """Positions that a node weighs against each other; unless they are experts, they stay for the reason."""

    ids: IntArray
    node: Node
    reason: str


@dataclass(frozen=True, eq=False)
class Taken:
    """A node takes the best `count` of some positions. needs: it cannot take fewer."""

    ids: IntArray
    count: int
    node: Node
    needs: bool


@dataclass(eq=False)
class State:
    """Everything that the walk over a graph collects.

    experts: axes whose positions are experts of a mixture.
    contests: positions that compete, where these may be experts.
    taken: how many experts are taken at once, and who says so.
    left_alone: loops whose bodies are not followed.
    zero: for each axis of a computed tensor, whether removed positions of it are exactly zero once parameters are.
    """

    view: View
    trace: Trace
    space: Space = field(default_factory=Space)
    axes: dict[str, Axes] = field(default_factory=dict)
    zero: dict[str, tuple[bool, ...]] = field(default_factory=dict)
    uses: dict[tuple[int, int], Use] = field(default_factory=dict)
    folded: dict[tuple[int, int], tuple[Node, Axes]] = field(default_factory=dict)
    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    use_roles: dict[tuple[int, int, int], Role] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)
    zero_points: dict[str, tuple[str, int]] = field(default_factory=dict)
    zero_tables: set[str] = field(default_factory=set)
    normalised: list[Node] = field(default_factory=list)
    attentions: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    fixed: set[str] = field(default_factory=set)
    boundary: Boundary = field(default_factory=Boundary)
    rankings: list[Ranking] = field(default_factory=list)
    numbers: dict[str, list[Numbers]] = field(default_factory=dict)
    number_uses: set[tuple[int, int]] = field(default_factory=set)
    visited: set[int] = field(default_factory=set)
    experts: list[IntArray] = field(default_factory=list)
    contests: list[Contest] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    left_alone: set[Node] = field(default_factory=set)
    _cut_up: dict[str, bool] = field(default_factory=dict)
    unit: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.unit = self.space.pinned(1, "an axis of a single position")

    def rank(self, ranking: Ranking) -> None:
        """Note that a tensor holds numbers of positions."""
        self.rankings.append(ranking)
        mask = np.zeros([max(size, 1) for size in self.trace.shapes.get(ranking.output, ())], dtype=bool)
        mask[ranking.place] = True
        self.numbers.setdefault(ranking.output, []).append(Numbers(ranking.ids, mask))

    @cached_property
    def stacks(self) -> frozenset[tuple[str, int]]:
        """Stacks of matrices: (parameter, axis) that may count them, as one matrix is used for each expert."""
        found = set()
        for node in self.view.nodes:
            for key in node.inputs if node.op_type in STACKED and not node.domain else ():
                stored = self.view.stored(key, HANDED_ON) if key else None
                if stored is not None and len(stored.parameter.dims) > 2:
                    dims = stored.parameter.dims
                    found |= {(stored.parameter.key, axis) for axis, size in enumerate(dims) if size > 1}
        return frozenset(found)

    @cached_property
    def stack_sizes(self) -> frozenset[int]:
        """Lengths of the axes of `stacks`."""
        return frozenset(self.view.parameters[key].dims[axis] for key, axis in self.stacks)

    def is_cut_up(self, root: str) -> bool:
        """Tell whether a constant is only taken apart (gate biases): its pieces then share one set of ids."""
        if root not in self._cut_up:
            readers = self.view.readers.get(root, [])
            self._cut_up[root] = bool(readers) and all(
                node.op_type in ("Slice", "Split") and index == 0 for node, index in readers
            )
        return self._cut_up[root]

    @cached_property
    def parameter_order(self) -> dict[str, int]:
        """Parameter key -> its place in the file."""
        return {key: number for number, key in enumerate(self.view.parameters)}

    def new_axes(self, shape: Shape) -> Axes:
        """Return fresh ids for a tensor; axes of size 1 share the pinned unit."""
        return [self.unit if size == 1 else self.space.fresh(size) for size in shape]

    def pinned_axes(self, shape: Shape, reason: str) -> Axes:
        """Return axes that may not change."""
        return [self.unit if size == 1 else self.space.pinned(size, reason) for size in shape]
