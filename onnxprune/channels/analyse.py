"""The analysis of a model: its groups, its locks, and what a choice of channels means for every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.channels.boundary import Boundary
from onnxprune.channels.expert_axes import settle
from onnxprune.channels.grouping import build_groups, collect_axes
from onnxprune.channels.groups import ChannelGroup, Keep, Lock
from onnxprune.channels.locks import build_locks
from onnxprune.channels.plan import Plan, Positions
from onnxprune.channels.seeding import seed
from onnxprune.channels.solve import Solution, solve
from onnxprune.channels.state import State, Use
from onnxprune.channels.trial import lock_stuck
from onnxprune.channels.walk import walk
from onnxprune.errors import UsageError
from onnxprune.graph.functions import inlined
from onnxprune.graph.model import Model
from onnxprune.graph.trace import Seen, Shape, Trace
from onnxprune.graph.view import Parameter, View
from onnxprune.processes.collector import paused_collector
from onnxprune.types import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Channels:
    """What can be removed from a model, and what follows from a choice.

    seed: (ids,) by class: what goes at the border of the graph whatever is chosen; None where nothing does.
    """

    model: Model
    state: State
    solution: Solution
    groups: tuple[ChannelGroup, ...]
    seed: BoolArray | None = None

    @property
    def view(self) -> View:
        """The flat reading of the model."""
        return self.state.view

    @property
    def trace(self) -> Trace:
        """Concrete shapes and folded values."""
        return self.state.trace

    @cached_property
    def locks(self) -> tuple[Lock, ...]:
        """Why the rest stays, per parameter axis."""
        return tuple(build_locks(self.state, self.solution, collect_axes(self.state), self.groups))

    def mask(self, keep: Keep) -> BoolArray:
        """Return (ids,) True for every id that stays.

        Raises:
            UsageError: a mask names no group or has another size.
        """
        removed = np.zeros(len(self.solution.label), dtype=bool) if self.seed is None else self.seed.copy()
        table = {group.name: group for group in self.groups}
        for name, kept in keep.items():
            if name not in table or len(kept) != table[name].size:
                raise UsageError(f"'{name}' with {len(kept)} channels is no group of this model.")
            removed[table[name].classes[~np.asarray(kept, dtype=bool)]] = True
        return ~self.solution.close(removed)[self.solution.label]

    def shapes(self, keep: Keep) -> dict[str, Shape]:
        """Return the concrete shape of every tensor after pruning (of a constant copied per use: the first copy's)."""
        mask = self.mask(keep)
        shapes = dict(self.trace.shapes)
        counts: dict[int, int] = {}

        def size(ids: IntArray) -> int:
            if id(ids) not in counts:
                counts[id(ids)] = int(np.count_nonzero(mask[ids]))
            return counts[id(ids)]

        for key, axes in self._axes().items():
            shapes[key] = tuple(size(ids) for ids in axes)
        return shapes

    def positions(self, keep: Keep) -> dict[str, list[IntArray]]:
        """Return the kept positions of every axis of every tensor, parameters and activations."""
        mask = self.mask(keep)
        return {key: [np.flatnonzero(mask[ids]) for ids in axes] for key, axes in self._axes().items()}

    def _axes(self) -> dict[str, list[IntArray]]:
        axes = {use.root: list(use.axes) for use in reversed(self.state.uses.values())}
        return axes | self.state.axes

    def plan(self, keep: Keep, *, former: bool = False) -> Plan:
        """Return the choice as data; `former`: with the names of uses that earlier releases wrote."""
        mask = self.mask(keep)
        removed: Positions = {}
        unshared: dict[str, Positions] = {}
        for key in self.view.parameters:
            if key in self.state.axes:
                _note(removed, key, self.state.axes[key], mask)
        for root, uses in self.uses.items():
            if self.is_cut_in_place(root, mask):
                _note(removed, root, list(uses[0].axes), mask)
                continue
            for use in uses:
                _note(unshared.setdefault(root, {}), use.former_name if former else use.name, list(use.axes), mask)
        groups = [
            {
                "name": group.name,
                "kind": group.kind,
                "size": group.size,
                "removed": np.flatnonzero(~np.asarray(keep[group.name], dtype=bool)).tolist(),
            }
            for group in self.groups
            if group.name in keep and not np.all(keep[group.name])
        ]
        unshared = {root: table for root, table in unshared.items() if table}
        return Plan(self.model.sha256, removed, unshared, groups)

    @cached_property
    def uses(self) -> dict[str, list[Use]]:
        """Private uses of each small constant."""
        table: dict[str, list[Use]] = {}
        for use in self.state.uses.values():
            table.setdefault(use.root, []).append(use)
        return table

    def is_cut_in_place(self, root: str, mask: BoolArray) -> bool:
        """Tell whether all users of a small constant lose the same positions, so that no copy is needed."""
        uses = self.uses[root]
        if root in self.state.fixed or len(uses) != self.reader_count(root):
            return False
        first = [mask[ids] for ids in uses[0].axes]
        return all(
            all(np.array_equal(a, mask[ids]) for a, ids in zip(first, use.axes, strict=True)) for use in uses[1:]
        )

    def reader_count(self, root: str) -> int:
        """Readers of a constant, through Identity nodes."""
        return sum(1 for _ in self.view.users(root))

    def keep(self, plan: Plan) -> Keep:
        """Return the masks that a plan stands for.

        A channel is removed where the plan removes all of its positions.

        Raises:
            UsageError: the plan names other tensors or positions than this model has, or no set of channels gives it.
        """
        parameters = self.view.parameters
        masks: dict[tuple[str, str | None, int], BoolArray] = {}
        for tensor, axes in plan.removed.items():
            for axis, positions in axes.items():
                masks[tensor, None, axis] = _position_mask(parameters, tensor, axis, positions)
        for tensor, uses in plan.unshared.items():
            for use, axes in uses.items():
                for axis, positions in axes.items():
                    masks[tensor, use, axis] = _position_mask(parameters, tensor, axis, positions)
        former = {use.name: use.former_name for use in self.state.uses.values()}
        keep: Keep = {}
        for group in self.groups:
            gone = np.ones(group.size, dtype=bool)
            for site in group.sites:
                names = (None, site.use, former.get(site.use or ""))
                found = (masks.get((site.tensor, name, site.axis)) for name in names)
                mask = next((mask for mask in found if mask is not None), None)
                gone &= mask[site.positions].all(axis=1) if mask is not None else False
            if gone.any():
                keep[group.name] = ~gone
        spelled = (self.plan(keep, former=former) for former in (False, True))
        if not any(again.removed == plan.removed and again.unshared == plan.unshared for again in spelled):
            raise UsageError(
                "the plan does not fit this model: its positions are no set of whole channels; use --plan again."
            )
        return keep


def _note(table: Positions, key: str, axes: list[IntArray], mask: BoolArray) -> None:
    for axis, ids in enumerate(axes):
        gone = np.flatnonzero(~mask[ids])
        if len(gone):
            table.setdefault(key, {})[axis] = gone.tolist()


def _position_mask(parameters: Mapping[str, Parameter], tensor: str, axis: int, positions: list[int]) -> BoolArray:
    parameter = parameters.get(tensor)
    dims = parameter.dims if parameter is not None else ()
    if parameter is None or axis >= len(dims) or any(p < 0 or p >= dims[axis] for p in positions):
        raise UsageError(f"the plan removes positions of axis {axis} of '{tensor}', which this model does not have.")
    mask = np.zeros(dims[axis], dtype=bool)
    mask[positions] = True
    return mask


def analyse(
    model: Model,
    input_shapes: dict[str, Shape] | None = None,
    heads: bool | None = None,
    head_dim: bool | None = None,
    boundary: Boundary | None = None,
    seen: Seen | None = None,
) -> Channels:
    """Find the channel groups of a model.

    Args:
        model: the model; functions are inlined for the analysis.
        input_shapes: graph input -> full shape, where dynamic sizes need to be fixed.
        heads: make attention heads prunable (None: where an attention is recognised).
        head_dim: make positions inside heads prunable (None: where heads are not).
        boundary: what goes or may shrink at the border of the graph; None: its inputs and outputs stay.
        seen: graph input -> shape of data that the model takes, None where samples are counted.

    Raises:
        ModelError: the graph is not sorted or incomplete.
        NothingToPruneError: the boundary is held by an operator.
        UsageError: an input shape does not fit, or the boundary names what is not there.
    """
    with paused_collector():
        return _analysed(inlined(model), input_shapes, heads, head_dim, boundary, seen)


def _analysed(
    model: Model,
    input_shapes: dict[str, Shape] | None,
    heads: bool | None,
    head_dim: bool | None,
    boundary: Boundary | None,
    seen: Seen | None,
) -> Channels:
    state = walk(View(model, loops=True), input_shapes, boundary, seen)
    solution = solve(state.space)
    if settle(state, solution):
        solution = solve(state.space)
    groups, _ = build_groups(state, solution, heads, head_dim)
    while lock_stuck(state, solution, groups):
        solution = solve(state.space)
        groups, _ = build_groups(state, solution, heads, head_dim)
    removed = seed(state, solution, boundary) if boundary is not None and boundary.cut else None
    return Channels(model, state, solution, tuple(groups), removed)
