"""Criteria that look for channels that others can replace. Both need only the Gram matrix of the slices."""

from __future__ import annotations

import numpy as np

from onnxprune.score.criterion import criterion
from onnxprune.score.group_slices import Slices
from onnxprune.types import FloatArray


@criterion("fpgm")
def fpgm(slices: Slices) -> FloatArray:
    """Distance to all other channels: s[c] = sum over d of ||w[c] - w[d]||; the one nearest the geometric median goes.

    Source: He et al. 2019, Filter Pruning via Geometric Median, equation 6.
    """
    gram = _gram(slices)
    energy = np.diag(gram)
    squared = energy[:, None] + energy[None, :] - 2 * gram
    distances: FloatArray = np.sqrt(np.maximum(squared, 0.0)).sum(axis=1)
    return distances


@criterion("cosine")
def cosine(slices: Slices) -> FloatArray:
    """Distance to the nearest twin: s[c] = 1 - max over d != c of |cos(w[c], w[d])|.

    Of two twins the weaker goes first. The sign is ignored: a reader can absorb it. A channel of zeros scores 0.
    Source: the redundancy view of Ayinde and Zurada 2018, Building Efficient ConvNets using Redundant Feature Pruning.
    """
    gram = _gram(slices)
    norms = np.sqrt(np.diag(gram))
    outer = norms[:, None] * norms[None, :]
    similarity = np.abs(np.divide(gram, outer, out=np.zeros_like(gram), where=outer > 0))
    np.fill_diagonal(similarity, 0.0)
    nearest = similarity.max(axis=1, initial=0.0)
    weaker_first = 1e-6 * norms / max(float(norms.max(initial=0.0)), np.finfo(np.float64).tiny)
    scores: FloatArray = np.where(norms > 0, np.maximum(1.0 - nearest, 0.0) + weaker_first, 0.0)
    return scores


def _gram(slices: Slices) -> FloatArray:
    """Return (channels, channels): inner products of the slices, all writers of mean energy 1 laid end to end."""
    gram: FloatArray = np.zeros((slices.group.size, slices.group.size))
    for matrix in slices.matrices():
        own = matrix @ matrix.T
        energy = float(np.trace(own)) / len(own)
        gram = gram + (own / energy if energy > 0 else own)
    return gram
