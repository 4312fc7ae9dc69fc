"""What all tests share."""

import os
import signal

import pytest

from onnxprune.compensate import distil
from onnxprune.methods import step_count
from onnxprune.processes.allocator import keep_freed

keep_freed()
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background jobs ignore it, and so do their children
os.environ["ONNXPRUNE_NO_MEASURE"] = "1"  # no clock decides what is quantized, where a test does not ask for it

PROCESSES = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in two processes, where pytest-xdist is there and nobody asks otherwise."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput")
    alone = getattr(config.option, "usepdb", False) or config.option.collectonly or (os.cpu_count() or 1) < PROCESSES
    if whole and not alone and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses, config.option.dist = PROCESSES, "worksteal"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take few gradient steps where nobody says how many: what 600 of them reach is measured in benchmarks/."""
    monkeypatch.setattr(step_count, "MOST_STEPS", 10)
    monkeypatch.setattr(step_count, "FEWEST_STEPS", 1)
    monkeypatch.setattr(distil, "FEWEST_STEPS", 1)


@pytest.fixture(autouse=True)
def not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge as on a desk: where the variable CI is set, results that are far from the original fail."""
    monkeypatch.delenv("CI", raising=False)
