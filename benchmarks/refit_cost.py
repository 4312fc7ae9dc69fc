"""What a prune with data costs: CPU seconds of every stage, peak memory, and the growth over samples.

    python benchmarks/refit_cost.py                                ResNet-50 at 224 x 224: 32, 64 and 128 samples
    python benchmarks/refit_cost.py --network resnet18 --samples 16 32
    python benchmarks/refit_cost.py --demand macs=0.5 --samples 128

The refit is that by least squares. Random weights and random samples: the cost does not depend on their values. Every
run is a process of its own on one thread with an empty cache. Exit code 1 if 128 samples of ResNet-50 take more than
240 CPU seconds or 6 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MOST_SECONDS, MOST_GB = 240.0, 6.0
STAGES = ("analyse", "score", "allocate", "rewrite", "compensate")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--samples", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--demand", default="ratio=0.3", help="option=value of a prune")
    parser.add_argument("--memory", type=float, default=0.0, help="bound in GB")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one:
        print(json.dumps(measure(wanted.network, wanted.one, wanted.demand, wanted.memory)))
        return 0
    print(f"{wanted.network} --{wanted.demand}, CPU seconds on one thread")
    print("samples  " + "".join(f"{stage:>11}" for stage in STAGES) + "      whole   peak GB")
    found = {}
    for samples in wanted.samples:
        found[samples] = child(wanted, samples)
        stages = "".join(f"{found[samples].get(stage, 0.0):11.1f}" for stage in STAGES)
        print(f"{samples:7}  {stages}{found[samples]['whole']:11.1f}{found[samples]['peak_gb']:10.2f}", flush=True)
    growth(found)
    last = found.get(128) if wanted.network == "resnet50" else None
    return int(last is not None and (last["whole"] > MOST_SECONDS or last["peak_gb"] > MOST_GB))


def growth(found: dict[int, dict[str, float]]) -> None:
    """Print by which power of the number of samples the whole time grows."""
    counts = sorted(found)
    if len(counts) > 1:
        seconds = [found[count]["whole"] for count in counts]
        slope = np.polyfit(np.log(counts), np.log(seconds), 1)[0]
        print(f"time grows with the {slope:.2f}th power of the samples (1: linear)")


def child(wanted: argparse.Namespace, samples: int) -> dict[str, float]:
    """Measure in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "ONNXPRUNE_CACHE": cache, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, __file__, "--one", str(samples), "--network", wanted.network]
        command += ["--demand", wanted.demand, "--memory", str(wanted.memory)]
        done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(network: str, samples: int, demand: str, memory: float) -> dict[str, float]:
    """Return the CPU seconds of the stages of one prune, of all of them, and the peak memory of the process."""
    import onnxprune
    from models import zoo
    from onnxprune.methods import prune as room
    from onnxprune.methods.calibration import calibration
    from onnxprune.methods.choice import Clock
    from onnxprune.methods.runtime import Runtime

    model = onnxprune.load(zoo.build(network))
    (value,) = model.proto.graph.input
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    draw = np.random.default_rng(0).standard_normal((samples, *shape[1:]), dtype=np.float32)
    data = calibration(model, {value.name: draw}, samples)
    room.Clock = partial(Clock, timer=time.process_time)  # type: ignore[misc, assignment]
    room.turned_if_few = lambda given: given  # copies of few images would hide the growth
    name, number = demand.split("=")
    options = onnxprune.PruneOptions.of(
        **{name: float(number)}, memory=int(memory * (1 << 30)) or None, compensate="lstsq"
    )
    start = time.process_time()
    result = room.prune(model, options, data, runtime=Runtime(1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    for warning in result.warnings:
        print("warning:", warning, file=sys.stderr)
    return {**result.seconds, "whole": time.process_time() - start, "peak_gb": peak}


if __name__ == "__main__":
    sys.exit(main())
