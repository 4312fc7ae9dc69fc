"""What all tests share."""

import pytest

from onnxprune.methods import refit


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take few gradient steps where nobody says how many: what 600 of them reach is measured in benchmarks/."""
    monkeypatch.setattr(refit, "MOST_STEPS", 10)
    monkeypatch.setattr(refit, "FEWEST_STEPS", 1)
