"""The counted peak of activations against what onnxruntime allocates, and what a target for it costs.

python benchmarks/peak_table.py zoo            every graph of the zoo, one sample
python benchmarks/peak_table.py target         half of the peak: fm_mbv2 with its accuracy, a U-Net
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models import zoo
from models.eval import evaluate
from onnxprune.hardware.peak import activations
from tests.hardware.arena_of import arena_bytes


def compare() -> None:
    """Print counted and allocated bytes of every graph."""
    near = total = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in zoo.names():
            file, proto = Path(folder) / "model.onnx", zoo.build(name)
            onnx.save(proto, file)
            sizes = {
                value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
                for value in proto.graph.input
            }
            counted, allocated = activations(onnxprune.load(file), sizes).peak, arena_bytes(file)
            near, total = near + (abs(counted / allocated - 1) <= 0.05), total + 1
            print(f"{name:32s} {counted:>12,d} {allocated:>12,d} {counted / allocated:.3f}", flush=True)
    print(f"{near} of {total} within 5 %")


def target() -> None:
    """Print the share of the allocated peak that is left where half was asked for."""
    trained = ROOT / "models/trained/fm_mbv2/model.onnx"
    data = ROOT / "models/data/fmnist_calib.npz"
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "small.onnx"
        onnxprune.save(onnxprune.prune(trained, data, peak_memory=0.5).model, result)
        lost = 100 * (evaluate(trained) - evaluate(result))
        print(f"fm_mbv2: {arena_bytes(result) / arena_bytes(trained):.3f} of the peak, {lost:.2f} points lost")
        unet = Path(folder) / "unet.onnx"
        onnx.save(zoo.build("UNet"), unet)
        onnxprune.save(onnxprune.prune(unet, peak_memory=0.5).model, result)
        print(f"UNet: {arena_bytes(result) / arena_bytes(unet):.3f} of the peak")


if __name__ == "__main__":
    {"zoo": compare, "target": target}[sys.argv[1]]()
