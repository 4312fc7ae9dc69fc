"""What effort brings back: `python benchmarks/recovery_table.py [--only resnet] [--effort quick,default,thorough,5m]`.

Fashion-MNIST networks of `models/trained`, unlabeled images (the 512 of `models/data`, or `--data FILE` with more),
10,000 test images, which nothing is chosen on. `2:4` rows are improved by `finetune`; `nonzero` is the share of its
matrix weights that are not zero. Seconds are of the processor, in this process. With `--labels FILE` (of `--data`) two
rows follow each cut: `finetune` of what the first effort gives with the last one, without them and with them. What is
being done goes to the standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models.eval import evaluate

ROWS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("fm_resnet20", "30 %", "prune", {"ratio": 0.3, "align": 1}),
    ("fm_resnet20", "macs 0.25", "prune", {"macs": 0.25}),
    ("fm_mbv2", "macs 0.28", "prune", {"macs": 0.28}),
    ("fm_vit", "50 % of MLP and heads", "prune", {"ratio": 0.5, "only": ("*/fc1/*", "*/head")}),
    ("fm_resnet20", "2:4", "sparsify", {"pattern": "2:4"}),
)


def main() -> None:
    """Print one row for each network and effort."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose network or cut contains this")
    parser.add_argument("--effort", default="quick,default", help="between commas")
    parser.add_argument("--data", type=Path, default=ROOT / "models" / "data" / "fmnist_calib.npz")
    parser.add_argument("--labels", type=Path, help="of the data: .npy, .csv or file.npz:KEY")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=1, help="the median of so many is shown")
    options = parser.parse_args()
    print("| network | cut | effort | top-1 | lost | nonzero | distance before, after | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for network, cut, method, choices in ROWS:
        if options.only not in f"{network} {cut}":
            continue
        path = ROOT / "models" / "trained" / network / "model.onnx"
        base, efforts = evaluate(path, options.images), options.effort.split(",")
        line = partial(show, options, f"{network} ({base:.4f}) | {cut}", base)
        cuts = [
            line(effort, partial(getattr(onnxprune, method), path, options.data, effort=effort, **choices))
            for effort in efforts
        ]
        if options.labels:
            again = partial(onnxprune.finetune, path, cuts[0].model, options.data, effort=efforts[-1])
            line(f"{efforts[0]}, {efforts[-1]}", again)
            line(f"{efforts[0]}, {efforts[-1]} with labels", partial(again, labels=options.labels))


def show(options: argparse.Namespace, name: str, base: float, effort: str, work: Callable[..., Any]) -> Any:
    """Print the row of a command, and return its result of the median seed."""
    found = [measured(work, seed, options) for seed in range(options.seeds)]
    top, seconds, result = sorted(found, key=lambda item: item[0])[len(found) // 2]
    lost, left = 100 * (base - top), nonzero(result.model.proto)
    figures = f"{top:.4f} | {lost:.2f} | {left:.2f} | {distances(result)} | {seconds:.0f}"
    print(f"| {name} | {effort} | {figures} |", flush=True)
    return result


def measured(work: Callable[..., Any], seed: int, options: argparse.Namespace) -> tuple[float, float, Any]:
    """Return the accuracy, the CPU seconds and the result of a command."""
    run, start = onnxprune.Run(threads=1, samples=options.samples, seed=seed), time.process_time()
    result = work(run=run, progress=lambda text: print(text, file=sys.stderr, flush=True))
    seconds = time.process_time() - start
    return evaluate(result.model.proto.SerializeToString(), options.images), seconds, result


def distances(result: Any) -> str:
    """Return the held-out distances before and after steps."""
    steps = result.report.details.get("compensation", {}).get("distance") or result.report.details.get("finetune")
    return f"{steps['before']:.3f}, {steps['after']:.3f}" if steps else "-"


def nonzero(proto: onnx.ModelProto) -> float:
    """Return the share of the weights of matrices and convolutions that are not zero."""
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if len(tensor.dims) > 1]
    return float(sum(np.count_nonzero(a) for a in arrays) / sum(a.size for a in arrays))


if __name__ == "__main__":
    main()
