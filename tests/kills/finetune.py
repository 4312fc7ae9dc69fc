"""python -m tests.kills.finetune [--number N] [--seed S]: kills finetune by SIGKILL, and starts the same command again.

After N kills at random moments it may end; what it writes must be, byte for byte, what a run that was never killed
writes. Prints what is wrong, exits with 1 if anything is.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import onnxprune
from tests import networks

WORDS = "finetune net.onnx small.onnx --data data.npz --threads 1 -q --no-provenance"


def prepare(folder: Path) -> None:
    """Write the inputs."""
    net = networks.store(networks.convnet(width=16), folder / "net.onnx")
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((96, 3, 12, 12)).astype(np.float32))
    onnxprune.save(onnxprune.prune(net, ratio=0.5, compensate="none").model, folder / "small.onnx")


def command(steps: int, output: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "onnxprune", *WORDS.split(), "--steps", str(steps), "-o", output, *more]


def killed(folder: Path, words: list[str], after: float) -> int | None:
    """Run a command and kill it after so many seconds; return its code if it ended before, else None."""
    process = subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        time.sleep(0.5)  # what it had started ends with it
        return None
    print(errors.decode(), end="", file=sys.stderr)
    return process.returncode


def check(number: int, seed: int, steps: int = 400) -> list[str]:
    """Return what is wrong after so many kills."""
    draw = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        start = time.monotonic()
        subprocess.run(command(steps, "whole.onnx"), cwd=folder, check=True)
        whole = time.monotonic() - start
        words = command(steps, "out.onnx", "--state", "run.state")
        kills = 0
        while kills < number:
            code = killed(folder, words, float(draw.uniform(0.05, 0.9)) * whole)
            if code is None:
                kills += 1
                if (folder / "out.onnx").exists():
                    (folder / "out.onnx").unlink()
            elif code:
                return [f"kill {kills}: the command ended with {code}"]
            else:
                (folder / "out.onnx").unlink()
        subprocess.run(words, cwd=folder, check=True)
        same = (folder / "out.onnx").read_bytes() == (folder / "whole.onnx").read_bytes()
        left = sorted(path.name for path in folder.iterdir() if path.name not in KNOWN)
        return [*([] if same else ["the result is another one"]), *([f"left behind: {left}"] if left else [])]


KNOWN = {"net.onnx", "small.onnx", "data.npz", "whole.onnx", "out.onnx"}


def main() -> int:
    """Kill as often as asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = check(options.number, options.seed)
    print("\n".join(wrong) or f"{options.number} kills: nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
