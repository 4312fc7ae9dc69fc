"""python -m tests.kills [--number N] [--seed S]: prints what is wrong, exits with 1 if anything is.

Every run ends prune, tune with workers, or a recipe by SIGKILL, SIGTERM, SIGHUP or SIGINT, sent to the process or to
its whole group, after a random share of the time that the command takes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import yaml

from onnxprune.files import owner
from tests import networks

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
SECONDS = 2.0
"""So soon everything must have ended."""

COMMANDS = {
    "prune": "prune net.onnx --data data.npz --compensate lstsq -o out.onnx --plan plan.json --report report.json",
    "tune": "tune net.onnx --data data.npz --min-cosine 0.5 --workers 2 -o out.onnx --plan plan.json "
    "--report report.json --compensate lstsq --step 0.3 --finest 0.15",
    "run": "run recipe.yaml",
}
GRACE_SECONDS = 3.0
"""A child of a killed command ends by itself within this; what belongs to the living is not swept."""
STEPS = [{"prune": {"ratio": 0.5, "compensate": "lstsq"}}, {"quantize": {"mode": "fp16"}}]
RECIPE = {
    "model": "net.onnx",
    "data": "data.npz",
    "steps": STEPS,
    "outputs": {"output": "out.onnx", "plan": "plan.json", "report": "report.json"},
}
MARK = "ONNXPRUNE_KILL_MARK"


def prepare(folder: Path) -> None:
    """Write the inputs."""
    networks.store(networks.convnet(), folder / "net.onnx")
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((64, 3, 12, 12)).astype(np.float32))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "tmp").mkdir()


def old_outputs(folder: Path) -> dict[str, bytes]:
    """Write what stands where outputs go, and return it; what a run before was killed with is out of the way."""
    for place in (folder, folder / "tmp"):
        for path in place.glob("*onnxprune-*"):
            owner.remove_own(path)
    old = {"out.onnx": (folder / "net.onnx").read_bytes(), "plan.json": b"{}", "report.json": b"{}"}
    for name, content in old.items():
        (folder / name).write_bytes(content)
    for path in folder.glob("*.tune.json"):
        path.unlink()
    return old


def start(folder: Path, command: str, mark: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, with a mark by which all of its processes are known."""
    surroundings = os.environ | {"TMPDIR": str(folder / "tmp"), "ONNXPRUNE_CACHE": "off", MARK: mark}
    surroundings["PYTHONPATH"] = str(Path(__file__).parents[2])
    words = [sys.executable, "-m", "onnxprune", *COMMANDS[command].split(), "-q"]
    return subprocess.Popen(
        words, cwd=folder, env=surroundings, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def marked(mark: str) -> Iterator[int]:
    """Yield the processes that carry a mark."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            if not dead and wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except (OSError, IndexError):
            continue


def attempt(folder: Path, command: str, number: signal.Signals, group: bool, seconds: float, mark: str) -> list[str]:
    """End a command after a time and return what is wrong."""
    old = old_outputs(folder)
    process = start(folder, command, mark)
    time.sleep(seconds)
    running = process.poll() is None
    if running:
        (os.killpg if group else os.kill)(process.pid, number)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=60)
    while (rest := list(marked(mark))) and time.monotonic() - begun < 2 * SECONDS:
        time.sleep(0.02)
    took = time.monotonic() - begun
    wrong = []
    if rest:
        wrong.append(f"{len(rest)} processes live on")
    if took > SECONDS and running:
        wrong.append(f"took {took:.1f} s to end")
    if "Traceback" in errors or len([line for line in errors.splitlines() if line.startswith("error")]) > 1:
        wrong.append(f"says {errors[-300:]!r}")
    return wrong + looked_at(folder, old, number)


def looked_at(folder: Path, old: dict[str, bytes], number: signal.Signals) -> list[str]:
    """Return what is wrong with the files that are there now."""
    wrong = []
    now = {name: (folder / name).read_bytes() for name in old}
    changed = [name for name in old if now[name] != old[name]]
    if changed and len(changed) != len(old) and number != signal.SIGKILL:
        wrong.append(f"only {changed} are new")
    if "out.onnx" in changed:
        onnx.checker.check_model(onnx.load_from_string(now["out.onnx"]))
        if len(changed) != len(old):
            wrong.append("the model is new, what describes it is not")
    for name in ("plan.json", "report.json"):
        json.loads(now[name])
    drafts = [str(path.name) for place in (folder, folder / "tmp") for path in place.glob("*onnxprune-*")]
    if drafts and number != signal.SIGKILL:
        wrong.append(f"left {drafts}")
    return wrong


def swept(folder: Path) -> list[str]:
    """Kill a search with everything it has, run another command to its end, and return what is left of both."""
    old_outputs(folder)
    process = start(folder, "tune", "killed")
    while process.poll() is None and not list((folder / "tmp").glob("*onnxprune-*")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    owners = {path.name.split("-")[2] for path in (folder / "tmp").glob("*onnxprune-*")}
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until and any(Path(f"/proc/{owner}").exists() for owner in owners):
        time.sleep(0.05)
    process = start(folder, "prune", "last")
    _, errors = process.communicate(timeout=300)
    drafts = [path.name for place in (folder, folder / "tmp") for path in place.glob("*onnxprune-*")]
    return [f"a run to the end left {drafts} {errors}"] if drafts or process.returncode else []


def main() -> int:
    """End commands and print what is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rng = np.random.default_rng(chosen.seed)
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        times = {}
        for command in COMMANDS:
            old_outputs(folder)
            begun = time.monotonic()
            _, errors = start(folder, command, "first").communicate(timeout=300)
            times[command] = time.monotonic() - begun
            assert not errors.count("error"), errors
        for turn in range(chosen.number):
            command = list(COMMANDS)[turn % len(COMMANDS)]
            number, group = SIGNALS[int(rng.integers(len(SIGNALS)))], bool(rng.integers(2))
            seconds = float(rng.random() * times[command])
            wrong = attempt(folder, command, number, group, seconds, f"{chosen.seed}-{turn}")
            if wrong:
                faults += 1
                whom = "group" if group else "process"
                print(f"{turn}: {command}, {number.name} to the {whom} after {seconds:.2f} s: {'; '.join(wrong)}")
        wrong = swept(folder)
        faults += bool(wrong)
        print(*wrong, sep="\n", end="")
    print(f"{chosen.number} kills, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
