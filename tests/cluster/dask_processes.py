"""A scheduler and workers as processes of their own, on loopback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path


class Processes:
    """A scheduler, and workers that can be started and killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workers = folder, list[subprocess.Popen[bytes]]()
        where = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(where)
        )
        self._wait(lambda: where.is_file() and where.read_text().rstrip().endswith("}"), "the scheduler did not begin")
        self.address: str = json.loads(where.read_text())["address"]

    def hire(self, count: int = 1, environment: Mapping[str, str] | None = None) -> None:
        """Start workers; they come when they have imported what they need."""
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0", "--host", "127.0.0.1")
        for _ in range(count):
            folder = ("--local-directory", str(self.folder))
            self.workers.append(self._start("worker", self.address, *options, *folder, environment=environment))

    def kill_one(self) -> None:
        """Kill the worker that was hired first."""
        victim = self.workers.pop(0)
        victim.kill()
        victim.wait()

    def close(self) -> None:
        """End everything."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def _start(self, kind: str, *options: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        program = f"from distributed.cli.dask_{kind} import main; main()"
        paths = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
        known = {**os.environ, "PYTHONPATH": paths, "ONNXPRUNE_CACHE": "off", **(environment or {})}
        return subprocess.Popen(
            [sys.executable, "-c", program, *options],
            env=known,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @staticmethod
    def _wait(ready: object, why: str) -> None:
        end = time.monotonic() + 60
        while not ready():  # type: ignore[operator]
            if time.monotonic() > end:
                raise TimeoutError(why)
            time.sleep(0.05)
