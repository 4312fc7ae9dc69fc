"""Is a refit on made-up inputs better than none? Accuracy at 30 % of every group, channels chosen by l2, no retraining.

    python benchmarks/synthetic_table.py --networks FOLDER
    python benchmarks/synthetic_table.py --only fm_vit --images 2000

Every row: the original, no refit, a refit on N(0, 1), on made-up inputs, on those with a choice of channels that looks
at them too (the default without `--data`), and on the network's own unlabeled data. `--networks`: a folder
with `ocr_cls/eval.py` and its data; without it that row is left out. Exit code 1 if the default is
worse than no refit by more than 3 points.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from accuracy_table import TRAINED, inputs_of, metric_of

import onnxprune
from onnxprune.channels.analyse import analyse
from onnxprune.methods.calibration import calibration
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.synthetic import synthetic
from onnxprune.statistics.data import Data

NETWORKS = ("fm_resnet20", "fm_mbv2", "fm_rnn", "fm_vit", "ocr_cls")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--networks", type=Path)
    wanted = parser.parse_args()
    print("network        original   none  N(0,1)  made up  + choice  own data")
    worse = False
    for network in NETWORKS:
        metric = metric_of(network, wanted.networks, wanted.images)
        if metric is None or wanted.only not in network:
            continue
        source, runtime = onnxprune.load(TRAINED / network / "model.onnx"), Runtime(1)
        made_up = synthetic(analyse(source), {}, 0, runtime)
        own = calibration(source, inputs_of(TRAINED / network / "model.onnx"), 256)

        def value(data: Data | None, score: str | None = "l2") -> float:
            options = PruneOptions(ratio=0.3, align=1, score=score, compensate="lstsq" if data is not None else "none")
            done = prune(source, options, data, runtime=runtime)  # noqa: B023
            return metric(done.model.proto.SerializeToString())  # noqa: B023

        found = [metric(source.proto.SerializeToString()), value(None), value(white(made_up)), value(made_up)]
        found += [value(made_up, "lstsq"), value(own)]
        worse = worse or found[4] < found[1] - 0.03
        print(f"{network:13} {found[0]:9.4f} {found[1]:6.4f}  {found[2]:6.4f}   {found[3]:6.4f}    {found[4]:6.4f}    "
              f"{found[5]:6.4f}", flush=True)  # fmt: skip
    return int(worse)


def white(data: Data) -> Data:
    """Return N(0, 1) in the place of floats."""
    random = np.random.default_rng(0)
    feeds = [
        {name: random.standard_normal(a.shape).astype(a.dtype) if a.dtype.kind == "f" else a for name, a in f.items()}
        for f in data
    ]
    return calibration_of(feeds, data)


def calibration_of(feeds: list[dict[str, np.ndarray]], like: Data) -> Data:
    """Return feeds as data for the same inputs."""
    from onnxprune.statistics.data import read

    return read(feeds, like.inputs)


if __name__ == "__main__":
    sys.exit(main())
