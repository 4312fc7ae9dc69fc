"""Evidence: masked parity, parity of outputs, latency, gates.

The package has the name of the call that people know it by, so it can be called: `onnxprune.validate(a, b)`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.validate.compare import Comparison


class _Room(ModuleType):
    """A package that is called like the function `onnxprune.validate.api.validate`."""

    def __call__(self, original: Any, compressed: Any, **options: Any) -> Comparison:
        """Return how close the outputs of two models are, see `onnxprune.validate.api.validate`."""
        from onnxprune.validate.api import validate

        return validate(original, compressed, **options)


sys.modules[__name__].__class__ = _Room
