"""Criteria that look at how large the weights of a channel are."""

from __future__ import annotations

import numpy as np

from onnxprune.score.registry import criterion
from onnxprune.score.slices import Slices, maximum, sum_of_absolutes, sum_of_squares
from onnxprune.types import FloatArray


@criterion("l1")
def l1(slices: Slices) -> FloatArray:
    """Sum of the absolute weights that write the channel: s[c] = sum over writers w of sum |w[c]|.

    Source: Li et al. 2017, Pruning Filters for Efficient ConvNets, section 3.1.
    """
    return slices.total(sum_of_absolutes)


@criterion("l2")
def l2(slices: Slices) -> FloatArray:
    """Euclidean norm of the weights that write the channel: s[c]^2 = sum over writers w of sum w[c]^2.

    All writers together are one vector: in a residual group a writer with large weights counts for more, as it does
    in the sum that its readers see. Source: Li et al. 2017; grouped as in Fang et al. 2023, DepGraph, equation 6.
    """
    return np.asarray(np.sqrt(slices.total(sum_of_squares)))


@criterion("linf")
def linf(slices: Slices) -> FloatArray:
    """Largest absolute weight that writes the channel: s[c] = max over writers w of max |w[c]|.

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
