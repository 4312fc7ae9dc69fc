"""200 damaged inputs end as they should; `python -m tests.fuzz --number 3000 --seed N` is for the night."""

import os
import subprocess
import sys


def test_damaged_inputs_end_with_one_line_or_a_right_result() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--number", "200", "--seed", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 runs, 0 faults" in done.stdout


def test_what_is_wrong_is_seen() -> None:
    from tests.fuzz.__main__ import BYTES, SECONDS, fault

    good = "error: the plan is damaged; make it again.\n"
    assert fault(2, good, 1.0, 1 << 20) is None and fault(0, "", 1.0, 1 << 20) is None
    for code, errors, seconds, size in (
        (1, good, 1.0, 1 << 20),
        (2, "", 1.0, 1 << 20),
        (2, good + good, 1.0, 1 << 20),
        (0, "Traceback (most recent call last):\n", 1.0, 1 << 20),
        (2, "error: \x1b[31mred\n", 1.0, 1 << 20),
        (0, "", SECONDS, 1 << 20),
        (0, "", 1.0, BYTES + 1),
        (-9, "", 1.0, 1 << 20),
    ):
        assert fault(code, errors, seconds, size) is not None
