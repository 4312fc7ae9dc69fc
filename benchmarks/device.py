"""A latency that is asked for where a model will run: on a machine that pads to 32, and on a board reached by ssh.

    python benchmarks/device.py                      both; some CPU minutes
    python benchmarks/device.py --only simulated

The simulated machine is a command (`tests/devices/padded.py`): channels run as the next multiple of 32, so that what is
fast here says nothing of it. `here` is the share that a prune for this machine leaves there. The board is this machine
behind an sshd of its own on loopback (openssh-server is needed); its share is measured again afterwards, by `bench`
there, in three batches of which the middle one counts. Networks have the structures of the zoo and random weights.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models import zoo
from onnxprune import Run
from onnxprune.devices.latency_command import LatencyCommand
from onnxprune.devices.ssh_device import VARIABLE
from tests.devices import padded
from tests.devices.ssh_server import MISSING, Server

NETWORKS = ("resnet18", "mobilenet_v2")
GOALS = (0.6, 0.4)
TOLERANCE = 0.03


def main() -> None:
    """Print a table for each machine."""
    parser = argparse.ArgumentParser(description="Latency targets on other machines.")
    parser.add_argument("--only", nargs="+", default=["simulated", "ssh"])
    args = parser.parse_args()
    os.environ["ONNXPRUNE_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network in NETWORKS:
            onnx.save(zoo.build(network), folder / f"{network}.onnx")
        if "simulated" in args.only:
            simulated(folder)
        if "ssh" in args.only:
            board(folder)


def simulated(folder: Path) -> None:
    """Ask for shares on the machine that pads."""
    calls = [0]
    said = LatencyCommand._said

    def counted(self: LatencyCommand, place: str, models: list[Path]) -> str:
        calls[0] += 1
        return said(self, place, models)

    LatencyCommand._said = counted  # type: ignore[method-assign,assignment]
    print(
        "| network | asked | measured there | calls | met within 0.03 | here |\n| --- | --- | --- | --- | --- | --- |"
    )
    run = Run(latency_command=f"{sys.executable} {padded.__file__} {{models}}")
    for network in NETWORKS:
        path = folder / f"{network}.onnx"
        whole = padded.milliseconds(onnx.load(path))
        for goal in GOALS:
            calls[0] = 0
            share = _padded_share(path, goal, run) / whole
            local = _padded_share(path, goal, Run(threads=1)) / whole
            met = "yes" if abs(share - goal) <= TOLERANCE else "NO"
            print(f"| {network} | {goal} | {share:.3f} | {calls[0]} | {met} | {local:.3f} |", flush=True)


def board(folder: Path) -> None:
    """Ask for shares on a board behind ssh."""
    if MISSING:
        print(f"no {' and no '.join(MISSING)} here: the board is left out")
        return
    (folder / "ssh").mkdir()
    server = Server(folder / "ssh")
    os.environ[VARIABLE] = server.ssh
    place = f"ssh://{getpass.getuser()}@127.0.0.1:{server.port}?python={shutil.which('python') or sys.executable}"
    print()
    _head("network", "asked", "measured there", "met within 0.03", "seconds", "files left")
    try:
        path = folder / "mobilenet_v2.onnx"
        for goal in GOALS:
            start = time.perf_counter()
            run = Run(device=place, threads=1)
            try:
                small = onnxprune.prune(path, latency=goal, compensate="none", run=run).model
            except onnxprune.NothingToPruneError as error:
                print(f"| mobilenet_v2 | {goal} | {error} | NO | {time.perf_counter() - start:.0f} | - |", flush=True)
                continue
            seconds = time.perf_counter() - start
            shares = []
            for _ in range(3):
                before, after = onnxprune.bench([path, small], device=place, threads=1).values()
                shares.append(after.steady_ms / before.steady_ms)
            share, left = sorted(shares)[1], len(list(server.temporary.iterdir()))
            met = "yes" if abs(share - goal) <= TOLERANCE else "NO"
            print(f"| mobilenet_v2 | {goal} | {share:.3f} | {met} | {seconds:.0f} | {left} |", flush=True)
    finally:
        server.close()


def _head(*words: str) -> None:
    print(f"| {' | '.join(words)} |\n|{' --- |' * len(words)}", flush=True)


def _padded_share(path: Path, goal: float, run: Run) -> float:
    """Return the time on the machine that pads of what a prune leaves."""
    return padded.milliseconds(onnxprune.prune(path, latency=goal, compensate="none", run=run).model.proto)


if __name__ == "__main__":
    main()
