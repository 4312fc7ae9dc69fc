"""What an analysis finds: groups of channels that compete, and the locks that say why the rest stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxprune.types import BoolArray, IntArray

Role = Literal["writes", "reads", "scales", "divides", "internal"]


@dataclass(frozen=True, eq=False)
class Site:
    """One axis of one parameter tensor that a group occupies.

    `positions` has shape (channels, positions per channel): row c lists where channel c lives on the axis.
    `role`: the tensor *writes* the channel (Conv axis 0), *reads* it (Conv axis 1, a contraction), *scales* it
    (BatchNorm, bias, anything elementwise) or *divides* by it (neutral value 1 instead of 0).
    `use` names the node input ("node:index") where the tensor is read as a private copy, else it is None.
    """

    tensor: str
    axis: int
    positions: IntArray
    role: Role
    use: str | None = None


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels with the same sites: any subset may be removed as long as one is kept.

    name: stable, unique, readable: made from the first writer.
    kind: "channel", "head", "head-dim", "group" (of a grouped convolution) or "expert" (of a mixture).
    classes: (channels,) class of ids of each channel.
    exact: removing a channel equals zeroing its parameters (no normalisation over the axis sees the difference).
    active: chosen by default (of two overlapping factors, heads or the finer one is).
    least: so many must be left, because so many are taken at once.
    """

    name: str
    kind: str
    classes: IntArray
    sites: tuple[Site, ...]
    exact: bool
    active: bool
    least: int = 1

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self.classes)


@dataclass(frozen=True)
class Lock:
    """Why `size` positions of one axis of one parameter tensor cannot be removed."""

    tensor: str
    axis: int
    size: int
    reason: str


Keep = dict[str, BoolArray]
"""Group name -> (channels,) mask, True stays. A group that is missing keeps everything."""


def keep_all(groups: tuple[ChannelGroup, ...]) -> Keep:
    """Return masks that keep every channel."""
    return {group.name: np.ones(group.size, dtype=bool) for group in groups}
