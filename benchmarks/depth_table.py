"""Widths, branches, and both: what is left of latency and accuracy.

    python benchmarks/depth_table.py MODEL --data calib.npz --eval eval.py:evaluate --latency 0.9 0.8

The function gets the path of a model and returns its accuracy. For each latency the choices that `--depth` compares are
carried out with the default recovery: widths alone, branches alone, and what lies between; the one that it takes, by
their trials on held-out samples, is marked. Latencies are measured on one thread, in turns with the original. One
sample in four is kept away from all of it, as the command does.
"""

from __future__ import annotations

import argparse
import resource
from dataclasses import replace
from pathlib import Path

import onnxprune
from onnxprune.errors import NothingToPruneError
from onnxprune.graph.model import Model, load
from onnxprune.job.gates import Gates
from onnxprune.methods.branch_choice import BranchChoice
from onnxprune.methods.calibration import calibration
from onnxprune.methods.choice import Clock
from onnxprune.methods.finalists import nearest, reached_of
from onnxprune.methods.latency_target import time_both
from onnxprune.methods.prune import ready_to_prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.pruning import Chosen, Pruning
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.data import Data
from onnxprune.statistics.split import split
from onnxprune.statistics.turning import turned_if_few

RUNTIME = Runtime(threads=1)


def seconds() -> float:
    """Return the CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def row(label: str, work: Pruning, chosen: Chosen, model: Model, samples: Data, evaluation: str) -> None:
    """Print one line of the table."""
    target, before = Path(f"/tmp/depth-{Path(evaluation).parent.name}.onnx"), seconds()
    result = work.finish(chosen, samples)
    onnxprune.save(result.model, target)
    taken = seconds() - before
    share = time_both(model, result.model, 1.0, None, RUNTIME, effort=2).share
    function = Gates(eval=evaluation).function()
    value = function(str(target)) if function is not None else float("nan")
    value = value["value"] if isinstance(value, dict) else value
    instead = ", ".join(one.kind for one in result.substitutes)
    names = ", ".join(result.plan.dropped) + (f" ({instead})" if instead else "")
    print(f"| {label} | {share:.3f} | {value:.4f} | {taken:.0f} | {names or '-'} |", flush=True)


@on_one_thread
def table(given: argparse.Namespace, goal: float, effort: str | None) -> None:
    """Print the lines of one latency: all choices, and which of them is taken."""
    model, start = load(given.model), seconds()
    whole = calibration(model, given.data)
    samples = turned_if_few(split(whole)[0])
    options = PruneOptions(latency=goal, depth=True, effort=effort)

    def ready(names: tuple[str, ...]) -> Pruning:
        single = replace(options, drop=names, depth=None)
        return ready_to_prune(model, single, samples, Clock(), RUNTIME, lambda text: None)

    choices = BranchChoice(model, options, samples, RUNTIME, lambda text: None).run()
    reached, missed = reached_of(choices.contenders, ready, samples)
    best, _, notes = nearest(model, reached, samples, RUNTIME, lambda text: None)
    print(f"<!-- {goal:g}: {seconds() - start:.0f} CPU s to choose; {'; '.join(notes)}; missed {list(missed)} -->")
    for work, chosen in reached:
        gone, widths = work.short is not None, bool(chosen.keep)
        what = "branches and widths" if gone and widths else "branches" if gone else "widths"
        label = f"{goal:g}, {what}{', taken' if work is best else ''}"
        try:
            row(label, work, chosen, model, samples, given.eval)
        except NothingToPruneError as error:
            print(f"| {label} | - | - | - | {str(error)[:60]} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--latency", type=float, nargs="+", required=True)
    parser.add_argument("--effort")
    given = parser.parse_args()
    print("| what | latency | accuracy | CPU s | branches dropped |\n| --- | ---: | ---: | ---: | --- |", flush=True)
    for goal in given.latency:
        table(given, goal, given.effort)


if __name__ == "__main__":
    main()
