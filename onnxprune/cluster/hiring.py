"""Where workers come from: a scheduler that runs already, or processes of this machine, started for the time being."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import ClusterError, UsageError
from onnxprune.files.scratch import scratch_folder
from onnxprune.processes.crew import working
from onnxprune.version import __version__

if TYPE_CHECKING:
    from distributed import Client

ANSWER_SECONDS = 10.0
"""A scheduler that is there answers at once."""
ARRIVAL_SECONDS = 60.0
"""So long the first worker may take to come."""
END_SECONDS = 10.0
QUIET = logging.CRITICAL + 1
LOCAL = re.compile(r"local:([1-9]\d{0,2})")
ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://[^\s/]+:\d+/?")
VERSION = "__import__('onnxprune.version', fromlist=['version']).__version__"


def check_address(where: str) -> None:
    """Refuse what is no address of a cluster.

    Raises:
        UsageError: it is none.
    """
    if not (LOCAL.fullmatch(where) or ADDRESS.fullmatch(where)):
        raise UsageError(f"cluster '{where}': give tcp://HOST:PORT of a Dask scheduler, or local:N.")


@contextmanager
def hired(where: str | None) -> Iterator[None]:
    """Let a cluster work for this process for a while; None: nobody.

    Raises:
        ClusterError: Dask is not installed, the scheduler does not answer, no worker comes, or one has another version.
        UsageError: there is no such address.
    """
    if where is None:
        yield
        return
    check_address(where)
    if importlib.util.find_spec("distributed") is None:
        raise ClusterError("cluster needs Dask: pip install 'onnxprune[cluster]'.")
    import dask

    with (
        _quiet(),
        dask.config.set({"distributed.comm.timeouts.connect": f"{ANSWER_SECONDS}s"}),
        _client(where) as client,
    ):
        from onnxprune.cluster.dask_crew import DaskCrew

        _check_workers(client, where)
        crew = DaskCrew(client, where)
        with working(crew):
            try:
                yield
            finally:
                if client.status == "running":
                    crew.forget()


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Dask print nothing for a while: what matters is said as an error."""
    import distributed  # noqa: F401  it gives its loggers levels

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("distributed", "tornado")]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(QUIET)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _client(where: str) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    local = LOCAL.fullmatch(where)
    if local is None:
        try:
            client = Client(where, timeout=ANSWER_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise ClusterError(
                f"the scheduler at '{where}' does not answer within {ANSWER_SECONDS:.0f} seconds; is the address "
                "right, and does it run (dask scheduler)?"
            ) from error
        with client:
            yield client
        return
    given: dict[str, Any] = {"n_workers": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": QUIET}
    with (
        scratch_folder() as folder,
        dask.config.set({"temporary-directory": folder}),
        LocalCluster(host="127.0.0.1", **given) as cluster,
        _processes(int(local[1]), cluster.scheduler_address, Path(folder)),
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(int(local[1]), timeout=ARRIVAL_SECONDS)
        yield client


@contextmanager
def _processes(count: int, address: str, folder: Path) -> Iterator[None]:
    """Start workers of one thread, which end with this process; one that dies begins again."""
    begin = (
        f"from onnxprune.processes.parent import end_with; end_with({os.getpid()}); "
        "from distributed.cli.dask_worker import main; main()"
    )
    options = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--local-directory", str(folder)]
    command = [sys.executable, "-c", begin, address, *options]
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    found: list[subprocess.Popen[bytes]] = []
    try:
        found += [subprocess.Popen(command, start_new_session=True, **quiet) for _ in range(count)]
        yield
    finally:
        for process in found:
            process.terminate()
        for process in found:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _check_workers(client: Client, where: str) -> None:
    try:
        client.wait_for_workers(1, timeout=ARRIVAL_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"no worker has come to '{where}' within {ARRIVAL_SECONDS:.0f} seconds; start some (dask worker {where})."
        ) from error
    found = client.run(eval, VERSION, on_error="return")
    for worker, version in found.items():
        if isinstance(version, OSError) and not isinstance(version, ImportError):
            continue  # it has gone meanwhile
        if isinstance(version, BaseException):
            raise ClusterError(f"the worker {worker} has no onnxprune; install {__version__} there.")
        if version != __version__:
            raise ClusterError(
                f"the worker {worker} has onnxprune {version}, this command is {__version__}; install the same there."
            )
