"""How many experts of every mixture stay, as a number or a share of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import ChannelGroup
from onnxprune.errors import UsageError
from onnxprune.methods.prune_options import read_experts


def expert_ratios(channels: Channels, groups: Sequence[ChannelGroup], wanted: str) -> dict[str, float]:
    """Return group of experts -> share of them that goes.

    Args:
        groups: those that may be pruned.
        wanted: how many stay, or their share, see `read_experts`.

    Raises:
        UsageError: there is no mixture, or one has fewer experts, or takes more of them at once.
    """
    mixtures = [group for group in groups if group.kind == "expert"]
    if not mixtures:
        raise UsageError(
            "experts: no mixture of experts that may be pruned was recognised; inspect lists what can be pruned."
        )
    amount = read_experts(wanted)
    ratios = {}
    for group in mixtures:
        left = amount if isinstance(amount, int) else round(amount * group.size)
        if left > group.size:
            raise UsageError(f"experts {wanted}: '{group.name}' has {group.size}.")
        count, label = _taken(channels, group)
        if left < count:
            raise UsageError(
                f"experts {wanted}: {left} of '{group.name}' would be left, and {label} takes {count} at once; keep "
                f"{count} or more."
            )
        ratios[group.name] = 1 - left / group.size
    return ratios


def _taken(channels: Channels, group: ChannelGroup) -> tuple[int, str]:
    """Return how many experts are taken at once, and by what."""
    label = channels.solution.label
    found = [t for t in channels.state.taken if np.isin(label[t.ids], group.classes).any()]
    most = max(found, key=lambda taken: taken.count, default=None)
    return (most.count, most.node.label) if most is not None else (1, "the router")
