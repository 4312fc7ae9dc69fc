"""The border of the graph as a seed of removal: which positions of which tensors go, and what may shrink with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import EllipsisType

from onnxprune.types import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Boundary:
    """What is asked of the border.

    cut: (tensor, axis) -> (positions,) True stays. The tensor is an output, an input or one between them.
    loose: inputs and outputs whose static axes may shrink with the channels inside.
    states: pairs (output, input): what an output gives is fed to the input in the next call, so their axes are tied.
    renumber: operators that give numbers of positions (ArgMax) number what is left, instead of what there was.
    """

    cut: Mapping[tuple[str, int], BoolArray] = field(default_factory=dict)
    loose: frozenset[str] = frozenset()
    states: tuple[tuple[str, str], ...] = ()
    renumber: bool = False

    def is_loose(self, key: str, axis: int) -> bool:
        """Tell whether an axis of an input or output may change its size."""
        return key in self.loose or (key, axis) in self.cut

    @property
    def ranks(self) -> bool:
        """Whether positions that compete (softmax, argmax) may go: only where the border itself is cut."""
        return bool(self.cut)


@dataclass(frozen=True, eq=False)
class Ranking:
    """An output that holds numbers of positions on the axis `ids`: in its column `column` of the last axis, in its row
    `row` of the first axis, or all.

    ranked: ids of the axis of a TopK's results, of which the last go when fewer positions are left than it gives.
    """

    output: str
    ids: IntArray
    column: int | None = None
    ranked: IntArray | None = None
    row: int | None = None

    @property
    def place(self) -> int | EllipsisType | tuple[EllipsisType, int]:
        """Index of the numbers in the output."""
        if self.row is not None:
            return self.row
        return ... if self.column is None else (..., self.column)
