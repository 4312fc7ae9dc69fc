"""How many weights of each layer become zero, so that all layers together have the sparsity that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.types import Array

MOST = 0.98
"""No layer loses more than this: one that is empty cuts the network."""

Weights = Mapping[str, Callable[[], Array]]
"""Layer -> makes its scores (groups, outs, features), higher matters more."""


def uniform(scores: Weights, sizes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Return the same share for every layer."""
    return dict.fromkeys(sizes, sparsity)


def by_threshold(scores: Weights, sizes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Return the shares of the weights below one threshold on the scores of all layers."""
    return _threshold({name: make().reshape(-1) for name, make in scores.items()}, sparsity)


def lamp(scores: Weights, sizes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Return the shares below one threshold on w[u]^2 / sum over v with |w[v]| >= |w[u]| of w[v]^2.

    Source: Lee et al. 2021, Layer-adaptive sparsity for the magnitude-based pruning, equation 4.
    """
    table = {}
    for name, make in scores.items():
        squares = np.sort(np.square(make().reshape(-1)))
        table[name] = squares / np.maximum(np.cumsum(squares[::-1])[::-1], 1e-300)
    return _threshold(table, sparsity)


def erk(scores: Weights, sizes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Return shares whose densities are proportional to (sum of the axis lengths) / (their product).

    Source: Evci et al. 2020, Rigging the Lottery, section 3 (Erdos-Renyi-Kernel).
    """
    raw = {name: sum(shape) / np.prod(shape) for name, shape in sizes.items()}
    count = {name: float(np.prod(shape)) for name, shape in sizes.items()}
    dense: set[str] = set()
    while len(dense) < len(sizes):
        left = (1 - sparsity) * sum(count.values()) - sum(count[name] for name in dense)
        factor = max(left, 0.0) / sum(raw[name] * count[name] for name in sizes if name not in dense)
        full = {name for name in sizes if name not in dense and factor * raw[name] >= 1}
        if not full:
            return {n: 0.0 if n in dense else min(MOST, 1 - factor * raw[n]) for n in sizes}
        dense |= full
    return dict.fromkeys(sizes, 0.0)


def _threshold(scores: Mapping[str, Array], sparsity: float) -> dict[str, float]:
    everything = np.concatenate([values.astype(np.float32) for values in scores.values()])
    count = round(sparsity * everything.size)
    if not count:
        return dict.fromkeys(scores, 0.0)
    limit = np.partition(everything, count - 1)[count - 1]
    return {name: min(MOST, float((v.astype(np.float32) <= limit).mean())) for name, v in scores.items()}


SCOPES = {"uniform": uniform, "global": by_threshold, "lamp": lamp, "erk": erk}
