"""Why one group is pruned as it is: scores, what holds the rest, nearest twins and largest readers of its channels."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

import numpy as np

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import ChannelGroup, Lock
from onnxprune.errors import UsageError
from onnxprune.methods.choice import choose
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.score.criteria import find
from onnxprune.score.scoring import score_groups
from onnxprune.types import BoolArray, FloatArray

ROWS = 256
"""Channels whose likeness to all others is found at a time."""


@dataclass(frozen=True)
class ChannelLine:
    """One channel: whether it stays, its score (higher matters more; 1 is the mean of the group for most criteria).

    twin: the channel whose written weights point most nearly the same way, likeness: their cosine.
    reader: the tensor that weighs the channel most, against the mean of what it reads; weight: how much.
    """

    channel: int
    kept: bool
    score: float
    twin: int | None
    likeness: float | None
    reader: str | None
    weight: float | None


@dataclass(frozen=True)
class Explanation:
    """What there is to say about a group: what was asked, its channels, why it was left alone, what is locked."""

    group: ChannelGroup
    asked: str
    channels: tuple[ChannelLine, ...]
    reason: str | None
    locks: tuple[Lock, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {
            "group": self.group.name,
            "kind": self.group.kind,
            "size": self.group.size,
            "exact": self.group.exact,
            "asked": self.asked,
            "reason": self.reason,
            "sites": [{"tensor": site.tensor, "axis": site.axis, "role": site.role} for site in self.group.sites],
            "locks": [asdict(lock) for lock in self.locks],
            "channels": [asdict(line) for line in self.channels],
        }


def explain(channels: Channels, name: str, options: PruneOptions | None = None) -> Explanation:
    """Return why the channels of a group stay or go, as the weights tell it.

    Args:
        name: of the group, or a pattern that only it matches.
        options: what is asked; 40 % of every group by l2 if None.

    Raises:
        NothingToPruneError: nothing can be removed as asked.
        UsageError: there is no such group, or the criterion needs data.
    """
    options = options or PruneOptions()
    group = find_group(channels, name)
    if options.score is not None and find(options.score).needs_data:
        raise UsageError(
            f"score {options.score} looks at data, and this at weights alone; choose l2, l1, fpgm or lamp."
        )
    keep, reasons, warnings = choose(channels, options)
    score = options.score or "l2"
    scores = score_groups(channels.view, (group,), score, options.seed)[0][group.name]
    kept = keep.get(group.name, np.ones(group.size, dtype=bool))
    tensors = {site.tensor for site in group.sites}
    return Explanation(
        group,
        f"ratio {options.level:g}, score {score}",
        _lines(channels, group, kept, scores),
        reasons.get(group.name),
        tuple(lock for lock in channels.locks if lock.tensor in tensors),
        tuple(warnings),
    )


def find_group(channels: Channels, name: str) -> ChannelGroup:
    """Return the group of a name or pattern.

    Raises:
        UsageError: there is none, or more than one.
    """
    groups = {group.name: group for group in channels.groups}
    if name in groups:
        return groups[name]
    fitting = [other for other in groups if fnmatchcase(other, name)] or [other for other in groups if name in other]
    if len(fitting) == 1:
        return groups[fitting[0]]
    if fitting:
        raise UsageError(f"'{name}' is {len(fitting)} groups: {', '.join(fitting[:4])}; name one.")
    close = difflib.get_close_matches(name, groups, n=3, cutoff=0.4) or list(groups)[:3]
    raise UsageError(f"there is no group '{name}'; there are {', '.join(close)} (onnxprune inspect lists them).")


def _lines(channels: Channels, group: ChannelGroup, kept: BoolArray, scores: FloatArray) -> tuple[ChannelLine, ...]:
    twins, likeness = _twins(_rows(channels, group, "writes"))
    readers = {site.tensor: _norms(channels, group, site.tensor) for site in group.sites if site.role == "reads"}
    lines = []
    for channel in range(group.size):
        reader = max(readers, key=lambda name: readers[name][channel], default=None)
        has_twin = len(twins) == group.size and likeness[channel] > -1
        lines.append(
            ChannelLine(
                channel,
                bool(kept[channel]),
                float(scores[channel]),
                int(twins[channel]) if has_twin else None,
                float(likeness[channel]) if has_twin else None,
                reader,
                float(readers[reader][channel]) if reader is not None else None,
            )
        )
    return tuple(lines)


def _rows(channels: Channels, group: ChannelGroup, role: str, tensor: str | None = None) -> FloatArray:
    """Return (channels, values): what the weights of a role hold of every channel."""
    parts = []
    for site in group.sites:
        parameter = channels.view.parameters.get(site.tensor)
        if site.role != role or parameter is None or tensor not in (None, site.tensor):
            continue
        array = np.moveaxis(channels.model.array(parameter.tensor), site.axis, 0)
        rows = array.reshape(array.shape[0], -1)[site.positions].astype(np.float32)
        parts.append(rows.reshape(group.size, -1))
    return np.concatenate(parts, axis=1) if parts else np.zeros((group.size, 0), np.float32)


def _norms(channels: Channels, group: ChannelGroup, tensor: str) -> FloatArray:
    """Return (channels,) norms of what a tensor reads of every channel, over their mean."""
    norms: FloatArray = np.linalg.norm(_rows(channels, group, "reads", tensor), axis=1).astype(np.float64)
    mean = float(norms.mean())
    return norms / mean if mean > 0 else norms


def _twins(rows: FloatArray) -> tuple[list[int], list[float]]:
    """Return the nearest other channel of each by cosine, and the cosine; -2 where there is none."""
    count = len(rows)
    if count < 2 or not rows.shape[1]:
        return [], []
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    twins, likeness = [], []
    for start in range(0, count, ROWS):
        cosines = unit[start : start + ROWS] @ unit.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -2.0
        nearest = cosines.argmax(axis=1)
        twins += nearest.tolist()
        likeness += cosines[own, nearest].tolist()
    return twins, likeness
