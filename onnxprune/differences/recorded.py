"""What a prune removed, as its result records it beside the options: by that a diff knows every position again."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.groups import Keep
from onnxprune.channels.plan import Plan
from onnxprune.errors import OnnxpruneError
from onnxprune.graph.model import Model
from onnxprune.types import BoolArray

KEY = "removed"
"""Of a step in `onnxprune.options`: group -> bits of the channels that went, the first one highest, in base64."""


def recorded(plan: Plan | None) -> dict[str, object]:
    """Return what the options of a step get to tell its channels; nothing where groups alone do not tell them."""
    if plan is None or plan.trim or plan.dropped or plan.resize_io or plan.states:
        return {}
    bits = {entry["name"]: _packed(entry["removed"], entry["size"]) for entry in plan.groups if entry["removed"]}
    return {KEY: bits} if bits else {}


def from_record(before: Model, after: Model) -> tuple[Channels, Keep] | None:
    """Return the channels of a model and what another one kept of them, as it says itself; None where it does not."""
    told = {item.key: item.value for item in after.proto.metadata_props}
    if told.get("onnxprune.source_sha256") != before.sha256:
        return None
    try:
        options = json.loads(told.get("onnxprune.options", ""))
        done = options["steps"] if options.get("command") == "run" else [options]  # a prune's `steps` are others
        steps = [step for step in done if isinstance(step, dict)]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    if not steps or KEY not in steps[0] or sum(KEY in step for step in steps) != 1:
        return None  # a second prune numbers the channels of the first one's result
    try:
        channels = analyse(before, _shapes(steps[0]), steps[0].get("heads"), steps[0].get("head_dim"))
        return channels, _keep(channels, steps[0][KEY])
    except (AttributeError, KeyError, TypeError, ValueError, OnnxpruneError):
        return None  # not ours, or of a release that grouped otherwise


def _keep(channels: Channels, bits: Mapping[str, str]) -> Keep:
    sizes = {group.name: group.size for group in channels.groups}
    return {name: ~_unpacked(text, sizes[name]) for name, text in bits.items()}


def _shapes(step: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(int(size) for size in shape) for name, shape in step.get("input_shapes", {}).items()}


def _packed(places: list[int], size: int) -> str:
    mask = np.zeros(size, dtype=bool)
    mask[places] = True
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def _unpacked(text: str, size: int) -> BoolArray:
    try:
        bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8))
    except binascii.Error as error:
        raise ValueError(text) from error
    if not size <= len(bits) < size + 8 or bits[size:].any():
        raise ValueError(text)
    return bits[:size].astype(bool)
