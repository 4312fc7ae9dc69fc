"""Static int8 by default against onnxruntime's quantize_static in the same run: points lost, size, CPU seconds, time.

python benchmarks/static_table.py FOLDER|GRAPH..    # python benchmarks/static_table.py models/magika resnet50

A folder has model.onnx, eval.py (prints JSON with "value"; a share, or dB) and calib.npz. A graph is one of the zoo:
its weights are random, so only size and times say something. "time" is the share of the float model's, in turns, one
thread. Where onnxprune finds that int8 gains nothing here, its line says so instead (exit code 4).
"""

from __future__ import annotations

import compileall
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.quantize_table import COMMAND, run
from models import zoo
from onnxprune.evidence.bench import bench

THEIRS = """
import importlib.util, sys, numpy as np, onnxruntime
from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static
source, prepared, target, data = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
ports = {p.name: len(p.shape) for p in onnxruntime.InferenceSession(source, options).get_inputs()}
class Reader(CalibrationDataReader):
    def __init__(self):
        with np.load(data) as arrays:
            given = {name: arrays[name] for name in ports}
        self.feeds = iter([{name: np.asarray(array[i]) if array.ndim > ports[name] else array[i : i + 1]
                            for name, array in given.items()} for i in range(len(next(iter(given.values()))))])
    def get_next(self):
        return next(self.feeds, None)
quant_pre_process(source, prepared, skip_symbolic_shape=importlib.util.find_spec("sympy") is None)
quantize_static(prepared, target, Reader())
"""
SAMPLES = 32
"""Random images for a graph of the zoo."""


def value(folder: Path | None, model: Path) -> float:
    """Return the network's own metric; NaN where there is none."""
    if folder is None:
        return float("nan")
    done = subprocess.run([sys.executable, folder / "eval.py", model], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["value"])


@contextmanager
def opened(name: str) -> Iterator[tuple[Path | None, Path, Path]]:
    """Yield the folder with a metric, the model and its data."""
    if Path(name, "model.onnx").exists():
        yield Path(name), Path(name, "model.onnx"), Path(name, "calib.npz")
        return
    with tempfile.TemporaryDirectory() as place:
        source, data, proto = Path(place) / "model.onnx", Path(place) / "data.npz", zoo.build(name)
        onnx.save(proto, source)
        images = np.random.default_rng(0).standard_normal((SAMPLES, 3, 224, 224)).astype(np.float32)
        np.savez(data, **{proto.graph.input[0].name: images})
        yield None, source, data


def rows(folder: Path | None, source: Path, data: Path, name: str) -> None:
    """Print one line a way."""
    base = value(folder, source)
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "out.onnx"
        ours = [*COMMAND, str(source), "--mode", "static", "--data", str(data), "--threads", "1", "-q", "-o"]
        theirs = [sys.executable, "-c", THEIRS, str(source), f"{place}/p.onnx", str(target), str(data)]
        for way, command in (("onnxprune", [*ours, str(target)]), ("onnxruntime", theirs)):
            target.unlink(missing_ok=True)
            seconds, _, error = run(command)
            if error or not target.exists():
                print(f"{name:20} {way:12} {'-':>7} {'-':>5} {seconds:6.1f} {'-':>5} {error[:90]}", flush=True)
                continue
            lost, size = base - value(folder, target), target.stat().st_size / source.stat().st_size
            before, after = bench([source, target], threads=1).values()
            times = f"{after.median_ms / before.median_ms:5.2f} {after.p10_ms / before.p10_ms:12.2f}"
            print(f"{name:20} {way:12} {lost:7.4f} {size:5.2f} {seconds:6.1f} {times}", flush=True)


def main(names: list[str]) -> None:
    """Print two lines a network."""
    compileall.compile_dir(ROOT / "onnxprune", quiet=1)  # as an installed package is
    print(f"{'network':20} {'way':12} {'lost':>7} {'size':>5} {'CPU s':>6} {'time':>5} {'fast tenth':>12}")
    for name in names:
        with opened(name) as (folder, source, data):
            rows(folder, source, data, Path(name).name)


if __name__ == "__main__":
    main(sys.argv[1:])
