"""Sorted lists (detections, best candidates) are compared before their sort: behind it places mean something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.errors import DataError, ModelError
from onnxprune.evidence.jumps import computed_tensors
from onnxprune.evidence.kinds import SORTED, VALUES, Kind, behind_sorts
from onnxprune.evidence.layer_parity import matched_names, watching
from onnxprune.evidence.parity import Meters, Parity
from onnxprune.graph.session import Feeds, Session
from onnxprune.graph.view import View

if TYPE_CHECKING:
    from onnxprune.graph.model import Model


def before_sorts(view: View) -> dict[str, tuple[str, ...]]:
    """Return output -> the computed tensors that enter the part of the graph that sorts it, in the graph's order."""
    behind = behind_sorts(view)
    lists = [name for name in view.outputs if name in behind]
    if not lists:
        return {}
    computed, made = computed_tensors(view), {name for node in view.model.proto.graph.node for name in node.output}
    found = {}
    for name in lists:
        seen, border, queue = {name}, set[str](), [name]
        while queue:
            node = view.producers[queue.pop()]
            for key in (*node.inputs, *node.captured, *sum(node.branches, ())):
                if not key or key in seen:
                    continue
                seen.add(key)
                if key in behind:
                    queue.append(key)
                elif key in computed and key in made:
                    border.add(key)
        found[name] = tuple(key for key in view.producers if key in border)
    return found


def compare_before_sorts(
    lists: Mapping[str, tuple[str, ...]],
    original: Session,
    other: Session,
    samples: Iterable[Feeds],
    places: Mapping[str, Parity | None],
) -> dict[str, Parity]:
    """Return the figures of every list whose tensors before the sort both models have; the worst of them counts.

    Args:
        places: figures of the lists place by place, for values that are no numbers.
    """
    wanted = {name for tensors in lists.values() for name in tensors}
    if not wanted:
        return {}
    try:
        inner = _inner_parity(original, other, samples, wanted)
    except (ModelError, DataError):
        return {}
    found = {}
    for name, tensors in lists.items():
        known = [figures for tensor in tensors if (figures := inner.get(tensor)) is not None]
        if known and len(known) == len(tensors):
            found[name] = _worst(known, tensors, places.get(name))
    return found


def _inner_parity(
    original: Session, other: Session, samples: Iterable[Feeds], wanted: set[str]
) -> dict[str, Parity | None]:
    """Return tensor -> figures, for floats that both models have under names that match."""
    first, second = _model(original), _model(other)
    pairs = {name: pair for name, pair in matched_names(first.proto, second.proto).items() if name in wanted}
    meters = Meters({name: Kind(VALUES) for name in pairs})
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(
                watching(model, [pair[side] for pair in pairs.values()], original.threads, original.provider)
            )
            for side, model in enumerate((first, second))
        )
        for feeds in samples:
            here = one.run({port.name: feeds[port.name] for port in one.inputs})
            there = two.run({port.name: feeds[port.name] for port in two.inputs})
            both = {name: pair for name, pair in pairs.items() if pair[0] in here and pair[1] in there}
            meters.add({n: here[p[0]] for n, p in both.items()}, {n: there[p[1]] for n, p in both.items()})
    return meters.results()


def _model(session: Session) -> Model:
    from onnxprune.graph.model import load

    return load(session.source if not isinstance(session.source, Path) else str(session.source))


def _worst(known: list[Parity], tensors: tuple[str, ...], places: Parity | None) -> Parity:
    """Return one line of figures for several tensors: the worst of each."""
    centred = [figures.centred_cosine for figures in known if figures.centred_cosine is not None]
    sides = [figures.not_finite for figures in (*known, *([places] if places is not None else []))]
    largest = [figures.max_abs for figures in known if figures.max_abs is not None]
    return Parity(
        min(figures.cosine for figures in known),
        min(figures.sqnr_db for figures in known),
        max(largest) if len(largest) == len(known) else None,
        None,
        min(centred, default=None),
        None,
        SORTED,
        (max(side[0] for side in sides), max(side[1] for side in sides)),
        tensors,
    )
