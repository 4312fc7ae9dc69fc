"""How much each channel of a group matters: criteria by name, and the one call that scores groups."""

from onnxprune.score import magnitude, other, redundancy
from onnxprune.score.registry import SCORES, Criterion, criterion, find, names
from onnxprune.score.scoring import score_groups

__all__ = ["SCORES", "Criterion", "criterion", "find", "magnitude", "names", "other", "redundancy", "score_groups"]
