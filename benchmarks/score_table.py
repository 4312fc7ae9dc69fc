"""What a score is worth: `python benchmarks/score_table.py [--only resnet] [--score lstsq,curvature] [--effort quick]`.

Fashion-MNIST networks of `models/trained` are cut with the 512 unlabeled images of the repository. Top-1 is that of
10,000 test images, which nothing is chosen on; `--training FILE` (npz, `x`: images of 28 x 28) gives the divergence of
the classes' probabilities from the original's, in 1/100, on images that were not given. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from benchmarks.quantized_steps import IMAGES, divergence, network
from models.eval import evaluate

CUTS = (
    ("fm_resnet20", "30 %", {"ratio": 0.3, "align": 1}),
    ("fm_resnet20", "macs 0.25", {"macs": 0.25}),
    ("fm_mbv2", "macs 0.28", {"macs": 0.28}),
    ("fm_vit", "30 %", {"ratio": 0.3}),
)


def main() -> None:
    """Print a row for each network, score and effort."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose network or cut contains this")
    parser.add_argument("--score", default="lstsq,curvature", help="between commas")
    parser.add_argument("--effort", default="quick,default", help="between commas")
    parser.add_argument("--training", type=Path, help="training images for the divergence")
    options = parser.parse_args()
    with np.load(IMAGES) as data:
        images = data["input"]
    print("| network | cut | score | effort | top-1 | lost | divergence | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, cut, choices in CUTS:
        if options.only not in f"{name} {cut}":
            continue
        base = evaluate(network(name), 10_000)
        for effort in options.effort.split(","):
            for score in options.score.split(","):
                start, run = time.process_time(), onnxprune.Run(threads=1, verify=False)
                result = onnxprune.prune(network(name), IMAGES, score=score, effort=effort, run=run, **choices)
                seconds, model = time.process_time() - start, result.model.proto
                top = evaluate(model.SerializeToString(), 10_000)
                far = f"{divergence(network(name), model, options.training, images):.2f}" if options.training else "-"
                figures = f"{top:.4f} | {100 * (base - top):.2f} | {far} | {seconds:.0f}"
                print(f"| {name} ({base:.4f}) | {cut} | {score} | {effort} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
