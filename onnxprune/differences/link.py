"""What links a model to the one that it was pruned from: a plan, what it says of itself, or values of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.groups import Keep, Site
from onnxprune.channels.plan import Plan, Positions
from onnxprune.differences.lost_positions import kept_positions
from onnxprune.differences.recorded import from_record
from onnxprune.errors import OnnxpruneError, UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.source_file import read_bytes
from onnxprune.graph.view import Parameter, View
from onnxprune.types import BoolArray, IntArray

LARGEST = 1 << 24
"""Elements of a tensor whose values are still looked up; larger ones follow from their groups."""


@dataclass(frozen=True, eq=False)
class Link:
    """How the tensors of two models belong together.

    how: "plan", "record" (the second model says what it lost), "values" (positions found by values) or "names" (nothing
        but names and shapes).
    removed: tensor -> axis -> positions that are gone, as in a plan. keep: masks of the groups that lost channels.
    """

    how: str
    removed: Positions
    channels: Channels | None = None
    keep: Keep | None = None


def linked(before: View, after: View, plan: Plan | None) -> Link:
    """Find out which positions of which tensors are gone.

    Raises:
        UsageError: the plan is of another model, or of a trim.
    """
    if plan is not None:
        return Link("plan", dict(_checked(plan, before.model).removed), *_groups_of(before.model, plan))
    if (told := from_record(before.model, after.model)) is not None:
        channels, keep = told
        removed = channels.plan(keep).removed
        if all(_fits(before, after, name, axes) for name, axes in removed.items() if name in after.parameters):
            return Link("record", removed, channels, keep)
    return _by_values(before, after)


def kept_between(before: Model, after: Model, plan: Path | None = None) -> dict[str, dict[int, IntArray]]:
    """Return tensor of the first model -> axis -> positions that the second one still has, where it lost some.

    Args:
        plan: file of the prune that made the second model from the first.

    Raises:
        UsageError: the plan is none, of another model, or of a trim.
    """
    link = linked(View(before), View(after), read_plan(plan) if plan is not None else None)
    if link.channels is None or not link.keep:
        return {}
    shapes = link.channels.trace.shapes
    found = {}
    for name, axes in link.channels.positions(link.keep).items():
        whole = shapes.get(name, ())
        cut = {axis: kept for axis, (kept, size) in enumerate(zip(axes, whole, strict=False)) if len(kept) < size}
        if cut:
            found[name] = cut
    return found


def read_plan(path: str | Path) -> Plan:
    """Read the file of a plan.

    Raises:
        ModelError: it cannot be read.
        UsageError: it is no plan.
    """
    return Plan.from_json(read_bytes(Path(path)).decode("utf-8", "replace"))


def _by_values(before: View, after: View) -> Link:
    shared = _shrunk(before, after)
    if not shared:
        return Link("names", {})
    gone = _found(before, after, shared)
    channels: Channels | None
    keep: Keep | None
    try:
        channels = analyse(before.model)
        found = ((group.name, _kept(group.sites, group.size, gone)) for group in channels.groups)
        keep = {name: kept for name, kept in found if kept is not None}
        whole = channels.plan(keep).removed
    except OnnxpruneError:
        channels, keep, whole = None, None, {}
    removed = {
        name: axes for name, axes in whole.items() if name in after.parameters and _fits(before, after, name, axes)
    }
    for name, masks in gone.items():
        removed.setdefault(name, {axis: np.flatnonzero(mask).tolist() for axis, mask in masks.items() if mask.any()})
    return Link("values" if removed else "names", removed, channels, keep if removed else None)


def _checked(plan: Plan, model: Model) -> Plan:
    if plan.trim:
        raise UsageError("the plan is of a trim, whose positions are those of the inside; compare without it.")
    if plan.source_sha256 != model.sha256:
        raise UsageError("the plan was made for another file than the first model; give the plan of this pair.")
    return plan


def _groups_of(model: Model, plan: Plan) -> tuple[Channels | None, Keep | None]:
    try:
        channels = analyse(model)
    except OnnxpruneError:
        return None, None
    removed = {entry["name"]: entry["removed"] for entry in plan.groups}
    keep: Keep = {}
    for group in channels.groups:
        kept = np.ones(group.size, dtype=bool)
        places = [place for place in removed.get(group.name, ()) if place < group.size]
        kept[places] = False
        keep[group.name] = kept
    return channels, keep


def _shrunk(before: View, after: View) -> list[tuple[Parameter, Parameter]]:
    """Return the tensors of one name and rank that became smaller, the smallest first."""
    pairs = [(old, after.parameters[name]) for name, old in before.parameters.items() if name in after.parameters]
    changed = [(old, new) for old, new in pairs if old.dims != new.dims and len(old.dims) == len(new.dims)]
    return sorted(changed, key=lambda pair: pair[0].elements)


def _found(before: View, after: View, shared: list[tuple[Parameter, Parameter]]) -> dict[str, dict[int, BoolArray]]:
    """Return masks of the positions that are gone, of the tensors whose values tell them."""
    gone: dict[str, dict[int, BoolArray]] = {}
    for old, new in shared:
        if old.elements > LARGEST or old.data_type != new.data_type:
            continue
        kept = kept_positions(before.model.array(old.tensor), after.model.array(new.tensor))
        if kept is not None:
            masks = {axis: np.ones(size, dtype=bool) for axis, size in enumerate(old.dims)}
            for axis, positions in enumerate(kept):
                masks[axis][positions] = False
            gone[old.key] = masks
    return gone


def _kept(sites: Sequence[Site], size: int, gone: Mapping[str, Mapping[int, BoolArray]]) -> BoolArray | None:
    """Return the mask of a group by the first of its sites that is known; None where none is, or nothing is gone."""
    for site in sites:
        if site.use is None and site.tensor in gone:
            kept: BoolArray = np.any(~gone[site.tensor][site.axis][site.positions], axis=1)
            return None if kept.all() or not kept.any() or len(kept) != size else kept
    return None


def _fits(before: View, after: View, name: str, axes: Mapping[int, list[int]]) -> bool:
    dims = before.parameters[name].dims
    left = tuple(size - len(axes.get(axis, ())) for axis, size in enumerate(dims))
    return left == after.parameters[name].dims
