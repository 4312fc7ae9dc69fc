"""What finetune brings back of a coarsely quantized network, and what chosen samples bring.

    python benchmarks/quantized_steps.py [--steps 100]         # fm_mbv2: 4-bit and per-tensor 8-bit weights, s8s8
    python benchmarks/quantized_steps.py --select 128          # three networks: the first so many, those chosen, all

The quantized models are made by onnxruntime's `quantize_static` (rounding to nearest, 128 images). Top-1 of 10,000 test
images, which nothing is chosen on; for `--select` as well the divergence of the classes' probabilities from the
original's on 2,500 training images that were not given (`--training FILE.npz`, pixels in "x"), in 1/100.
Seconds are of the processor, in this process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models.eval import MEAN, STD, evaluate
from onnxprune.graph.session import open_session

IMAGES = ROOT / "models" / "data" / "fmnist_calib.npz"
CUTS: dict[str, dict[str, Any]] = {
    "fm_resnet20": {"ratio": 0.3, "align": 1},
    "fm_mbv2": {"macs": 0.4},
    "fm_vit": {"ratio": 0.3},
}


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--select", type=int, help="samples out of the 512 of the repository")
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--training", type=Path, help="training images for the divergence")
    options = parser.parse_args()
    rows = chosen_rows(options.select, options.only, options.training) if options.select else steps_rows(options.steps)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def network(name: str) -> Path:
    """Return the file of a trained network."""
    return ROOT / "models" / "trained" / name / "model.onnx"


def steps_rows(steps: int) -> Iterator[list[str]]:
    """Yield how much of the lost points comes back."""
    yield ["fm_mbv2", "quantized", "finetuned", "of the lost points came back", "CPU s"]
    path = network("fm_mbv2")
    base = evaluate(path, 10_000)
    for label, proto in quantized(path):
        before, start = evaluate(proto.SerializeToString(), 10_000), time.process_time()
        found = onnxprune.finetune(path, proto, IMAGES, steps=steps, run=onnxprune.Run(threads=1))
        seconds = time.process_time() - start
        after = evaluate(found.model.proto.SerializeToString(), 10_000)
        back = (after - before) / (base - before)
        yield [f"{label} (float {base:.4f})", f"{before:.4f}", f"{after:.4f}", f"{100 * back:.0f} %", f"{seconds:.0f}"]


def quantized(path: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield models with weights of 4 bits, and of 8 bits with one scale for a whole tensor."""
    from onnxruntime.quantization import QuantType, quantize_static

    with np.load(IMAGES) as data:
        images = data["input"][:128]
    with tempfile.TemporaryDirectory() as folder:
        raised, target = Path(folder) / "raised.onnx", Path(folder) / "quantized.onnx"
        proto = onnx.version_converter.convert_version(onnx.load(path), 21)
        onnx.save(proto, raised)
        for label, kind, per_channel in (
            ("4 bits", QuantType.QInt4, True),
            ("8 bits per tensor", QuantType.QInt8, False),
        ):
            reader = iter([{proto.graph.input[0].name: images[start : start + 32]} for start in range(0, 128, 32)])
            given = type("Reader", (), {"get_next": lambda self, feeds=reader: next(feeds, None)})()
            options = {"weight_type": kind, "activation_type": QuantType.QInt8, "per_channel": per_channel}
            wanted = {"op_types_to_quantize": ["Conv", "Gemm", "MatMul", "Add"]} if kind == QuantType.QInt4 else {}
            quantize_static(raised, target, given, **options, **wanted)
            yield label, onnx.load(target)


def chosen_rows(count: int, only: str, training: Path | None) -> Iterator[list[str]]:
    """Yield what pruning gives from the first samples, those chosen, and all of 512."""
    yield ["network", "samples", "top-1", "divergence", "CPU s"]
    with np.load(IMAGES) as data:
        images = data["input"]
    for name, cut in CUTS.items():
        if only not in name:
            continue
        path = network(name)
        key = onnx.load(path).graph.input[0].name
        kinds = {
            f"first {count}": (images[:count], None),
            f"{count} chosen": (images, count),
            "all 512": (images, None),
        }
        for label, (some, select) in kinds.items():
            start = time.process_time()
            # judged elsewhere, so that all that is given is fitted to
            gates = onnxprune.Gates(judge_data={key: images[:16]})
            run = onnxprune.Run(threads=1, verify=False)
            result = onnxprune.prune(path, {key: some}, select=select, gates=gates, run=run, **cut)
            seconds = time.process_time() - start
            model = result.model.proto
            top = evaluate(model.SerializeToString(), 10_000)
            far = "-" if training is None else f"{divergence(path, model, training, images):.3f}"
            yield [name, label, f"{top:.4f}", far, f"{seconds:.0f}"]


def divergence(path: Path, model: onnx.ModelProto, training: Path, given: np.ndarray) -> float:
    """Return the mean divergence from what the original says, on images that were not given, in 1/100."""
    with np.load(training) as data:
        images = ((data["x"][:, None].astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)
    known = {image.round(3).tobytes() for image in given}
    images = images[[image.round(3).tobytes() not in known for image in images]][:2500]
    wanted, found = (logs(proto, images) for proto in (onnx.load(path), model))
    return float(100 * (np.exp(wanted) * (wanted - found)).sum(axis=1).mean())


def logs(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Return the logarithms of the chances of classes, along the last axis."""
    session = open_session(proto, threads=1)
    key, output = session.inputs[0].name, session.outputs[0].name
    parts = [session.run({key: images[start : start + 250]})[output] for start in range(0, len(images), 250)]
    given = np.concatenate(parts)
    given = given - given.max(axis=-1, keepdims=True)
    return np.asarray(given - np.log(np.exp(given).sum(axis=-1, keepdims=True)))


if __name__ == "__main__":
    main()
