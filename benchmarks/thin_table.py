"""Zeros and low rank on data against the same without: `python benchmarks/thin_table.py [--images N] [--only vit]`.

Fashion-MNIST networks of `models/trained`, 512 unlabeled calibration images. `error` is the mean squared difference of
the logits from the original's, as a share of their variance; `file` the share of the original's bytes, `zip` the same
after zlib.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models.eval import BATCH, MEAN, STD, TEST
from onnxprune.methods.factorize import factorize
from onnxprune.methods.factorize_options import FactorizeOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.sparsify import sparsify
from onnxprune.methods.sparsify_options import SparsifyOptions

PLAIN: dict[str, Any] = {"data": False}
WHITE: dict[str, Any] = {"refit": False}
VIT_MLPS = {"only": "*/fc*", "params": 0.714}
"""Half of the parameters of the two matrices of each of four blocks, which are 57.1 % of the model's."""

ROWS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("fm_resnet20", "sparsify", "2:4, magnitude", {**PLAIN, "pattern": "2:4"}),
    ("fm_resnet20", "sparsify", "2:4, reconstructed", {"pattern": "2:4"}),
    ("fm_resnet20", "sparsify", "70 %, magnitude", {**PLAIN, "sparsity": 0.7}),
    ("fm_resnet20", "sparsify", "70 %, reconstructed", {"sparsity": 0.7}),
    ("fm_resnet20", "sparsify", "70 % erk, reconstructed", {"sparsity": 0.7, "scope": "erk"}),
    ("fm_resnet20", "sparsify", "70 % lamp, reconstructed", {"sparsity": 0.7, "scope": "lamp"}),
    ("fm_rnn", "sparsify", "2:4, magnitude", {**PLAIN, "pattern": "2:4"}),
    ("fm_rnn", "sparsify", "2:4, reconstructed", {"pattern": "2:4"}),
    ("fm_rnn", "factorize", "params 0.75, plain SVD", {**PLAIN, "params": 0.75}),
    ("fm_rnn", "factorize", "params 0.75, whitened", {**WHITE, "params": 0.75}),
    ("fm_rnn", "factorize", "params 0.75, refitted", {"params": 0.75}),
    ("fm_rnn", "factorize", "params 0.6, plain SVD", {**PLAIN, "params": 0.6}),
    ("fm_rnn", "factorize", "params 0.6, whitened", {**WHITE, "params": 0.6}),
    ("fm_rnn", "factorize", "params 0.6, refitted", {"params": 0.6}),
    ("fm_vit", "factorize", "half of the MLPs, plain SVD", {**PLAIN, **VIT_MLPS}),
    ("fm_vit", "factorize", "half of the MLPs, whitened", {**WHITE, **VIT_MLPS}),
    ("fm_vit", "factorize", "half of the MLPs, refitted", VIT_MLPS),
    ("fm_vit", "factorize", "params 0.5, plain SVD", {**PLAIN, "params": 0.5}),
    ("fm_vit", "factorize", "params 0.5, whitened", {**WHITE, "params": 0.5}),
    ("fm_vit", "factorize", "params 0.5, refitted", {"params": 0.5}),
)


def main() -> None:
    """Print one row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--only", default="", help="rows whose network, command or way contains this")
    options = parser.parse_args()
    with np.load(TEST) as data:
        labels = data["y"][: options.images]
        pixels = (data["x"][: options.images, None].astype(np.float32) / 255 - MEAN) / STD
    print("| network | command | way | top-1 | lost | error | file | zip | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    references: dict[str, np.ndarray[Any, Any]] = {}
    for network, command, way, choices in ROWS:
        if options.only not in f"{network} {command} {way}":
            continue
        path = ROOT / "models" / "trained" / network / "model.onnx"
        source = path.read_bytes()
        if network not in references:
            references[network] = logits(source, pixels)
        base = float((references[network].argmax(1) == labels).mean())
        start = time.perf_counter()
        model = made(command, path, dict(choices)).proto.SerializeToString()
        seconds = time.perf_counter() - start
        found = logits(model, pixels)
        top = float((found.argmax(1) == labels).mean())
        error = float(np.square(found - references[network]).mean() / references[network].var())
        packed = len(zlib.compress(model)) / len(zlib.compress(source))
        figures = f"{top:.4f} | {100 * (base - top):.2f} | {error:.4f} | {len(model) / len(source):.2f} | {packed:.2f}"
        print(f"| {network} ({base:.4f}) | {command} | {way} | {figures} | {seconds:.1f} |", flush=True)


def made(command: str, path: Path, choices: dict[str, Any]) -> onnxprune.Model:
    """Return the smaller model."""
    data = ROOT / "models" / "data" / "fmnist_calib.npz" if choices.pop("data", True) else None
    if command == "sparsify":
        return sparsify(path, SparsifyOptions(**choices), data, runtime=Runtime(1)).model
    return factorize(path, FactorizeOptions(**choices), data, runtime=Runtime(1)).model


def logits(model: bytes, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what a network gives for the images."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batches = range(0, len(pixels), BATCH)
    return np.concatenate([session.run(None, {name: pixels[i : i + BATCH]})[0] for i in batches])


if __name__ == "__main__":
    main()
