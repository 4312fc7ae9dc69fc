"""A signal to the whole group, as a closed terminal sends it, is the parent's to handle; workers and trackers wait."""

import subprocess
import sys
from pathlib import Path

import pytest

POOL = """
import multiprocessing, os, signal, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from onnxprune.processes import parent

if __name__ == "__main__":
    heard = []
    for number in parent.STOPS:
        signal.signal(number, lambda number, frame: heard.append(number))
    spawn = multiprocessing.get_context("spawn")
    with parent.undisturbed():
        pool = ProcessPoolExecutor(2, spawn, parent.begin, (os.getpid(), b"task"))
        waiting = [pool.submit(abs, -3), pool.submit({started})]
    os.killpg(0, signal.{signal})
    print(waiting[0].result(), waiting[1].result(), len(heard))
    pool.shutdown()
"""
OTHER = """subprocess.run, [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.{signal})"]"""


def run(folder: Path, name: str, started: str) -> subprocess.CompletedProcess[str]:
    """Return what a script that starts workers and signals its group printed."""
    script = folder / "pool.py"
    script.write_text(POOL.replace("{started}", started).replace("{signal}", name))
    command = [sys.executable, str(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, start_new_session=True)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_workers_and_what_tracks_them_outlive_a_signal_to_the_group(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, name, "abs, -4")
    assert (done.stdout, done.stderr, done.returncode) == ("3 4 1\n", "", 0)


def test_what_user_code_starts_in_a_worker_can_be_ended(tmp_path: Path) -> None:
    done = run(tmp_path, "SIGTERM", OTHER)
    assert "returncode=-15" in done.stdout and not done.stderr, done
