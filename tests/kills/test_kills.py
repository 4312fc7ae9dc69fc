"""Three kills in the tests; `python -m tests.kills --number 60` is for the night."""

import subprocess
import sys


def test_a_few_kills_leave_nothing_half_written_and_nobody_running() -> None:
    command = [sys.executable, "-m", "tests.kills", "--number", "3", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0 and "3 kills, 0 faults" in done.stdout, done.stdout + done.stderr
