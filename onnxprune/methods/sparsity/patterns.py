"""Which weights of a matrix may be zero together: single ones, N of M neighbours, blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.types import Array, BoolArray


@dataclass(frozen=True)
class Pattern:
    """A pattern of zeros in a matrix (outs, features).

    n, m: of m weights of one output that stand side by side along the contraction, n stay; m = 0: free.
    rows, columns: blocks of so many outputs and features stay or go together.
    """

    n: int = 0
    m: int = 0
    rows: int = 1
    columns: int = 1

    @property
    def name(self) -> str:
        """How it is written on the command line."""
        if self.m:
            return f"{self.n}:{self.m}"
        return "free" if self.rows == self.columns == 1 else f"block:{self.rows}x{self.columns}"

    @property
    def sparsity(self) -> float | None:
        """Share of zeros that the pattern asks for, None where it is open."""
        return 1 - self.n / self.m if self.m else None

    def obstacle(self, groups: int, outs: int, width: int) -> str | None:
        """Return why a weight cannot have the pattern.

        Args:
            width: features that stand side by side: the input channels of a group.
        """
        if self.m and width % self.m:
            return f"its {width} inputs are no multiple of {self.m}"
        if outs % self.rows:
            return f"its {outs} outputs are no multiple of {self.rows}"
        return f"its {width} inputs are no multiple of {self.columns}" if width % self.columns else None

    def keep(self, scores: Array, sparsity: float) -> BoolArray:
        """Return the mask (outs, features) of what stays: the highest scores, in the pattern."""
        if self.m:
            grouped = scores.reshape(len(scores), -1, self.m)
            order = np.argsort(-grouped, axis=2, kind="stable")
            mask = np.zeros(grouped.shape, np.bool_)
            np.put_along_axis(mask, order[:, :, : self.n], True, axis=2)
            return mask.reshape(scores.shape)
        blocks = scores.reshape(len(scores) // self.rows, self.rows, -1, self.columns).sum((1, 3))
        kept = blocks.size - round(sparsity * blocks.size)
        mask = np.zeros(blocks.size, np.bool_)
        mask[np.argsort(-blocks, axis=None, kind="stable")[:kept]] = True
        return mask.reshape(blocks.shape).repeat(self.rows, axis=0).repeat(self.columns, axis=1)

    def step(self, block: int) -> int:
        """Return how many columns are decided at once: whole groups of M, else a whole block."""
        return self.m or max(1, block // self.columns) * self.columns


def parse(text: str | None) -> Pattern:
    """Read `2:4` or `block:4x1`.

    Raises:
        UsageError: it is neither.
    """
    if text is None or text == "free":
        return Pattern()
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found:
        n, m = int(found[1]), int(found[2])
        if 0 < n < m <= 128:
            return Pattern(n, m)
    found = re.fullmatch(r"block:(\d+)x(\d+)", text)
    if found and 0 < int(found[1]) <= 1024 and 0 < int(found[2]) <= 128:
        return Pattern(rows=int(found[1]), columns=int(found[2]))
    raise UsageError(
        f"--pattern '{text}': give N:M such as 2:4 (N of M inputs stay) or block:4x1 (4 outputs of 1 input)."
    )
