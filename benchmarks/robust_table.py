"""Does a cut make a network brittle, and what does a random choice of channels cost?

    python benchmarks/robust_table.py              small changes of inputs, fm_resnet20 at 30 % and 50 %
    python benchmarks/robust_table.py --randomize  accuracy over 10 seeds against the plain choice

Fashion-MNIST: refitted to the 512 unlabeled images of `models/data` (closed form, `effort="quick"`; `--effort default`
adds gradient steps), measured on test images. Columns of the first table: how often each model says on changed images
what it says on them as they are, `both`: the two models on changed images.
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
from models.eval import MEAN, STD, TEST, evaluate

MODEL = ROOT / "models" / "trained" / "fm_resnet20" / "model.onnx"
DATA = ROOT / "models" / "data" / "fmnist_calib.npz"
RATIOS = (0.3, 0.5)
SIGMAS = (0.1, 0.3, 1.0)
SEEDS = 10


def pruned(ratio: float, effort: str, seed: int = 0, randomize: float | None = None) -> bytes:
    """Return the network without this share of its channels."""
    run = onnxprune.Run(threads=1, seed=seed, verify=False)
    result = onnxprune.prune(MODEL, DATA, ratio=ratio, effort=effort, randomize=randomize, run=run)
    return result.model.proto.SerializeToString()


def steadiness(images: int, effort: str) -> None:
    """Print how steady the original and its cuts are."""
    with np.load(TEST) as data:
        test = {"input": (data["x"][:images, None].astype(np.float32) / 255 - MEAN) / STD}
    print(f"| cut | top-1 | change | original keeps | pruned keeps | both | brittle |\n|{' --- |' * 7}")
    for ratio in RATIOS:
        model = pruned(ratio, effort)
        found = onnxprune.robustness(MODEL, model, data=test, samples=images, threads=1)
        top = evaluate(model, 10_000)
        for line in found.lines:
            figures = f"{line.original:.4f} | {line.compressed:.4f} | {line.both:.4f}"
            print(f"| {ratio:.0%} | {top:.4f} | {line.change} | {figures} | {'yes' if line.brittle else 'no'} |")
        print(f"{ratio:.0%}: {found.sentence}", flush=True)


def spread(effort: str) -> None:
    """Print what random choices cost."""
    print(f"| cut | sigma | plain choice | mean of {SEEDS} seeds | worst | best | deviation |\n|{' --- |' * 7}")
    for ratio in RATIOS:
        plain = evaluate(pruned(ratio, effort), 10_000)
        for sigma in SIGMAS:
            found = np.array([evaluate(pruned(ratio, effort, seed, sigma), 10_000) for seed in range(SEEDS)])
            figures = f"{found.mean():.4f} | {found.min():.4f} | {found.max():.4f} | {found.std():.4f}"
            print(f"| {ratio:.0%} | {sigma:g} | {plain:.4f} | {figures} |", flush=True)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--randomize", action="store_true")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--effort", default="quick")
    options = parser.parse_args()
    start = time.process_time()
    spread(options.effort) if options.randomize else steadiness(options.images, options.effort)
    print(f"{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
