"""Progress without a terminal: a line now and then."""

import pytest

from onnxprune.cli.screen import EVERY, Lines, Screen
from onnxprune.report import Report


def test_a_pipe_gets_a_line_when_the_last_one_is_old_enough(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 1.0, 14.9, 15.0, 15.0, 16.0, 31.0, 31.0])
    lines = Lines(clock=lambda: next(times))
    for number in range(5):
        lines(f"step {number}")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["step 2", "step 4"]
    assert EVERY == 15


@pytest.mark.parametrize("quiet", [True, False])
def test_a_short_stage_prints_nothing(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    with Screen(quiet=quiet).stage(Report("prune"), "prune", "pruning") as tell:
        tell("working")
    assert capsys.readouterr() == ("", "")
