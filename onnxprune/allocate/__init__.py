"""How much is removed where: selected groups, counts per group, the channels that stay, targets that are met."""

from onnxprune.allocate.measures import MEASURES
from onnxprune.allocate.patterns import Names, matching_groups
from onnxprune.allocate.ratios import read_ratios
from onnxprune.allocate.request import SCOPES, Request
from onnxprune.allocate.targets import meet

__all__ = ["MEASURES", "SCOPES", "Names", "Request", "matching_groups", "meet", "read_ratios"]
