"""Speed of the core: analysis, the whole command, start-up, and growth with the number of nodes.

    python benchmarks/core_speed.py [--no-peers] [--repeat 5]

Every command runs in a process of its own on one thread; CPU seconds count, the best of the repeats. onnxsim runs in
the same call where it is installed. Exit code 1 if a target of the project is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models import zoo
from onnxprune.channels.analyse import analyse

LOAD_SAVE = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
ONNXSIM = (
    "import sys, onnx, onnxsim; model, _ = onnxsim.simplify(onnx.load(sys.argv[1]));"
    "onnx.save(onnxsim.apply_structured_pruning(model, 0.4), sys.argv[2])"
)


def cpu_seconds(command: list[str], repeat: int) -> tuple[float, float]:
    """Return the least CPU and wall-clock seconds of a process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    best_cpu, best_wall = np.inf, np.inf
    for _ in range(repeat):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best_wall = min(best_wall, time.perf_counter() - start)
        best_cpu = min(best_cpu, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return best_cpu, best_wall


def analysis_seconds(proto: onnx.ModelProto, repeat: int) -> float:
    """Return the least CPU seconds of trace and channels."""
    model = onnxprune.load(proto)
    best = np.inf
    for _ in range(repeat):
        start = time.process_time()
        analyse(model)
        best = min(best, time.process_time() - start)
    return float(best)


def residual_network(nodes: int) -> onnx.ModelProto:
    """Return a chain of residual blocks with about so many nodes."""
    random = np.random.default_rng(0)
    weights: list[TensorProto] = []

    def stored(name: str, *shape: int) -> str:
        weights.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
        return name

    made = [helper.make_node("Conv", ["x", stored("w", 16, 3, 3, 3)], ["h0"], pads=[1] * 4)]
    block = 0
    while len(made) < nodes - 3:
        one, two = (stored(f"{w}{block}", 16, 16, 3, 3) for w in "ab")
        made += [
            helper.make_node("Conv", [f"h{block}", one, stored(f"c{block}", 16)], [f"p{block}"], pads=[1] * 4),
            helper.make_node("Relu", [f"p{block}"], [f"q{block}"]),
            helper.make_node("Conv", [f"q{block}", two, stored(f"d{block}", 16)], [f"r{block}"], pads=[1] * 4),
            helper.make_node("Add", [f"r{block}", f"h{block}"], [f"s{block}"]),
            helper.make_node("Relu", [f"s{block}"], [f"h{block + 1}"]),
        ]
        block += 1
    made += [
        helper.make_node("GlobalAveragePool", [f"h{block}"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", stored("head", 16, 10)], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(made, "chain", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def growth(repeat: int) -> float:
    """Print analysis seconds against nodes; return the slope between the largest sizes on a log-log scale."""
    sizes = [10, 100, 1000, 5000, 20000]
    seconds = []
    for size in sizes:
        seconds.append(analysis_seconds(residual_network(size), repeat if size <= 1000 else 2))
        print(f"  {size:6d} nodes  {seconds[-1]:8.3f} s  {1e6 * seconds[-1] / size:7.0f} us a node")
    return float(np.polyfit(np.log(sizes[2:]), np.log(seconds[2:]), 1)[0])


def main() -> int:
    """Measure, print, and tell whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-peers", action="store_true", help="leave onnxsim out")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "resnet50.onnx", Path(folder) / "out.onnx"
        onnx.save(zoo.build("resnet50"), source)
        files, python = [str(source), str(output)], sys.executable
        base, _ = cpu_seconds([python, "-c", LOAD_SAVE, *files], options.repeat)
        prune = [
            python,
            "-m",
            "onnxprune.cli",
            "prune",
            files[0],
            "-o",
            files[1],
            "--no-verify",
            "--compensate",
            "none",
            "-q",
            "--ratio",
            "0.4",
        ]
        ours, _ = cpu_seconds(prune, options.repeat)
        peer = None
        if not options.no_peers and importlib.util.find_spec("onnxsim"):
            peer, _ = cpu_seconds([python, "-c", ONNXSIM, *files], min(2, options.repeat))
    start_up, waited = cpu_seconds([python, "-m", "onnxprune.cli", "--help"], options.repeat)
    analysis = analysis_seconds(zoo.build("resnet50"), options.repeat)
    print("analysis time against the number of nodes")
    slope = growth(options.repeat)
    rows = [
        ("analysis of resnet50, CPU s", analysis, 0.2),
        ("whole command on resnet50 / (onnx.load + onnx.save)", ours / base, 3.0),
        ("exponent of the growth with nodes", slope, 1.15),
        ("onnxprune --help, CPU s", start_up, 0.3),
    ]
    print(f"onnx.load + onnx.save of resnet50, process      {base:6.2f} CPU s")
    print(f"onnxprune prune --ratio 0.4, core alone           {ours:6.2f} CPU s")
    print(f"onnxprune --help                                {waited:6.2f} s on the clock")
    if peer is not None:
        print(f"onnxsim simplify + apply_structured_pruning     {peer:6.2f} CPU s")
    for name, value, target in rows:
        print(f"{name:52s} {value:6.3f}  target {target:5.2f}  {'met' if value <= target else 'MISSED'}")
    return int(any(value > target for _, value, target in rows))


if __name__ == "__main__":
    sys.exit(main())
