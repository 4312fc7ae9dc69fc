"""Top-1 accuracy on Fashion-MNIST: `python models/eval.py FILE.onnx [FILE.onnx ..] [--images 10000]`.

Also a measure for the command line: `--eval models/eval.py:evaluate`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TEST = Path(__file__).parent / "data" / "fmnist_test.npz"
MEAN, STD = np.float32(0.2860), np.float32(0.3530)
BATCH = 250


def evaluate(model: str | Path | bytes | Any, images: int = 1000) -> float:
    """Return the share of the first `images` (of 10,000) test images that a model classifies correctly.

    Args:
        model: path or bytes of a model, or an onnxruntime session, with one input (batch, 1, 28, 28) and ten logits.
    """
    with np.load(TEST) as data:
        pixels, labels = data["x"][:images], data["y"][:images]
    session = model if hasattr(model, "run") else _session(model)
    name = session.get_inputs()[0].name
    correct = 0
    for start in range(0, len(labels), BATCH):
        batch = (pixels[start : start + BATCH, None].astype(np.float32) / 255 - MEAN) / STD
        logits = session.run(None, {name: batch})[0]
        correct += int((logits.argmax(axis=1) == labels[start : start + BATCH]).sum())
    return correct / len(labels)


def _session(model: str | Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Print the accuracy of each file."""
    parser = argparse.ArgumentParser(description="Top-1 accuracy on Fashion-MNIST test images.")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=10_000, help="how many of the 10,000 test images")
    options = parser.parse_args()
    for model in options.models:
        print(f"{evaluate(model, options.images):.4f}  {model}")


if __name__ == "__main__":
    main()
