"""The law of targets, written down once more: which widths of a pruned graph a row of the table does not allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

import onnxprune
from onnxprune.channels.groups import Keep
from onnxprune.hardware.target import TABLE

ROWS: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text())


def violations(channels: onnxprune.Channels, keep: Keep, name: str, precision: str) -> list[str]:
    """Return the axes that a choice leaves at a length which the target does not want.

    An axis that one group has to itself is left whole, or is a multiple of what the row says for its length.
    """
    row = ROWS[name]
    rule = row["multiple"][precision]
    steps = sorted(rule.items()) if isinstance(rule, dict) else [(rule, rule)]
    found = []
    for group in channels.groups:
        kept = int(np.count_nonzero(keep[group.name])) if group.name in keep else group.size
        if kept == group.size:
            continue
        if group.kind in row.get("forbids", ()) or kept < row.get("minimum", 1):
            found.append(f"{group.name}: {kept} of {group.size} {group.kind}")
        for site in group.sites:
            length = channels.view.parameters[site.tensor].dims[site.axis]
            left = kept * site.positions.shape[1]
            if site.positions.size != length:
                continue
            wanted = [multiple for start, multiple in steps if length >= start]
            if (wanted and left % wanted[-1]) or (not wanted and row.get("narrow", "whole") == "whole"):
                found.append(f"{group.name}: {left} of {length} on axis {site.axis} of {site.tensor}")
    return found
