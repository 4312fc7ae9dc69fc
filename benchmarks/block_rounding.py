"""How near networks with weights in blocks of 4 bits come to their originals: three ways of rounding.

    python benchmarks/block_rounding.py --training FILE.npz [--characters characters.onnx]

Nearest; each matrix to what it multiplies in the original (as `--stats` has it); matrix after matrix, to what it
multiplies in the quantized network, towards what the original gave (the default with data). 512 samples of the
repository; the divergence of the classes from the original, in 1/100, on 2,500 training images that were
not given. The decoder comes from benchmarks/characters.py (`--folder`); its windows are of the text that it learned,
512 for the rounding and 512 others to judge on. Seconds are of the processor, in this process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from characters import LENGTH, SAMPLES, windows
from quantized_steps import divergence, logs, network

import onnxprune

IMAGES = ROOT / "models" / "data" / "fmnist_calib.npz"
NETWORKS = ("fm_vit", "fm_rnn", "fm_resnet20")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=Path, help="training images for the divergence")
    parser.add_argument("--characters", type=Path, help="the trained decoder")
    given = parser.parse_args()
    print("| network | nearest | one by one | in their order | CPU s |\n| --- | ---: | ---: | ---: | ---: |")
    if given.training:
        with np.load(IMAGES) as arrays:
            images = arrays["input"]
        for name in NETWORKS:
            path = network(name)
            shown(name, path, images, lambda model, path=path: divergence(path, model, given.training, images))
    if given.characters:
        whole = "\n".join(topics[name] for name in sorted(topics))
        text = np.searchsorted(sorted(set(whole)), list(whole))[: len(whole) * 9 // 10]
        starts = np.random.default_rng(2).integers(0, len(text) - LENGTH - 1, 2 * SAMPLES)
        rows = windows(text, starts)[:, :-1]
        wanted = logs(onnx.load(given.characters), rows[SAMPLES:])

        def far(model: onnx.ModelProto) -> float:
            found = logs(model, rows[SAMPLES:])
            return float(100 * (np.exp(wanted) * (wanted - found)).sum(axis=-1).mean())

        shown("characters", given.characters, rows[:SAMPLES], far)


def shown(name: str, path: Path, samples: np.ndarray, far: Callable[[onnx.ModelProto], float]) -> None:
    """Print the line of one network."""
    data = {onnx.load(path).graph.input[0].name: samples}
    run = onnxprune.Run(threads=1, verify=False)
    with tempfile.TemporaryDirectory() as folder:
        stats = Path(folder) / "sums.stats"
        stats.write_bytes(onnxprune.collect_statistics(path, data, run=run).to_bytes())
        found, seconds = [], 0.0
        for options in ({"rounding": "nearest"}, {"stats": stats}, {"data": data}):
            start = time.process_time()
            # judged elsewhere, so that all that is given is fitted to
            gates = onnxprune.Gates(judge_data={key: array[:16] for key, array in data.items()})
            made = onnxprune.quantize(path, mode="weight-only", gates=gates, run=run, **options)
            seconds = time.process_time() - start
            found.append(far(made.model.proto))
    print(f"| {name} | {' | '.join(f'{value:.3f}' for value in found)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
