"""Dropping a random third of the branches, on the small networks of the zoo; `python -m tests.zoo.drops` takes all."""

from __future__ import annotations

import pytest

from models import zoo
from tests.methods.residual import branches_of
from tests.zoo.drops import TOLERANCE, WITHOUT, outcome

SMALL = ("GPT2", "LLaMA", "WaveNet", "resnet18", "mobilenet_v2")
QUICK = ("ESPCN", "GNN", "LSTM", "MLPConcat", "UNet", "squeezenet1_1")


@pytest.mark.parametrize("name", SMALL)
def test_what_is_left_equals_the_original_whose_branches_give_nothing(name: str) -> None:
    found = outcome(name)
    assert found.dropped and found.error is not None and found.cut is not None
    assert found.shows
    assert found.error < TOLERANCE and found.cut < TOLERANCE


@pytest.mark.parametrize("name", QUICK)
def test_what_has_no_skip_has_no_branch(name: str) -> None:
    assert name in WITHOUT and branches_of(zoo.build(name)) == ()
