"""Small graphs, one or more for every pattern on which pruners fail. Importing this fills CASES."""

from tests.micro import (
    algebra,
    attention,
    branches,
    families,
    flatten,
    fused,
    grouped,
    indexing,
    normalise,
    oddities,
    pixels,
    preactivation,
    quantised,
    recurrent,
    residual,
    storage,
)
from tests.micro.build import CASES, Case

PATTERNS = (
    flatten, preactivation, grouped, pixels, attention, residual, recurrent, branches, normalise, algebra,
    indexing, quantised, storage, fused, families, oddities,
)  # fmt: skip

__all__ = ["CASES", "PATTERNS", "Case"]
