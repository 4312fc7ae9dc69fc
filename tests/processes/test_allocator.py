"""Memory that is freed and wanted again is not cleared by the kernel each time, unless the user says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os, resource, numpy as np
from onnxprune.processes.allocator import keep_freed
said = keep_freed() if {kept} else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    arrays = [np.ones(3 << 20, np.uint8) for _ in range(20)]
    del arrays
print(said, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, os.environ.get("MALLOC_TRIM_THRESHOLD_"))
"""


def told(kept: bool, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    script = [sys.executable, "-c", SCRIPT.format(kept=kept)]
    done = subprocess.run(script, capture_output=True, text=True, check=True, env={**environment, **variables})
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    said, faults, handed_on = told(True)
    assert said == "True" and int(handed_on) == 256 << 20
    assert int(faults) < int(told(False)[1]) / 4


def test_settings_of_the_user_stay() -> None:
    assert told(True, MALLOC_TRIM_THRESHOLD_="131072")[::2] == ["False", "131072"]
