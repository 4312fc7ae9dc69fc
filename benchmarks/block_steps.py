"""What a few seconds of gradient steps bring: the whole network at once, or one block after the other.

    python benchmarks/block_steps.py --training FILE.npz [--seconds 4] [--only NAME]

Networks and cuts of `quantized_steps.py --select`, 512 images of the repository, all fitted to. The divergence of
the classes' probabilities from the original's on 2,500 training images that were not given, in 1/100, after the closed
form, and after so many predicted seconds of steps besides. Few seconds stand for large networks, where all that
the default effort has are few steps.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from quantized_steps import CUTS, IMAGES, divergence, network

import onnxprune
from onnxprune.methods import step_count

compensation = importlib.import_module("onnxprune.compensate.compensate")
WAYS = {"closed form": ("quick", 1), "whole network": ("default", 1), "blocks": ("default", 10**9)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    with np.load(IMAGES) as arrays:
        images = arrays["input"]
    step_count.seconds_left = lambda before: given.seconds
    print("| network | steps | divergence | best step | CPU s |\n| --- | --- | ---: | ---: | ---: |")
    for name in (name for name in CUTS if given.only in name):
        path = network(name)
        key = onnx.load(path).graph.input[0].name
        for way, (effort, enough) in WAYS.items():
            compensation.ENOUGH_STEPS, start = enough, time.process_time()
            # judged elsewhere, so that all that is given is fitted to
            gates = onnxprune.Gates(judge_data={key: images[:16]})
            run = onnxprune.Run(threads=1, verify=False)
            result = onnxprune.prune(path, {key: images}, effort=effort, gates=gates, run=run, **CUTS[name])
            seconds, done = time.process_time() - start, result.compensation.distilled
            far = divergence(path, result.model.proto, given.training, images)
            print(f"| {name} | {way} | {far:.2f} | {done.steps if done else '-'} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
