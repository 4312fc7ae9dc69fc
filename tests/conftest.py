"""What all tests share."""

import pytest

from onnxprune.compensate import distil
from onnxprune.methods import steps


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take few gradient steps where nobody says how many: what 600 of them reach is measured in benchmarks/."""
    monkeypatch.setattr(steps, "MOST_STEPS", 10)
    monkeypatch.setattr(steps, "FEWEST_STEPS", 1)
    monkeypatch.setattr(distil, "FEWEST_STEPS", 1)
