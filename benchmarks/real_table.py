"""Real trained networks with the defaults, whole commands: what is lost, CPU seconds, wall seconds, memory.

    python benchmarks/real_table.py --networks FOLDER                  folders with model.onnx, calib.npz and eval.py
    python benchmarks/real_table.py --networks FOLDER --only magika
    python benchmarks/real_table.py --networks FOLDER --samples 384 --extra --compensate lstsq

Every row is one command in a process of its own, two threads, on the unlabeled samples of the network; what it writes
is then judged by the network's own `eval.py` (`evaluate(path) -> {"value": ..}`). CPU seconds are those of the command
with all its threads, start included; a target that is missed is marked with `!`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
JUDGE = "import json, sys; sys.path.insert(0, sys.argv[1]); import eval; print(json.dumps(eval.evaluate(sys.argv[2])))"
README = ("--eval", str(ROOT / "models" / "eval.py") + ":evaluate")


@dataclass(frozen=True)
class Row:
    """A demand on a network. lost, seconds, wall: at most; unit: what one point of the metric is."""

    network: str
    arguments: tuple[str, ...]
    lost: float
    seconds: float
    wall: float | None = None
    points: float = 100.0
    extra: tuple[str, ...] = ()


ROWS = (
    Row("fm_resnet20", ("--ratio", "0.3"), 0.9, 60, wall=40, extra=README),
    Row("fm_resnet20", ("--macs", "0.25"), 1.4, 60),
    Row("fm_mbv2", ("--macs", "0.28"), 0.95, 60),
    Row("fm_rnn", ("--ratio", "0.3"), 0.3, 60),
    Row("fm_vit", ("--ratio", "0.3"), 0.6, 60),
    Row("magika", ("--params", "0.6"), 0.5, 120),
    Row("nsnet2", ("--ratio", "0.3"), 0.10, 120, points=1.0),
    Row("silero_vad_ifless", ("--ratio", "0.25"), 1.0, 60),
    Row("silero_vad_seq", ("--macs", "0.6"), 1.0, 60),
    Row("ocr_cls", ("--macs", "0.6"), 1.0, 120),
)
UNROLLED = Row("crnn", ("--ratio", "0.3"), 5.0, 120)
"""Made here, with random weights: 24 Conv and two bidirectional LSTMs of 256 written out over 20 steps, whose Gemm
share four weights. What is lost is 100 times what the cosine to the original lacks."""
COSINE = """
import numpy, onnxruntime, pathlib
FOLDER = pathlib.Path(__file__).parent
def evaluate(path):
    x = numpy.load(FOLDER / "held.npy")
    a, b = (onnxruntime.InferenceSession(str(p)).run(None, {"x": x})[0].ravel() for p in (FOLDER / "model.onnx", path))
    return {"value": float(a @ b / numpy.sqrt((a @ a) * (b @ b)))}
"""


@dataclass(frozen=True)
class Ran:
    """What a command took and said."""

    code: int
    seconds: float
    wall: float
    memory: float
    steps: str
    message: str


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Real networks with the defaults.")
    parser.add_argument("--networks", type=Path, required=True, help="folder of folders with eval.py")
    parser.add_argument("--only", default="", help="part of 'NETWORK ARGUMENTS'")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="arguments of every command")
    wanted = parser.parse_args()
    heads = "| network, demand | lost | at most | CPU s | at most | wall s | at most | MB | gradient steps |"
    print(heads, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |", sep="\n", flush=True)
    for row in ROWS:
        if wanted.only in f"{row.network} {' '.join(row.arguments)}" and (wanted.networks / row.network).is_dir():
            print(line(row, wanted), flush=True)
    if wanted.only in f"{UNROLLED.network} {' '.join(UNROLLED.arguments)}":
        with tempfile.TemporaryDirectory() as place:
            wanted.networks = unrolled(Path(place))
            print(line(UNROLLED, wanted), flush=True)


def unrolled(place: Path) -> Path:
    """Write the recogniser with 128 samples and 32 others, and return the folder of its folder."""
    import numpy as np
    import onnx

    sys.path.insert(0, str(ROOT))
    from tests.crnn import crnn

    folder = place / UNROLLED.network
    folder.mkdir()
    samples = np.random.default_rng(0).standard_normal((160, 1, 32, 80)).astype(np.float32)
    onnx.save(crnn(), folder / "model.onnx")
    np.savez(folder / "calib.npz", x=samples[:128])
    np.save(folder / "held.npy", samples[128:])
    (folder / "eval.py").write_text(COSINE)
    return place


def line(row: Row, wanted: argparse.Namespace) -> str:
    """Run a row and return its line."""
    folder = wanted.networks / row.network
    name = f"{row.network} {' '.join(row.arguments)}"
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "pruned.onnx"
        extra = [*row.extra, "--samples", str(wanted.samples), "--threads", str(wanted.threads), *wanted.extra]
        ran = run([str(folder / "model.onnx"), *row.arguments, "--data", str(folder / "calib.npz"), *extra], output)
        if ran.code or not output.exists():
            return f"| {name} | exit {ran.code}: {ran.message} | | {ran.seconds:.0f} | {row.seconds:.0f} | | | | |"
        lost = row.points * (value(folder, folder / "model.onnx") - value(folder, output))
    cells = [
        within(lost, row.lost, ".2f"),
        f"{row.lost:g}",
        within(ran.seconds, row.seconds, ".0f"),
        f"{row.seconds:g}",
    ]
    cells += [within(ran.wall, row.wall, ".0f"), f"{row.wall:g}" if row.wall else "", f"{ran.memory:.0f}", ran.steps]
    return f"| {name} | {' | '.join(cells)} |"


def run(arguments: list[str], output: Path) -> Ran:
    """Run the command of this checkout and return what it took."""
    report = output.with_name("report.json")
    command = [sys.executable, str(ROOT / "cli.py"), *arguments, "-o", str(output), "--report", str(report)]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        said = child.stderr.read().strip().splitlines()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    return Ran(
        child.returncode, used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, steps_of(report, said),
        said[-1][:100] if said else "",
    )  # fmt: skip


def steps_of(report: Path, said: list[str]) -> str:
    """Return how many gradient steps were taken, or why none."""
    details = json.loads(report.read_text()) if report.exists() else {}
    distance = (details.get("compensation") or {}).get("distance")
    if distance:
        return f"{distance['steps']}: {distance['before']:.3g} to {distance['after']:.3g}"
    return next((text.split("refit: ")[-1][:90] for text in said if "gradient steps" in text), "none")


def value(folder: Path, model: Path) -> float:
    """Return the metric of a model, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, str(folder), str(model)], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1])["value"])


def within(found: float, most: float | None, form: str) -> str:
    """Return a number, marked where it is above what it may be."""
    return f"{found:{form}}" + (" !" if most is not None and found > most else "")


if __name__ == "__main__":
    main()
