"""A search for widths on what dropped branches leave: bounds, shares and the refit are of the whole original."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune import Gates
from onnxprune.errors import UsageError
from tests.methods import residual
from tests.oracle import random_inputs


def test_widths_are_searched_on_what_branches_leave() -> None:
    original = residual.convnet()
    data = {"x": np.random.default_rng(0).normal(size=(48, 3, 8, 8)).astype(np.float32)}
    options = {"align": 1, "step": 0.3, "finest": 0.2, "compensate": "lstsq"}
    found = onnxprune.tune(original, data, gates=Gates(min_cosine=0.5), drop=["scaled"], **options)
    assert found.result.plan.dropped == ["scaled"]
    report = found.report
    assert report.output.macs / report.input.macs == pytest.approx(found.best.macs, rel=1e-3)
    alone = onnxprune.prune(original, drop=["scaled"], compensate="none", run=onnxprune.Run(verify=False)).report
    assert report.input.macs == alone.input.macs and report.output.macs <= alone.output.macs
    assert found.result.compensation is not None and report.details["masked_parity"]


def test_branches_that_take_inputs_along_are_refused() -> None:
    original = residual.decoder()
    data = [random_inputs(original, np.random.default_rng(0), 4) for _ in range(4)]
    with pytest.raises(UsageError, match="some of which go with the branches"):
        onnxprune.tune(original, data, gates=Gates(min_cosine=0.5), drop=["attention0"])
