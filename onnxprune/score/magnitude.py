"""Criteria that look at how large the weights of a channel are."""

from __future__ import annotations

import numpy as np

from onnxprune.score.criterion import criterion
from onnxprune.score.group_slices import Slices, maximum, sum_of_absolutes, sum_of_squares
from onnxprune.types import FloatArray


@criterion("l1")
def l1(slices: Slices) -> FloatArray:
    """Sum of the absolute weights that write the channel: s[c] = sum over writers w of |w[c]|_1 / mean |w|_1.

    Source: Li et al. 2017, Pruning Filters for Efficient ConvNets, section 3.1.
    """
    return slices.total(sum_of_absolutes)


@criterion("l2")
def l2(slices: Slices) -> FloatArray:
    """Euclidean norm of the weights that write the channel: s[c]^2 = sum over writers w of e[c] / mean e, e = |w|^2.

    Each writer is divided by its mean energy. Measured at a ratio of 0.1 without compensation: Fashion-MNIST ResNet-20
    35 % correct against 20 % with plain sums, MobileNetV2 37 % against 36 %.
    Source: Li et al. 2017; grouped as in Fang et al. 2023, DepGraph, equation 6.
    """
    return np.asarray(np.sqrt(slices.total(sum_of_squares)))


@criterion("linf")
def linf(slices: Slices) -> FloatArray:
    """Largest absolute weight that writes the channel: s[c] = max over writers w of |w[c]|_max / mean |w|_max.

    Source: the l-infinity member of the norms in Li et al. 2017, section 3.1.
    """
    return slices.total(maximum)


@criterion("lamp", comparable=True)
def lamp(slices: Slices) -> FloatArray:
    """Share of a channel's energy among the channels not weaker than it: s[c] = e[c] / sum over e[d] >= e[c] of e[d].

    e is the squared l2 norm. The strongest channel of every group scores 1, so one threshold never empties a group.
    Source: Lee et al. 2021, Layer-Adaptive Sparsity for Magnitude-Based Pruning, equation 3, with channels for weights.
    """
    energy = slices.total(sum_of_squares).astype(np.float64)
    order = np.argsort(energy, kind="stable")
    stronger = np.cumsum(energy[order][::-1])[::-1]
    shares: FloatArray = np.ones(len(energy))
    shares[order] = np.divide(energy[order], stronger, out=np.zeros(len(energy)), where=stronger > 0)
    return shares
