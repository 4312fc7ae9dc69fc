"""Decoders that feed states back: 20 steps against the masked original, and what the states become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxprune.cli.group import cli
from onnxprune.evidence.dropped import masked_original
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from tests.state_space import heads, selective
from tests.state_space.steps import decoded, state_sizes

WORDS = np.random.default_rng(5).integers(0, selective.WORDS, (2, 20))
INNER, STATE = selective.INNER // 2, selective.STATE // 2

Draw = Callable[[], onnx.ModelProto]
CASES: dict[str, tuple[Draw, str, list[int], list[int]]] = {
    "joined": (selective.step, "past*", [INNER, 3], [INNER, STATE]),
    "rolled": (lambda: selective.step("rolled"), "past*", [INNER, 4], [INNER, STATE]),
    "written": (lambda: selective.step("written", names="params"), "cache*", [INNER, 4], [INNER, STATE]),
    "plain": (lambda: selective.step(names="plain"), "*state*", [INNER, 3], [INNER, STATE]),
    "heads": (heads.step, "past*", [44, 4], [4, 6, 5]),
    "heads, parted": (lambda: heads.step("parted"), "past*", [44, 4], [8, 3, 5]),
}
"""Name -> drawing, what may be resized, sizes of the states of convolution and scan behind the batch."""


def _pruned(model: onnx.ModelProto, **more: object) -> tuple[onnx.ModelProto, float]:
    """Return the pruned model and its relative error against the masked original over 20 steps."""
    result = prune(model, PruneOptions(ratio=0.5, align=1, compensate="none", **more))  # type: ignore[arg-type]
    expected = decoded(masked_original(result.channels, result.keep, result.short).proto, WORDS)
    found = decoded(result.model.proto, WORDS)
    assert np.abs(np.diff(expected, axis=1)).max() > 1e-3  # the steps differ, so they show something
    return result.model.proto, float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_with_smaller_states_give_what_the_masked_original_gives(name: str, exact: bool) -> None:
    draw, pattern, window, state = CASES[name]
    model, error = _pruned(draw(), resize_io=(pattern,), exact_only=exact)
    assert error < 1e-5
    sizes = state_sizes(model)
    assert exact or all(shape == (window if "conv" in key else state) for key, shape in sizes.items())
    assert sum(map(np.prod, sizes.values())) < sum(map(np.prod, state_sizes(draw()).values()))


def test_without_leave_the_states_keep_their_sizes() -> None:
    model, error = _pruned(selective.step())
    assert error < 1e-5 and state_sizes(model) == state_sizes(selective.step())


@pytest.mark.parametrize("name", CASES)
def test_a_layer_goes_with_all_of_its_states(name: str) -> None:
    draw, pattern, _, _ = CASES[name]
    model, error = _pruned(draw(), resize_io=(pattern,), drop=("mixer1",))
    assert error < 1e-5
    assert len(state_sizes(model)) == 2 and len(model.graph.output) == 3


def test_the_command_line_shrinks_states(tmp_path: Path) -> None:
    onnx.save(selective.step(), tmp_path / "model.onnx")
    words = ["prune", tmp_path / "model.onnx", "--ratio", "0.5", "--align", "1", "--compensate", "none"]
    words += ["--resize-io", "past*", "-o", tmp_path / "small.onnx"]
    assert CliRunner().invoke(cli, [str(word) for word in words]).exit_code == 0
    assert state_sizes(onnx.load(tmp_path / "small.onnx"))["past_ssm.1"] == [INNER, STATE]
