"""An interruption while the command line is still imported ends it without a word."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

EARLY = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
sys.argv = ["onnxprune", "--version"]
from onnxprune.cli import main
main()
"""


@pytest.mark.parametrize("module", ["click", "onnxprune.cli.group", "onnxprune.processes.supervise"])
def test_an_interruption_during_the_imports_says_nothing(tmp_path: Path, module: str) -> None:
    (tmp_path / "early.py").write_text(EARLY.replace("{module}", module))
    done = subprocess.run([sys.executable, "early.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
