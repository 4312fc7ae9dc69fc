"""A pruning decision as data: it can be saved, read, compared and applied again to the same model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from onnxprune.errors import UsageError

Positions = dict[str, dict[int, list[int]]]

FORMAT = "onnxprune-plan"
VERSION = 1
NAMES = ("dropped", "resize_io", "states")
"""Parts of a plan that are lists of names, and are written where there are any."""


@dataclass(frozen=True)
class Plan:
    """What is removed from a model.

    removed: tensor name -> axis -> sorted positions that are deleted, for every parameter tensor of the source.
    unshared: tensor name -> "node:input" -> axis -> positions, for constants copied because their users differ.
    groups: one entry a group: name, kind, size, removed (channel numbers).
    trim: options of the trim that it is the plan of; the removed positions are then those of the trimmed inside.
    dropped: names of the branches that were dropped first; the removed positions are those of what is left.
    resize_io, states: what of inputs and outputs was let shrink, as options of the prune.
    structure: hash of the source without its weights; "" in plans that are older than that.
    refitted: what stayed was refitted by the prune, which the plan alone does not do again.
    """

    source_sha256: str
    removed: Positions
    unshared: dict[str, Positions] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    trim: dict[str, Any] = field(default_factory=dict)
    refitted: bool = False
    dropped: list[str] = field(default_factory=list)
    resize_io: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    structure: str = ""

    def to_json(self) -> str:
        """Return the plan as canonical JSON (the file format of DESIGN, section 5)."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "source_sha256": self.source_sha256,
            "removed": self.removed,
            "unshared": self.unshared,
            "groups": self.groups,
            **({"trim": self.trim} if self.trim else {}),
            **({"refitted": True} if self.refitted else {}),
            **({"structure_sha256": self.structure} if self.structure else {}),
            **{name: words for name in NAMES if (words := getattr(self, name))},
        }
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read a plan.

        Raises:
            UsageError: the text is not JSON or not a plan of a version that is known.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the plan is not JSON ({error}); give a file written by --plan.") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise UsageError(
                "the file is not an onnxprune plan (its 'format' is missing); give a file written by --plan."
            )
        if document.get("version") != VERSION:
            raise UsageError(
                f"the plan has version {document.get('version')}, this release reads {VERSION}; make it again."
            )
        try:
            return Plan(
                source_sha256=str(document["source_sha256"]),
                removed=_positions(document["removed"]),
                unshared={t: _positions(uses) for t, uses in document.get("unshared", {}).items()},
                groups=list(document.get("groups", [])),
                trim=dict(document.get("trim", {})),
                refitted=document.get("refitted") is True,
                structure=str(document.get("structure_sha256", "")),
                **{name: [str(word) for word in document.get(name, [])] for name in NAMES},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UsageError(f"the plan is damaged ({error!r}); make it again with --plan.") from error


def _positions(tables: dict[str, dict[str, list[int]]]) -> Positions:
    return {
        tensor: {int(axis): sorted(int(p) for p in positions) for axis, positions in axes.items()}
        for tensor, axes in tables.items()
    }
