"""Turn free classes into groups: which axes they occupy, what kind they are, which of overlapping groups are active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.edits import AttributeSize
from onnxprune.channels.groups import ChannelGroup, Role, Site
from onnxprune.channels.solve import Solution, join, sorted_unique
from onnxprune.channels.state import State, Use
from onnxprune.types import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a parameter (or of a private copy of one), or of an activation (then `tensor` is empty)."""

    ids: IntArray
    tensor: str = ""
    axis: int = 0
    use: Use | None = None


def collect_axes(state: State) -> list[Axis]:
    """List the axes of all parameters, then those of activations, each array of ids once."""
    found: list[Axis] = []
    uses: dict[str, list[Use]] = {}
    for use in state.uses.values():
        uses.setdefault(use.root, []).append(use)
    for key in state.view.parameters:
        for use in uses.get(key, []):
            found += [Axis(ids, key, axis, use) for axis, ids in enumerate(use.axes) if len(ids) > 1]
        if key in state.axes:
            found += [Axis(ids, key, axis) for axis, ids in enumerate(state.axes[key]) if len(ids) > 1]
    seen = {id(axis.ids) for axis in found}
    for key, axes in state.axes.items():
        if key in state.view.parameters:
            continue
        for ids in axes:
            if len(ids) > 1 and id(ids) not in seen and not state.space.is_born_pinned(ids):
                seen.add(id(ids))
                found.append(Axis(ids))
    return found


class Roles:
    """What a parameter's axis does: said of it directly, or of a tensor that is computed from parameters alone."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.by_id: dict[int, Role] = {}
        self.has_role = np.zeros(state.space.count, dtype=bool)
        derived = _constant_keys(state)
        for (key, axis), role in state.roles.items():
            if key in derived and key in state.axes:
                ids = state.axes[key][axis]
                self.by_id |= dict.fromkeys(ids.tolist(), role)
                self.has_role[ids] = True

    def of(self, axis: Axis) -> Role | None:
        """Return the role of an axis; None for an internal one (kernel position, gate)."""
        if axis.use is not None:
            role = self.state.use_roles.get((id(axis.use.node), axis.use.input, axis.axis))
        else:
            role = self.state.roles.get((axis.tensor, axis.axis))
        if role is None:
            known = self.has_role[axis.ids]
            role = self.by_id[int(axis.ids[known.argmax()])] if known.any() else "scales"
        return None if role == "internal" else role


def _constant_keys(state: State) -> set[str]:
    """Tensors computed from parameters and sizes alone."""
    view, known = state.view, set(state.trace.first.values)
    constant: set[str] = set()
    for node in view.nodes:
        inputs = [key for key in node.inputs if key]
        if (
            inputs
            and not node.captured
            and not node.body
            and all(k in view.parameters or k in known or k in constant for k in inputs)
        ):
            constant.update(node.outputs)
    return constant


@dataclass(frozen=True, eq=False)
class _Incidence:
    """Rows (free class, axis number, position), sorted."""

    channel: IntArray
    axis: IntArray
    position: IntArray


def _incidence(axes: list[Axis], solution: Solution) -> _Incidence:
    ids = np.concatenate([a.ids for a in axes]) if axes else np.zeros(0, dtype=np.int64)
    sizes = [len(a.ids) for a in axes]
    axis = np.repeat(np.arange(len(axes)), sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if sizes else np.zeros(0)
    position = np.arange(len(ids)) - np.repeat(starts, sizes).astype(np.int64)
    label = solution.label[ids]
    child, parent = solution.ancestors
    is_derived = solution.derived[label]
    rows, matches = join(label[is_derived], child)
    channel = np.concatenate([label[~is_derived], parent[matches]])
    axis = np.concatenate([axis[~is_derived], axis[is_derived][rows]])
    position = np.concatenate([position[~is_derived], position[is_derived][rows]])
    free = ~solution.pinned[channel]
    channel, axis, position = channel[free], axis[free], position[free]
    order = np.lexsort((position, axis, channel))
    return _Incidence(channel[order], axis[order], position[order])


def _signatures(rows: _Incidence, axes: int) -> tuple[IntArray, IntArray]:
    """Return the free classes and a hash of the axes (with multiplicity) that each occupies."""
    start = np.flatnonzero(np.r_[True, (np.diff(rows.channel) != 0) | (np.diff(rows.axis) != 0)])
    counts = np.diff(np.r_[start, len(rows.channel)])
    noise = np.random.default_rng(0).integers(1, 1 << 62, size=axes, dtype=np.int64).astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = noise[rows.axis[start]] * (2 * counts.astype(np.uint64) + np.uint64(1))
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
    owner = rows.channel[start]
    first = np.flatnonzero(np.r_[True, np.diff(owner) != 0])
    with np.errstate(over="ignore"):
        total = np.add.reduceat(mixed, first)
    return owner[first], total.view(np.int64)


def _factor_numbers(solution: Solution) -> IntArray:
    """By class: 0, or the place of the factor that it belongs to: factors of one size must not mix in a group."""
    numbers = np.zeros(len(solution.label), dtype=np.int64)
    for product in solution.products:
        loose = [factor for factor in product.factors if not solution.pinned[factor].all()]
        for number, factor in enumerate(loose, start=1):
            seen = numbers[factor]
            numbers[factor] = np.where((seen == 0) | (seen > number), number, seen)
    return numbers


def build_groups(
    state: State, solution: Solution, heads: bool | None = None, head_dim: bool | None = None
) -> tuple[list[ChannelGroup], list[Axis]]:
    """Group the free classes by the axes they occupy.

    Args:
        state: what the walk collected.
        solution: its classes.
        heads: make heads prunable (None: where an attention is recognised).
        head_dim: make positions inside heads prunable (None: where heads are not).

    Returns:
        groups in the order of the parameters they write, and the axes that were looked at.
    """
    axes = collect_axes(state)
    rows = _incidence(axes, solution)
    if not len(rows.channel):
        return [], axes
    channels, signature = _signatures(rows, len(axes))
    with np.errstate(over="ignore"):
        signature ^= _factor_numbers(solution)[channels] * np.int64(0x9E3779B97F4A7C1)
    _, number = np.unique(signature, return_inverse=True)
    kinds = _Kinds(state, solution)
    drafts = []
    group_of_row = number[np.searchsorted(channels, rows.channel)]
    order = np.argsort(group_of_row, kind="stable")
    bounds = np.searchsorted(group_of_row[order], np.arange(number.max() + 2))
    roles = Roles(state)
    for group in range(number.max() + 1):
        part = order[bounds[group] : bounds[group + 1]]
        draft = _draft(axes, roles, rows.channel[part], rows.axis[part], rows.position[part])
        if draft is not None:
            drafts.append((draft[0], kinds.of(draft[0]), draft[1]))
    drafts.sort(key=lambda d: (*_rank(state, d[2]), len(d[0]), d[1]))
    active = _activate(solution, drafts, heads, head_dim)
    names: dict[str, int] = {}
    groups = []
    for (classes, kind, sites), is_active in zip(drafts, active, strict=True):
        name = _name(state, sites, kind, names)
        exact = not solution.inexact[classes].any()
        groups.append(ChannelGroup(name, kind, classes, sites, exact, is_active, _least(state, solution, classes)))
    return groups, axes


def _least(state: State, solution: Solution, classes: IntArray) -> int:
    """Return how many of some classes are taken at once, by what cannot take fewer."""
    needed = [taken for taken in state.taken if taken.needs]
    return max([taken.count for taken in needed if np.isin(solution.label[taken.ids], classes).any()], default=1)


def _draft(
    axes: list[Axis],
    roles: Roles,
    channel: IntArray,
    axis: IntArray,
    position: IntArray,
) -> tuple[IntArray, tuple[Site, ...]] | None:
    """Make the sites of one group; None where nothing writes or reads it, or it is a single channel."""
    classes = sorted_unique(channel)
    if len(classes) < 2:
        return None
    order = np.lexsort((position, channel, axis))
    axis, position = axis[order], position[order]
    sites = []
    numbers = sorted_unique(axis)
    bounds = np.searchsorted(axis, [*numbers, len(axes)])
    for number, begin, end in zip(numbers, bounds, bounds[1:], strict=False):
        found = axes[number]
        if not found.tensor:
            continue
        table = position[begin:end].reshape(len(classes), -1)
        use = found.use.name if found.use else None
        sites.append(Site(found.tensor, found.axis, table, roles.of(found) or "scales", use))
    if not any(site.role in ("writes", "reads") for site in sites):
        return None
    lead = _lead(sites)
    by_position = np.argsort(lead.positions[:, 0], kind="stable")
    sites = [Site(s.tensor, s.axis, s.positions[by_position], s.role, s.use) for s in sites]
    return classes[by_position], tuple(sites)


def _lead(sites: Sequence[Site]) -> Site:
    """The first site that writes, else the first."""
    return next((s for s in sites if s.role == "writes"), sites[0])


def _rank(state: State, sites: tuple[Site, ...]) -> tuple[int, int, int]:
    order = state.parameter_order
    lead = _lead(sites)
    return order[lead.tensor], lead.axis, int(lead.positions[0, 0])


def _name(state: State, sites: tuple[Site, ...], kind: str, names: dict[str, int]) -> str:
    """Name a group after the node that writes it first; exporters number folded tensors, but name nodes."""
    lead = _lead(sites)
    node = next((n.name for n, _ in state.view.readers.get(lead.tensor, []) if n.name and n.op_type != "Identity"), "")
    base = node or lead.tensor
    if kind != "channel":
        base = f"{base}/{kind}"
    names[base] = names.get(base, 0) + 1
    return base if names[base] == 1 else f"{base}#{names[base]}"


class _Kinds:
    """Names what a class is: expert, head, a position inside heads, a group of a grouped convolution, or a channel."""

    def __init__(self, state: State, solution: Solution) -> None:
        child, parent = solution.ancestors
        self.factor = np.zeros(len(solution.label), dtype=bool)
        self.factor[parent] = True
        self.heads = _spread(solution, [h for h, _ in state.attentions], child, parent)
        self.dims = _spread(solution, [d for _, d in state.attentions], child, parent) & ~self.heads
        counted = ("group", "groups", "num_groups")
        self.experts = _spread(solution, state.experts, child, parent)
        grouped = [
            e.ids for e in state.edits if isinstance(e, AttributeSize) and e.name in counted and not _is_axis(state, e)
        ]
        self.groups = _spread(solution, grouped, child, parent)

    def of(self, classes: IntArray) -> str:
        """Return the kind of a group."""
        if self.experts[classes].all():
            return "expert"
        if self.factor[classes].all():
            if self.heads[classes].all():
                return "head"
            if self.dims[classes].all():
                return "head-dim"
            if self.groups[classes].all():
                return "group"
        return "channel"


def _is_axis(state: State, edit: AttributeSize) -> bool:
    """Tell whether the groups that an attribute counts are single channels (a depthwise convolution)."""
    return any(ids is edit.ids for ids in state.axes.get(edit.node.inputs[0], ()))


def _spread(solution: Solution, marked: list[IntArray], child: IntArray, parent: IntArray) -> BoolArray:
    mask = np.zeros(len(solution.label), dtype=bool)
    for ids in marked:
        mask[solution.label[ids]] = True
    mask[parent[mask[child]]] = True
    return mask


Draft = tuple[IntArray, str, tuple[Site, ...]]


def _activate(solution: Solution, drafts: list[Draft], heads: bool | None, head_dim: bool | None) -> list[bool]:
    """Of groups that share derived channels, prune heads by default, otherwise the finer ones."""
    conflicts = _conflicts(solution, drafts)
    both = bool(heads) and bool(head_dim)

    def preference(number: int) -> tuple[int, int, int, int]:
        classes, kind, _ = drafts[number]
        unwanted = (kind == "head" and heads is False) or (kind == "head-dim" and head_dim is False)
        wanted = kind == "head" or (kind == "head-dim" and head_dim is True)
        return (int(unwanted), -int(wanted), -len(classes), number)

    active = [False] * len(drafts)
    for number in sorted(range(len(drafts)), key=preference):
        kind = drafts[number][1]
        if (kind == "head" and heads is False) or (kind == "head-dim" and head_dim is False):
            continue
        rivals = [r for r in conflicts.get(number, ()) if active[r]]
        if both and kind in ("head", "head-dim"):
            rivals = [r for r in rivals if drafts[r][1] == kind]
        active[number] = not rivals
    return active


def _conflicts(solution: Solution, drafts: list[Draft]) -> dict[int, set[int]]:
    owner = np.full(len(solution.label), -1, dtype=np.int64)
    for number, (classes, _, _) in enumerate(drafts):
        owner[classes] = number
    child, parent = solution.ancestors
    table: dict[int, set[int]] = {}
    owned = owner[parent] >= 0
    if not owned.any():
        return table
    codes = np.unique(child[owned] * len(drafts) + owner[parent[owned]])
    child, groups = codes // len(drafts), codes % len(drafts)
    bits = np.random.default_rng(0).integers(1, 1 << 62, size=len(drafts), dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, np.diff(child) != 0])
    _, example = np.unique(np.add.reduceat(bits[groups], starts), return_index=True)
    ends = np.r_[starts[1:], len(groups)]
    families = [groups[starts[e] : ends[e]].tolist() for e in example]
    for family in families:
        for one in family:
            table.setdefault(one, set()).update(set(family) - {one})
    return table
