"""Which groups a user means by a glob over node, tensor or group names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

from onnxprune.channels.groups import ChannelGroup, Role
from onnxprune.errors import UsageError
from onnxprune.graph.view import View

CARRIES_WEIGHT = frozenset({"Identity", "Transpose", "Cast", "Reshape", "DequantizeLinear", "Squeeze", "Unsqueeze"})
"""Operators through which a stored tensor reaches the node that a user would name."""


@dataclass(eq=False)
class Names:
    """The names by which a model's parts are known."""

    view: View
    groups: Sequence[ChannelGroup] = ()
    _labels: dict[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def all(self) -> list[str]:
        """Every node, tensor and group name."""
        names = {node.name for node in self.view.nodes if node.name} | set(self.view.parameters)
        names |= {output for node in self.view.nodes for output in node.outputs if output}
        return sorted(names | {group.name for group in self.groups})

    def of_tensor(self, tensor: str) -> frozenset[str]:
        """Return the names of a parameter: its own and those of the nodes that use it."""
        if tensor not in self._labels:
            names = {tensor}
            waiting = [tensor]
            while waiting:
                for node, _ in self.view.readers.get(waiting.pop(), []):
                    names.update(name for name in (node.name, *node.outputs) if name)
                    if node.op_type in CARRIES_WEIGHT:
                        waiting.extend(output for output in node.outputs if output)
            self._labels[tensor] = frozenset(names)
        return self._labels[tensor]

    def of_group(self, group: ChannelGroup, roles: Iterable[Role] | None = None) -> frozenset[str]:
        """Return the names of a group: its own and those of its sites (of some roles, or of all if none has them)."""
        sites = [site for site in group.sites if roles is None or site.role in roles] or group.sites
        return frozenset({group.name}).union(*(self._of_site(site.tensor, site.use) for site in sites))

    def _of_site(self, tensor: str, use: str | None) -> frozenset[str]:
        """A constant that is copied per user is known by that user alone."""
        return self.of_tensor(tensor) if use is None else frozenset({tensor, use.rpartition(":")[0]})

    def check(self, pattern: str, option: str) -> None:
        """Make sure that a pattern matches something.

        Raises:
            UsageError: it matches no node, tensor or group.
        """
        if any(fnmatchcase(name, pattern) for name in self.all):
            return
        close = difflib.get_close_matches(pattern, self.all, n=3, cutoff=0.4)
        hint = f"close names: {', '.join(close)}." if close else "see the names with 'onnxprune inspect'."
        raise UsageError(f"{option} '{pattern}' matches no node, tensor or group; {hint}")


def matching_groups(
    names: Names,
    groups: Iterable[ChannelGroup],
    patterns: Sequence[str],
    option: str,
    roles: Iterable[Role] | None = None,
) -> set[str]:
    """Return the names of the groups that one of the patterns means.

    Args:
        names: of the model.
        groups: to choose from.
        patterns: globs (`*`, `?`, `[..]`), case matters.
        option: how an error names their origin.
        roles: sites that are looked at, None for all.

    Raises:
        UsageError: a pattern matches nothing in the model.
    """
    for pattern in patterns:
        names.check(pattern, option)
    return {
        group.name
        for group in groups
        if any(fnmatchcase(name, pattern) for pattern in patterns for name in names.of_group(group, roles))
    }


def ratios_of_groups(names: Names, groups: Iterable[ChannelGroup], table: Mapping[str, float]) -> dict[str, float]:
    """Return group name -> ratio; the first pattern that means a group, by the tensors that write it, counts.

    Raises:
        UsageError: a pattern matches nothing in the model.
    """
    listed = list(groups)
    found: dict[str, float] = {}
    for pattern, ratio in table.items():
        for name in matching_groups(names, listed, [pattern], "ratio for", roles=("writes",)):
            found.setdefault(name, ratio)
    return found
