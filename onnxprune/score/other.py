"""Criteria that do not look at the writers' weights."""

from __future__ import annotations

from onnxprune.score.criterion import criterion
from onnxprune.score.group_slices import Slices, sum_of_absolutes
from onnxprune.score.magnitude import l2
from onnxprune.types import FloatArray


@criterion("bn-scale")
def bn_scale(slices: Slices) -> FloatArray:
    """Absolute scale of the channel in BatchNorm: s[c] = sum of |gamma[c]| / mean |gamma| over BatchNorms; else l2.

    Source: Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming, section 3.
    """
    sites = slices.batchnorm_sites
    if not sites:
        slices.notes.append("has no BatchNorm scale (folded or never there), so l2 is used")
        return l2(slices)
    return slices.total(sum_of_absolutes, sites)


@criterion("random")
def random(slices: Slices) -> FloatArray:
    """Uniform random numbers from the seed and the group's name: the floor that a criterion has to beat."""
    return slices.generator.random(slices.group.size)
