"""Peak memory and time of the whole command on a made model of 2.5 GB with external data.

    python benchmarks/large_model.py [--gigabytes 2.5] [--folder DIR] [OPTION OF PRUNE ..]

The target: below 1 GB above the largest tensor. Peers on such a file: onnx-graphsurgeon 7.6 GB, onnx-ir 0.1 GB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 4096
TENSOR_BYTES = WIDTH * WIDTH * 4
MEGABYTE = 1 << 20
TARGET_BYTES = TENSOR_BYTES + (1 << 30)


def make(path: Path, size_bytes: int) -> None:
    """Write a chain of MatMul and Relu with a residual every second layer, streaming its weights into one data file."""
    layers = max(2, size_bytes // TENSOR_BYTES)
    random = np.random.default_rng(0)
    nodes, weights = [], []
    with path.with_suffix(".data").open("wb") as data:
        for layer in range(layers):
            weights.append(_outside(f"w{layer}", path.with_suffix(".data").name, data.tell()))
            for _ in range(16):
                chunk = random.standard_normal((WIDTH // 16, WIDTH), dtype=np.float32)
                data.write((chunk * np.float32(WIDTH**-0.5)).data)
            product, result = f"m{layer}", f"h{layer + 1}" if layer < layers - 1 else "y"
            nodes.append(helper.make_node("MatMul", [f"h{layer}" if layer else "x", f"w{layer}"], [product]))
            if layer % 2 and 2 < layer < layers - 1:
                nodes.append(helper.make_node("Add", [product, f"h{layer - 1}"], [result]))
            else:
                nodes.append(helper.make_node("Relu", [product], [result]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())


def _outside(name: str, location: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, dims=[WIDTH, WIDTH], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(TENSOR_BYTES))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def main() -> int:
    """Make the model, run the command, print what it took; 1 if it took more than the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.5)
    parser.add_argument("--folder", type=Path, help="where the files are made (and removed again)")
    options, prune = parser.parse_known_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        source, output = Path(name) / "large.onnx", Path(name) / "pruned.onnx"
        make(source, int(options.gigabytes * 1e9))
        command = [sys.executable, "-m", "onnxprune.cli", "prune", str(source), "-o", str(output), *prune]
        start = time.perf_counter()
        finished = subprocess.run(command, check=False)
        seconds = time.perf_counter() - start
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = usage.ru_maxrss * 1024
        if finished.returncode != 0:
            print(f"the command failed with exit code {finished.returncode}")
            return 1
        onnx.checker.check_model(output)
        before, after = (sum(p.stat().st_size for p in Path(name).glob(f"{stem}*")) for stem in ("large", "pruned"))
    print(f"model          {before / MEGABYTE:9.0f} MiB -> {after / MEGABYTE:.0f} MiB")
    print(f"peak memory    {peak / MEGABYTE:9.0f} MiB (target {TARGET_BYTES / MEGABYTE:.0f}: largest tensor + 1 GiB)")
    print(f"time           {seconds:9.1f} s, of CPU {usage.ru_utime + usage.ru_stime:.1f} s")
    return 0 if peak < TARGET_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
