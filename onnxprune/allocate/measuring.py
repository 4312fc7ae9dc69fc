"""How much is run to measure what groups cost: samples, widths and groups within a bound of predicted seconds.

The seconds are predicted from shapes, no clock is read, so that the same model and data always give the same choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from onnxprune.allocate.measures import Shaped
from onnxprune.channels.groups import ChannelGroup
from onnxprune.graph.cost import seconds, solve_seconds
from onnxprune.graph.count import macs, node_key
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import fixed_batch

SHARES = (0.125, 0.25, 0.5, 0.75, 0.9)
"""Shares removed at which a group is measured."""
FEWER_SHARES = (0.25, 0.5, 0.9)
SAMPLES = 64
ENOUGH = 8
"""Samples below which fewer widths are measured first, and small groups not at all: each tells about every output."""
FEWEST = 2
SMALL = (0.0, 0.1, 0.2, 0.4)
"""Groups with less than this part of what the mean group has of the network take the curve of the others."""
OPENING = 0.015
"""Seconds to open the part behind a group and to run what stands before it."""
MOST_SECONDS = 30.0
"""Of all runs together, predicted."""


@dataclass(frozen=True)
class MeasuringEffort:
    """Samples and shares removed for every group, groups that are not measured, and what was left out, if anything.

    seconds: predicted.
    """

    samples: int
    shares: tuple[float, ...]
    note: str = ""
    unmeasured: frozenset[str] = field(default_factory=frozenset)
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class MeasuringCost:
    """What measuring one group takes.

    run: predicted seconds of the part behind it, for one sample. solve: of the refit, for one width.
    size: the larger one of its shares of the multiply-adds and of the parameters.
    """

    run: float
    solve: float
    size: float


def effort(
    channels: Shaped, data: Data, groups: Sequence[ChannelGroup], shares: Sequence[float] | None = None
) -> MeasuringEffort:
    """Return how much to run for some groups.

    Args:
        shares: measured of every group, whatever it costs; None: the usual ones, fewer on large networks.
    """
    wanted, table = min(SAMPLES, data.samples), group_costs(channels, data, groups)
    mean = sum(cost.size for cost in table.values()) / max(1, len(table))
    for samples, chosen, small in _choices(wanted, tuple(shares or SHARES), fixed=shares is not None):
        measured = {name: cost for name, cost in table.items() if cost.size >= small * mean}
        total = len(chosen) * sum(cost.run * samples + cost.solve for cost in measured.values())
        total += OPENING * len(measured)
        if total <= MOST_SECONDS:
            break
    left = frozenset(table) - frozenset(measured)
    if (samples, chosen, left) == (wanted, tuple(shares or SHARES), frozenset()):
        return MeasuringEffort(samples, chosen, seconds=total)
    widths = f" and {len(chosen)} instead of {len(SHARES)} widths" if shares is None and chosen != SHARES else ""
    rest = f", {len(left)} small one{'s' * (len(left) > 1)} taken to be like the others" if left else ""
    note = (
        f"errors of {len(measured)} groups were measured on {samples} of {data.samples} samples{widths}{rest}: "
        f"all runs together are bounded by {MOST_SECONDS:g} predicted seconds"
    )
    return MeasuringEffort(samples, chosen, note, left, total)


def _choices(wanted: int, usual: tuple[float, ...], *, fixed: bool) -> Iterator[tuple[int, tuple[float, ...], float]]:
    """Yield samples, shares and what a small group is, from all there is down to the least."""
    halves = [samples for samples in (wanted, 48, 32, 24, 16, 12, ENOUGH, 6, 4, 3, FEWEST) if samples <= wanted]
    many, few = [s for s in halves if s >= ENOUGH] or halves[:1], [s for s in halves if s < ENOUGH]
    yield from ((samples, usual, 0.0) for samples in many)
    if not fixed:
        usual = FEWER_SHARES
        yield from ((many[-1], usual, small) for small in SMALL)
    yield from ((samples, usual, 0.0 if fixed else SMALL[-1]) for samples in few or many[-1:])


def group_costs(channels: Shaped, data: Data, groups: Sequence[ChannelGroup]) -> dict[str, MeasuringCost]:
    """Return what measuring each group takes, by its name."""
    view, shapes = channels.view, channels.shapes({})
    scale = _scale(channels, data)
    each, counted = seconds(view, shapes), macs(view, shapes)
    whole = max(1, sum(counted.values()))
    elements = {name: parameter.elements for name, parameter in view.parameters.items()}
    parameters = max(1, sum(elements.values()))
    nodes = [(node_key(node), {*node.inputs, *node.captured}, node.outputs) for node in view.nodes]
    table = {}
    for group in groups:
        reads = {site.tensor for site in group.sites if site.role == "reads"}
        touched = {site.tensor for site in group.sites}
        changed, run, own = set(reads or touched), 0.0, 0
        for key, inputs, outputs in nodes:
            own += counted.get(key, 0) if inputs & touched else 0
            if inputs & changed:
                changed.update(outputs)
                run += each.get(key, 0.0)
        axes = {site.tensor: view.parameters[site.tensor].dims[site.axis] for site in group.sites}
        solve = sum(solve_seconds(axes[t], elements[t] / axes[t]) for t in reads)
        size = max(own / whole, sum(elements[t] for t in touched) / parameters)
        table[group.name] = MeasuringCost(run * scale, solve, size)
    return table


def macs_per_sample(channels: Shaped, data: Data) -> float:
    """Return the multiply-accumulates of one sample of the data; the traced sizes stand for others in proportion."""
    return float(sum(macs(channels.view, channels.shapes({})).values())) * _scale(channels, data)


def _scale(channels: Shaped, data: Data) -> float:
    """Return how much larger one sample of the data is than what was traced."""
    shapes = channels.shapes({})
    feed = next(iter(data.batches(1)))
    traced = sum(_elements(shapes[name]) for name in feed if name in shapes)
    given = sum(array.size for name, array in feed.items() if name in shapes)
    return given / max(traced, 1) / (fixed_batch(data.inputs) or 1)


def _elements(shape: Sequence[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
