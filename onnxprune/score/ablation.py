"""The exact criterion: switch a channel off and look."""

from __future__ import annotations

import numpy as np

from onnxprune.score.criterion import criterion
from onnxprune.score.group_slices import Slices
from onnxprune.score.magnitude import l2
from onnxprune.score.probe import Probe
from onnxprune.types import FloatArray

SAMPLES = 32


@criterion("ablation", comparable=True, needs_data=True)
def ablation(slices: Slices) -> FloatArray:
    """Change of the outputs without the channel: s[c] = mean |y - y without c|^2 / var y, one run for each channel.

    Nothing makes up for the channel. Source: the oracle of Molchanov et al. 2017, Pruning Convolutional Neural Networks
    for Resource Efficient Inference, section 2.1, with the distance to the original as the loss.
    """
    if slices.activity is None:
        return l2(slices)
    if slices.activity.ablation is None:
        slices.activity.ablation = Probe(slices.activity, (), SAMPLES)
    probe: Probe = slices.activity.ablation
    # a part of the network rounds otherwise than the whole
    rounding = probe.distance(probe.off(slices.group, np.arange(0)))
    costs = [probe.distance(probe.off(slices.group, np.array([c]))) for c in range(slices.group.size)]
    return np.maximum(np.array(costs) - rounding, 0.0)
