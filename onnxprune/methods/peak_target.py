"""A target for the peak of the activations: spent by a smooth stand-in, checked on the pruned graph until it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.allocate.masks import equal_masks
from onnxprune.allocate.measures import Measure
from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import NothingToPruneError
from onnxprune.graph.trace import Shape
from onnxprune.hardware.peak import activations, sample_sizes

ROUNDS = 8
LARGEST_BYTES, MOST_GROUPS = 64 << 20, 64
"""Of a model in which, and of groups of which, it is tried whether they can be given back."""
WAYS = "Allow more (--align 1, fewer --skip), or smaller inputs."
CLOSE_ENOUGH = 0.95
"""Of the goal: a peak between it and the goal is looked at no further."""


def meet_peak(
    channels: Channels,
    wanted: float,
    spend: Callable[[Measure, float], Keep],
    progress: Callable[[str], None],
    sizes: Mapping[str, Shape] | None = None,
) -> Keep:
    """Return the masks whose peak of activations is at most what is wanted, and near it.

    Args:
        wanted: share of the original's peak up to 1, or bytes.
        spend: measure, share to leave -> masks.
        sizes: input -> full shape.

    Raises:
        ModelError: the peak of this model is not counted.
        NothingToPruneError: it cannot be reached.
    """
    progress("counting the activations")
    sizes = sample_sizes(channels.model, sizes or {})
    first = activations(channels.model, sizes)
    before = first.peak
    goal = wanted if wanted <= 1 else wanted / before
    if goal >= 1:
        return {}
    shapes = channels.shapes({})
    height = first.height(shapes, shapes)

    def measure(keep: Keep) -> float:
        return first.height(shapes, channels.shapes(keep)) / height

    tries: list[tuple[float, Keep]] = []
    aim = goal
    for number in range(ROUNDS):
        progress(f"looking for {goal:.3g} of the peak, try {number + 1}")
        try:
            keep = spend(measure, aim)
        except NothingToPruneError as error:
            if not tries:
                raise NothingToPruneError(
                    f"--peak-memory cannot be reached: {goal * before:.0f} of {before} bytes were asked for, and all "
                    f"that may go leaves more. {WAYS}"
                ) from error
            break
        left = activations(rewrite(channels, keep), sizes).peak / before
        repeated = any(equal_masks(keep, other) for _, other in tries)
        tries.append((left, keep))
        if CLOSE_ENOUGH * goal <= left <= goal:
            break
        aim = aim * (0.97 if repeated and left > goal else 1.03 if repeated else 0.99 * goal / left)
        if not 0 < aim < 1:
            break
    fitting = [pair for pair in tries if pair[0] <= goal]
    if not fitting:
        least = min(left for left, _ in tries)
        raise NothingToPruneError(
            f"--peak-memory cannot be reached: {least * before:.0f} of {before} bytes are left at best, "
            f"{goal * before:.0f} were asked for. {WAYS}"
        )
    best = max(fitting, key=lambda pair: pair[0])[1]
    if channels.model.size_bytes > LARGEST_BYTES:
        return best
    progress("giving back what the peak does not need")
    return _without_needless(best, lambda keep: activations(rewrite(channels, keep), sizes).peak <= goal * before)


def _without_needless(keep: Keep, holds: Callable[[Keep], bool]) -> Keep:
    """Give groups back that nothing is gained by, those that lost most first."""
    order = sorted(keep, key=lambda name: -int(np.count_nonzero(~keep[name])))
    for name in order[:MOST_GROUPS]:
        trial = {other: mask for other, mask in keep.items() if other != name}
        if holds(trial):
            keep = trial
    return keep
