"""Distances of many cuts, group by group: measured here, or by a crew, to the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

from onnxprune.channels.groups import ChannelGroup
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from onnxprune.processes.crew import at_work
from onnxprune.score.activity import Activity
from onnxprune.score.parted import Parted
from onnxprune.score.probe import Probe
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.collect import Statistics
from onnxprune.statistics.data import Data

Value = TypeVar("Value")
Answer = TypeVar("Answer", covariant=True)


class Question(Protocol[Answer]):
    """What is asked of a probe about one group; it travels."""

    @property
    def group(self) -> ChannelGroup:
        """The group."""
        ...

    def ask(self, probe: Probe) -> Answer:
        """Return the answer."""
        ...


@dataclass(frozen=True, eq=False)
class ProbeKit:
    """What makes the same probe elsewhere: the same groups, so that the same tensors wait before their parts."""

    model: Model
    data: Data
    statistics: Statistics
    groups: tuple[ChannelGroup, ...]
    samples: int
    threads: int
    provider: str | None
    memory: int | None

    @cached_property
    def probe(self) -> Probe:
        """The probe."""
        known = Activity(View(self.model), self.data, self.threads, self.provider, self.memory, given=self.statistics)
        return Probe(known, self.groups, self.samples)


def answers(probe: Probe, questions: Sequence[Question[Value]]) -> Iterator[Value]:
    """Yield the answers to questions about groups, in their order."""
    crew, activity = at_work(), probe.activity
    if crew is None or len(questions) < 2 or isinstance(activity, Parted):
        yield from (question.ask(probe) for question in questions)
        return
    kit = ProbeKit(
        activity.view.model,
        activity.data,
        activity.statistics,
        tuple(probe.groups),
        probe.samples,
        activity.threads,
        activity.provider,
        activity.memory,
    )
    yield from crew.map(_answer, kit, questions, lambda number: f"group '{questions[number].group.name}'")


@on_one_thread
def _answer(kit: ProbeKit, question: Question[Value]) -> Value:
    return question.ask(kit.probe)
