"""Quantization in figures, against onnxruntime.quantization as it comes, in the same run.

python benchmarks/quantize_table.py accuracy     # trained networks, 10,000 test images, gate --min-agreement 0.99
python benchmarks/quantize_table.py static       # resnet50, 32 samples: CPU seconds and peak memory of both
python benchmarks/quantize_table.py latency      # resnet50 and mobilenet_v2: float, pruned, int8, both, in turns
python benchmarks/quantize_table.py zoo          # 36 graphs: dynamic, static, sparsify 2:4, factorize 0.5
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models import zoo
from models.eval import evaluate

COMMAND = [sys.executable, "-m", "onnxprune", "quantize"]
NETWORKS = ("fm_rnn/model", "fm_vit/model", "fm_resnet20/model", "fm_resnet20/model_bn", "fm_mbv2/model")

THEIRS_STATIC = """
import importlib.util, sys, numpy as np
from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static
source, prepared, target, data = sys.argv[1:]
class Reader(CalibrationDataReader):
    def __init__(self):
        with np.load(data) as arrays:
            name = next(key for key in arrays.files if not key.startswith("_"))
            self.feeds = iter([{name: arrays[name][i : i + 1]} for i in range(len(arrays[name]))])
    def get_next(self):
        return next(self.feeds, None)
quant_pre_process(source, prepared, skip_symbolic_shape=importlib.util.find_spec("sympy") is None)
quantize_static(prepared, target, Reader())
"""
THEIRS_DYNAMIC = """
import sys
from onnxruntime.quantization import quantize_dynamic
quantize_dynamic(sys.argv[1], sys.argv[3])
"""


def run(command: list[str]) -> tuple[float, float, str]:
    """Run a command; return its CPU seconds, its peak memory in GB, and the last line of an error ("" if none)."""
    script = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "lines = [l for l in done.stderr.splitlines() if l.strip()]\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss, done.returncode)\n"
        "print(lines[-1] if lines and done.returncode else '')\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    shown = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, env=environment, check=True
    ).stdout.splitlines()
    seconds, memory, code = shown[0].split()
    return float(seconds), float(memory) / 1e6, shown[1] if int(code) else ""


def accuracy(images: int) -> None:
    """Print accuracy and size of float, onnxruntime's defaults, and onnxprune with a gate."""
    print(f"{'network':22} {'method':30} {'accuracy':>8} {'lost':>6} {'size':>6} {'CPU s':>6}  note")
    for name in NETWORKS:
        source = ROOT / "models" / "trained" / f"{name}.onnx"
        data = zoo.calibration(source)
        base = evaluate(source, images)
        print(f"{name:22} {'float':30} {base:8.4f} {0:6.2f} {1:6.2f}", flush=True)
        for label, command in _ways(source, data):
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "out.onnx"
                seconds, _, error = run(
                    [word.replace("{folder}", folder).replace("{target}", str(target)) for word in command]
                )
                if error or not target.exists():
                    print(f"{'':22} {label:30} {'-':>8} {'-':>6} {'-':>6} {seconds:6.1f}  {error[:90]}", flush=True)
                    continue
                size = target.stat().st_size / source.stat().st_size
                reached = evaluate(target, images)
            lost = 100 * (base - reached)
            print(f"{'':22} {label:30} {reached:8.4f} {lost:6.2f} {size:6.2f} {seconds:6.1f}", flush=True)


def _ways(source: Path, data: Path) -> list[tuple[str, list[str]]]:
    ours = [*COMMAND, str(source), "--threads", "1", "--no-latency", "-q", "-o", "{target}"]
    theirs = [str(source), "{folder}/prepared.onnx", "{target}", str(data)]
    gate = ["--data", str(data), "--min-agreement", "0.99"]
    return [
        ("onnxruntime dynamic", [sys.executable, "-c", THEIRS_DYNAMIC, *theirs]),
        ("onnxruntime static", [sys.executable, "-c", THEIRS_STATIC, *theirs]),
        ("onnxprune --min-agreement 0.99", [*ours, *gate]),
        ("onnxprune dynamic", [*ours, "--mode", "dynamic"]),
        ("onnxprune static", [*ours, "--mode", "static", "--data", str(data)]),
        ("onnxprune weight-only 4 bits", [*ours, "--mode", "weight-only"]),
        ("onnxprune fp16", [*ours, "--mode", "fp16"]),
    ]


def static(samples: int, repeat: int) -> None:
    """Print CPU seconds and peak memory of static quantization of resnet50."""
    with tempfile.TemporaryDirectory() as folder:
        source, data = Path(folder) / "resnet50.onnx", Path(folder) / "data.npz"
        proto = zoo.build("resnet50")
        onnx.save(proto, source)
        images = np.random.default_rng(0).standard_normal((samples, 3, 224, 224)).astype(np.float32)
        np.savez(data, **{proto.graph.input[0].name: images})
        theirs = [sys.executable, "-c", THEIRS_STATIC, str(source), f"{folder}/p.onnx", f"{folder}/t.onnx", str(data)]
        ours = [*COMMAND, str(source), "--mode", "static", "--data", str(data), "-o", f"{folder}/o.onnx"]
        ours += ["-q", "--no-latency"]
        ways = {"onnxruntime": theirs, "onnxprune --no-verify": [*ours, "--no-verify"], "onnxprune, verified": ours}
        base = (0.0, 0.0)
        for name, way in ways.items():
            runs = [run(way) for _ in range(repeat)]
            seconds, memory = min(r[0] for r in runs), min(r[1] for r in runs)
            base = base if any(base) else (seconds, memory)
            shares = f"{seconds / base[0]:.2f} {memory / base[1]:.2f}"
            print(f"{name:22} {seconds:6.1f} CPU s {memory:6.2f} GB  {shares}  {runs[0][2]}", flush=True)


PRUNES = {"pruned 40 %": [], "pruned 40 %, --align 16": ["--align", "16"]}


def latency(names: list[str], runs: int) -> None:
    """Print the time of one sample on one thread, all ways in turns, as shares of the float original's.

    Weights are random: only the structure counts. The second share compares the times that a tenth of the
    runs stays below, which a busy machine disturbs least.
    """
    for name in names or ["resnet50", "mobilenet_v2"]:
        with tempfile.TemporaryDirectory() as folder:
            files = {"float": Path(folder) / "float.onnx"}
            onnx.save(zoo.build(name), files["float"])
            for way, options in PRUNES.items():
                files[way] = _made(files["float"], folder, "prune", "--ratio", "0.4", "--no-verify", *options)
            for way, file in list(files.items()):
                label = "int8" if way == "float" else f"{way}, then int8"
                files[label] = _made(
                    file, folder, "quantize", "--mode", "static", "--samples", "4", "--no-verify", "--no-latency"
                )
            command = [*COMMAND[:-1], "bench", *map(str, files.values()), "--threads", "1", "--runs", str(runs)]
            shown = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
            timings = list(json.loads(shown)["latency"].values())
        for way, timing in zip(files, timings, strict=True):
            median, fast = timing["median_ms"], timing["p10_ms"]
            shares = f"{median / timings[0]['median_ms']:.2f}  fastest tenth {fast / timings[0]['p10_ms']:.2f}"
            print(f"{name:16} {way:36} {median:7.2f} ms  {shares}", flush=True)


def _made(source: Path, folder: str, command: str, *options: str) -> Path:
    target = Path(folder) / f"{len(list(Path(folder).iterdir()))}.onnx"
    words = [*COMMAND[:-1], command, str(source), *options, "--threads", "1", "-q", "-o", str(target)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return target


WAYS: dict[str, list[str]] = {
    "dynamic": ["quantize", "--mode", "dynamic", "--no-latency"],
    "static": ["quantize", "--mode", "static", "--no-latency"],
    "sparsify": ["sparsify", "--pattern", "2:4"],
    "factorize": ["factorize", "--params", "0.5"],
}
REFUSED = (2, 4)
"""Exit codes of a refusal, which has its reason in one line."""


def whole_zoo(names: list[str]) -> None:
    """Print for every structure-only graph whether each method's result runs, with the original's shapes.

    Original and result run in onnxruntime on two random samples; at the end stand the counts of each method.
    """
    counts = {way: {"run": 0, "refused": 0, "shapes differ": 0, "FAILED": 0} for way in WAYS}
    for name in names or zoo.names():
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.onnx"
            onnx.save(zoo.build(name), source)
            for way in WAYS:
                outcome, shown = _through(source, way, Path(folder))
                counts[way][outcome] += 1
                print(f"{name:34} {way:9} {outcome:13} {shown}", flush=True)
    for way, found in counts.items():
        print(f"{way}: {', '.join(f'{count} {outcome}' for outcome, count in found.items() if count)}")


def _through(source: Path, way: str, folder: Path) -> tuple[str, str]:
    """Return what became of one graph, and its figures or the reason."""
    report, target, start = folder / "report.json", folder / "out.onnx", time.perf_counter()
    command = [*COMMAND[:-1], *WAYS[way], "--samples", "2", "--threads", "1", "--report", str(report), "-q"]
    done = subprocess.run(
        [*command[:4], str(source), *command[4:], "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    seconds = f"{time.perf_counter() - start:6.1f} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return "refused" if done.returncode in REFUSED else "FAILED", f"{seconds}  {lines[-1][:150]}"
    found = json.loads(report.read_text())
    size = found["output"]["bytes"] / found["input"]["bytes"]
    target.unlink()
    if not found["parity"]:
        return "FAILED", f"{seconds}  not run: {'; '.join(found['warnings'])[:150]}"
    if not all(found["parity"].values()):
        return "shapes differ", f"{seconds}  {[name for name, values in found['parity'].items() if not values]}"
    noise = min(values["sqnr_db"] for values in found["parity"].values())
    return "run", f"{seconds}  size {size:.2f}, SQNR {noise:.1f} dB"


def main() -> None:
    """Run one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", choices=["accuracy", "static", "latency", "zoo"])
    parser.add_argument("names", nargs="*", help="graphs of the tables latency and zoo")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    tables: dict[str, Callable[[], None]] = {
        "accuracy": lambda: accuracy(options.images),
        "static": lambda: static(options.samples, options.repeat),
        "latency": lambda: latency(options.names, options.runs),
        "zoo": lambda: whole_zoo(options.names),
    }
    tables[options.table]()


if __name__ == "__main__":
    main()
