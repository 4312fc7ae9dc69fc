"""Widths, branches, and both: what is left of latency and accuracy.

    python benchmarks/depth_table.py MODEL --data calib.npz --eval eval.py:evaluate --latency 0.9 0.8 --drop NAME ..

The function gets the path of a model and returns its accuracy. Every row is a prune with the default recovery:
`widths` thinner layers alone, `branches` those that cost least for what they save, so many that the latency is reached,
nothing else, `both` as `--depth` chooses. Latencies are measured on one thread, in turns with the original.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from typing import Any

import onnxprune
from onnxprune import Run
from onnxprune.graph.model import load
from onnxprune.job.gates import Gates
from onnxprune.methods.branch_choice import BranchChoice
from onnxprune.methods.calibration import calibration
from onnxprune.methods.latency_target import time_both
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime

WAYS = ("widths", "branches", "both")


def row(label: str, given: argparse.Namespace, **options: Any) -> None:
    """Print one line of the table."""
    target = Path(f"/tmp/depth-{Path(given.model).stem}.onnx")
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        result = onnxprune.prune(given.model, given.data, run=Run(threads=1), **options)
    except onnxprune.NothingToPruneError as error:
        print(f"| {label} | - | - | - | {str(error)[:60]} |", flush=True)
        return
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    onnxprune.save(result.model, target)
    share = time_both(load(given.model), result.model, 1.0, None, Runtime(threads=1), effort=2).share
    function = Gates(eval=given.eval).function()
    value = function(str(target)) if function is not None else float("nan")
    value = value["value"] if isinstance(value, dict) else value
    instead = {one.total: one.kind for one in result.substitutes}
    dropped = ", ".join(result.plan.dropped) + (f" ({', '.join(instead.values())})" if instead else "")
    print(f"| {label} | {share:.3f} | {value:.4f} | {seconds:.0f} | {dropped or '-'} |", flush=True)


def branches(given: argparse.Namespace, goal: float) -> tuple[str, ...]:
    """Return the branches that cost least for what they save, so many that the latency is reached."""
    model = load(given.model)
    choice = BranchChoice(
        model, PruneOptions(latency=goal), calibration(model, given.data), Runtime(threads=1), lambda text: None
    )
    return choice.path()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--latency", type=float, nargs="*", default=[])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--drop", nargs="*", default=[])
    given = parser.parse_args()
    print("| what | latency | accuracy | CPU s | branches dropped |\n| --- | ---: | ---: | ---: | --- |")
    if given.drop:
        row("named branches", given, drop=given.drop)
    for share in given.latency:
        if "widths" in given.ways:
            row(f"{share:g}, widths", given, latency=share)
        if "branches" in given.ways:
            row(f"{share:g}, branches", given, drop=branches(given, share))
        if "both" in given.ways:
            row(f"{share:g}, both", given, latency=share, depth=True)


if __name__ == "__main__":
    main()
