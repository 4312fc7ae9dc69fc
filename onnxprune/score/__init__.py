"""How much each channel of a group matters: criteria by name, and the one call that scores groups."""

from onnxprune.score import ablation, activation, gradients, magnitude, other, redundancy, residual
from onnxprune.score.registry import SCORES, Criterion, criterion, find, names
from onnxprune.score.scoring import score_groups

__all__ = [
    "SCORES",
    "Criterion",
    "ablation",
    "activation",
    "criterion",
    "find",
    "gradients",
    "magnitude",
    "names",
    "other",
    "redundancy",
    "residual",
    "score_groups",
]
