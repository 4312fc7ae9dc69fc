"""Accuracy without labels and without retraining, next to magnitude pruning without compensation in the same run.

    python benchmarks/accuracy_table.py                        the targets, on the 10,000 test images
    python benchmarks/accuracy_table.py --ablation             what every ingredient buys, at half of every group
    python benchmarks/accuracy_table.py --only fm_mbv2 --compensate distil --images 2000

Data: at most 512 unlabeled samples of `models/`. `--networks FOLDER`: a folder with `ocr_cls/eval.py` and
`silero_vad_seq/eval.py` (`evaluate(path) -> {"value": ..}`) and their data; without it those two rows are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models.eval import evaluate
from onnxprune.graph import count
from onnxprune.methods.calibration import calibration
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime

TRAINED = ROOT / "models" / "trained"
IMAGES = ROOT / "models" / "data" / "fmnist_calib.npz"


@dataclass(frozen=True)
class Row:
    """One network with one demand: how many points it may lose at most."""

    network: str
    label: str
    options: dict[str, Any]
    most: float
    extra: dict[str, Any] = field(default_factory=dict)


ROWS = (
    Row("fm_resnet20", "30 %", {"ratio": 0.3, "align": 1}, 0.4),
    Row("fm_resnet20", "50 %", {"ratio": 0.5, "align": 1}, 2.2),
    Row("fm_resnet20", "--macs 0.25", {"macs": 0.25}, 1.8),
    Row("fm_mbv2", "30 %", {"ratio": 0.3, "align": 1}, 0.8),
    Row("fm_mbv2", "50 %", {"ratio": 0.5, "align": 1}, 3.0),
    Row("fm_mbv2", "--macs 0.28", {"macs": 0.28}, 2.6),
    Row("fm_rnn", "30 %", {"ratio": 0.3, "align": 1}, 1.5),
    Row("fm_vit", "30 %", {"ratio": 0.3, "align": 1}, 1.5),
    Row("ocr_cls", "--macs 0.6", {"macs": 0.6}, 1.0),
    Row("silero_vad_seq", "--macs 0.6", {"macs": 0.6}, 1.0),
    Row("fm_resnet20", "--latency 0.6", {"latency": 0.6}, float("nan")),
    Row("fm_mbv2", "--latency 0.6", {"latency": 0.6}, float("nan")),
)
ABLATION = [
    ("magnitude, nothing else", {"score": "l2", "compensate": "none"}),
    ("mean and variance", {"score": "l2", "compensate": "bias"}),
    ("least squares, l2 choice", {"score": "l2", "compensate": "lstsq"}),
    ("least squares, wanda choice", {"score": "wanda", "compensate": "lstsq"}),
    ("least squares, residual choice", {"score": "lstsq", "compensate": "lstsq"}),
    ("gradient steps after it", {"score": "lstsq", "compensate": "distil"}),
]
BUDGETS = {"fm_resnet20": 0.25, "fm_mbv2": 0.28}


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--only", default="", help="networks or rows whose name contains this")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--compensate", choices=["bias", "lstsq", "distil"])
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    print("network        demand                            MACs   ours   lost  at most   magnitude  seconds")
    for row in ablation() if wanted.ablation else ROWS:
        metric = metric_of(row.network, wanted.networks, wanted.images)
        if wanted.only in f"{row.network} {row.label}" and metric is not None:
            print(line(row, metric, wanted), flush=True)


def ablation() -> Iterator[Row]:
    """Yield rows for every ingredient: choice of channels, refit, allocation."""
    for network, macs in BUDGETS.items():
        for label, options in ABLATION:
            yield Row(network, f"50 %, {label}", {"ratio": 0.5, "align": 1}, float("nan"), options)
        for scope in ("uniform", "global", "sensitivity"):
            yield Row(network, f"--macs {macs}, {scope}", {"macs": macs}, float("nan"), {"scope": scope})


def line(row: Row, metric: Callable[[bytes], float], wanted: argparse.Namespace) -> str:
    """Measure one row."""
    path = TRAINED / row.network / "model.onnx"
    source = onnxprune.load(path)
    data = calibration(source, inputs_of(path), wanted.samples)
    runtime, base = Runtime(wanted.threads), metric(source.proto.SerializeToString())
    start = time.perf_counter()
    result = prune(
        source, PruneOptions(**{"compensate": wanted.compensate, **row.options, **row.extra}), data, runtime=runtime
    )
    seconds = time.perf_counter() - start
    ours = metric(result.model.proto.SerializeToString())
    plain = ""
    if "latency" not in row.options:
        cut = prune(source, PruneOptions(**row.options, score="l2"))
        plain = f"{metric(cut.model.proto.SerializeToString()):9.4f}"
    elif result.latency is not None:
        plain = f"measured {result.latency.share:.3f}"
    return (
        f"{row.network:14} {row.label:32} {share(result):5.3f} {ours:6.4f} {100 * (base - ours):6.2f} {row.most:8.1f}"
        f"  {plain:10} {seconds:7.1f}"
    )


def inputs_of(path: Path) -> Path:
    """Return unlabeled inputs."""
    own = path.with_name("calib.npz")
    return own if own.exists() else IMAGES


def share(result: onnxprune.PruneResult) -> float:
    """Return the MACs that are left, as a share."""
    channels = result.channels
    before, after = (sum(count.macs(channels.view, channels.shapes(keep)).values()) for keep in ({}, result.keep))
    return after / before


def metric_of(network: str, folder: Path | None, images: int) -> Callable[[bytes], float] | None:
    """Return the measure of a network, None where its test data are not at hand."""
    if network.startswith("fm_"):
        return lambda model: evaluate(model, images)
    if folder is None or not (folder / network / "eval.py").is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"eval_{network}", folder / network / "eval.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    if network == "silero_vad_seq" and not (folder / "silero_vad" / "eval.npz").is_file():
        return None

    def measure(model: bytes) -> float:
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(model)
            file.flush()
            return float(module.evaluate(file.name)["value"])

    return measure


if __name__ == "__main__":
    main()
