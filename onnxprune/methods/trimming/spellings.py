"""What people give for positions and values: the types alone, without what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

Spec = str | int | Sequence[str | int] | tuple[int | str, ...]
"""Positions: "0-3,7", labels, "@FILE", or a list of numbers and labels."""

if TYPE_CHECKING:
    from onnxprune.types import Array

    Value = int | float | bool | str | list[object] | Array | tuple[float, ...]
else:  # numpy is not needed to say --help
    Value = int | float | bool | str | list[object] | tuple[float, ...]
