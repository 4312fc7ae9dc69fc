"""Statistics of a network whose samples part at an If: each branch is seen by those that take it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from onnxprune.score.activity import MAP_SAMPLES, Activity, run_tensors
from onnxprune.score.readings import Reading
from onnxprune.statistics.collect import Statistics
from onnxprune.types import Array


class _Outside(Activity):
    """What stands outside of all branches."""

    @cached_property
    def all_readings(self) -> list[Reading]:
        made = {name for node in self.view.model.proto.graph.node for name in node.output}
        return [reading for reading in super().all_readings if made.issuperset(filter(None, reading.node.outputs))]


@dataclass(eq=False)
class Parted(Activity):
    """What all samples do outside of the branches, and what each part of them does inside.

    parts: the branches, each with its samples.
    """

    parts: tuple[Activity, ...] = ()

    @cached_property
    def _own(self) -> Activity:
        return _Outside(self.view, self.data, self.threads, self.provider, self.memory)

    @cached_property
    def _owners(self) -> dict[tuple[str, int], tuple[str, Activity]]:
        """Weight and axis -> name and activity of those that see it."""
        owners: dict[tuple[str, int], tuple[str, Activity]] = {}
        for number, activity in enumerate((self._own, *self.parts)):
            for reading in activity.all_readings:
                owners.setdefault(reading.stored, (f"part{number}/", activity))
        return owners

    @cached_property
    def all_readings(self) -> list[Reading]:
        activities = (self._own, *self.parts)
        return [r for a in activities for r in a.all_readings if self._owners[r.stored][1] is a]

    @cached_property
    def pools(self) -> dict[tuple[str, int], str]:
        return {stored: name + activity.pools[stored] for stored, (name, activity) in self._owners.items()}

    @cached_property
    def statistics(self) -> Statistics:
        found = {f"part{n}/": a.statistics for n, a in enumerate((self._own, *self.parts)) if a.all_readings}
        tensors = {prefix + name: value for prefix, s in found.items() for name, value in s.tensors.items()}
        return Statistics(self.data.samples, tensors, tuple(note for s in found.values() for note in s.notes))

    @cached_property
    def _maps(self) -> dict[str, Array]:
        maps: dict[str, Array] = {}
        for activity in (*self.parts, self._own):
            names = list(dict.fromkeys(reading.tensor for reading in activity.all_readings))
            maps |= run_tensors(activity, names, MAP_SAMPLES) if names else {}
        return maps
