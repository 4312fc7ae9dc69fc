"""Widths, branches, and both: what is left of latency and accuracy.

    python benchmarks/depth_table.py MODEL --data calib.npz --eval eval.py:evaluate --latency 0.9 0.8 --drop NAME ..

The function gets the path of a model and returns its accuracy. Every row is a prune with the default recovery.
Latencies are measured on one thread, in turns with the original.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import onnxprune
from onnxprune import Run
from onnxprune.graph.model import load
from onnxprune.job.gates import Gates
from onnxprune.methods.latency_target import time_both
from onnxprune.methods.runtime import Runtime


def row(label: str, given: argparse.Namespace, **options: Any) -> None:
    """Print one line of the table."""
    target = Path(f"/tmp/depth-{Path(given.model).stem}.onnx")
    try:
        result = onnxprune.prune(given.model, given.data, run=Run(threads=1), **options)
    except onnxprune.NothingToPruneError as error:
        print(f"| {label} | - | - | {str(error)[:60]} |", flush=True)
        return
    onnxprune.save(result.model, target)
    share = time_both(load(given.model), result.model, 1.0, None, Runtime(threads=1)).share
    function = Gates(eval=given.eval).function()
    value = function(str(target)) if function is not None else float("nan")
    print(f"| {label} | {share:.3f} | {value:.4f} | {', '.join(result.plan.dropped) or '-'} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--latency", type=float, nargs="*", default=[])
    parser.add_argument("--drop", nargs="*", default=[])
    given = parser.parse_args()
    print("| what | latency | accuracy | branches dropped |\n| --- | --- | --- | --- |")
    if given.drop:
        row("named branches", given, drop=given.drop)
    for share in given.latency:
        row(f"{share:g}, widths", given, latency=share)
        row(f"{share:g}, widths and branches", given, latency=share, depth=True)


if __name__ == "__main__":
    main()
