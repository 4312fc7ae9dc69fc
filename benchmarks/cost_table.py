"""Predicted against measured CPU seconds of one run: forward, a gradient step, on networks of many kinds.

    python benchmarks/cost_table.py                          the trained networks and zoo graphs of `models/`
    python benchmarks/cost_table.py --networks FOLDER        folders with `model.onnx` and `calib.npz` too
    python benchmarks/cost_table.py --only resnet --steps
    python benchmarks/cost_table.py --networks FOLDER --closed       scores, measured curves and refit of a prune

The smallest of several runs on one thread counts; a busy machine takes longer for the same work. The prediction reads
no clock: rates of `onnxprune/graph/cost_rules.py`, measured by `benchmarks/cost_rates.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import scipy.linalg  # noqa: F401  loading it is no part of what is measured

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models import zoo
from onnxprune.allocate.measuring import effort
from onnxprune.channels.analyse import analyse
from onnxprune.channels.rewrite import rewrite
from onnxprune.compensate.closed_cost import closed_form_seconds
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.errors import ModelError
from onnxprune.graph.cost import cost_of
from onnxprune.graph.model import Model, load
from onnxprune.graph.session import open_session
from onnxprune.methods.choice import Clock, choose, measured_curves, prepare
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.refit_parts import refit
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import look
from onnxprune.methods.synthetic import synthetic
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import input_specs

GRAPHS = (
    "resnet50 mobilenet_v2 densenet121 shufflenet_v2_x1_0 squeezenet1_1 convnext_tiny swin_t vit_b_16 BERT UNet "
    "WaveNet LSTM ESPCN"
)
SAMPLES, RUNS, ENOUGH = 16, 7, 4.0
FITTED = 256
"""Samples that the closed form is fitted to."""


def main() -> None:
    """Print a line for every network."""
    parser = argparse.ArgumentParser(description="Predicted against measured CPU seconds.")
    parser.add_argument("--networks", type=Path, help="a folder of folders with model.onnx and calib.npz")
    parser.add_argument("--only", default="", help="part of the name")
    parser.add_argument("--steps", action="store_true", help="gradient steps too")
    parser.add_argument("--closed", action="store_true", help="the closed form instead: a whole prune by lstsq")
    wanted = parser.parse_args()
    os.environ["ONNXPRUNE_CACHE"] = "off"
    print(f"{'network':22} {'run':10} {'predicted ms':>13} {'measured ms':>13} {'ratio':>6}")
    ratios = []
    for name, model, data in networks(wanted.networks, wanted.only, FITTED if wanted.closed else SAMPLES):
        for kind, predicted, measured in closed(model, data) if wanted.closed else rows(model, data, wanted.steps):
            ratios.append(predicted / measured)
            print(f"{name:22} {kind:10} {1e3 * predicted:13.2f} {1e3 * measured:13.2f} {ratios[-1]:6.2f}", flush=True)
    within = sum(1 / 1.5 <= ratio <= 1.5 for ratio in ratios)
    print(f"{within} of {len(ratios)} within a factor of 1.5")


def networks(folder: Path | None, only: str, samples: int) -> Iterator[tuple[str, Model, Data]]:
    """Yield name, model and samples; a quarter of them for graphs without data."""
    paths = {path.parent.name: path for path in zoo.trained() if path.name == "model.onnx"}
    paths |= {path.parent.name: path for path in sorted(folder.glob("*/model.onnx"))} if folder else {}
    for name, path in paths.items():
        if only in name:
            model = load(path)
            yield name, model, read(zoo.calibration(path), input_specs(model.proto), samples=samples)
    for name in GRAPHS.split():
        if only in name:
            model = load(zoo.build(name))
            count = min(samples // 4, SAMPLES)
            yield name, model, synthetic(analyse(model), {}, 0, Runtime(1), count)


@on_one_thread
def closed(model: Model, data: Data) -> list[tuple[str, float, float]]:
    """Return the closed form of a prune by 30 %, scores and refit, and curves measured for a target."""
    channels, runtime = analyse(model, seen=data.sizes), Runtime(1)
    seen = look(channels.view, data, runtime)
    feed = next(iter(data.batches(SAMPLES)))
    start = time.process_time()
    activity = seen.activity(runtime)
    keep = choose(channels, PruneOptions(ratio=0.3), activity=activity, runtime=runtime)[0]
    cut = rewrite(channels, keep)
    refit(PruneResult(cut, channels.plan(keep), channels, keep, {}, (), 0.0, cut), data, "lstsq", runtime, seen=seen)
    whole = "closed", closed_form_seconds(seen.model, feed, data.samples), time.process_time() - start
    request = prepare(channels, PruneOptions(macs=0.6), Clock(), activity)[0]
    predicted = effort(channels, data, request.groups).seconds
    start = time.process_time()
    measured_curves(channels, request, activity, lambda text: None)
    return [whole, ("curves", predicted, time.process_time() - start)]


def rows(model: Model, data: Data, steps: bool) -> Iterator[tuple[str, float, float]]:
    """Yield what is run, the predicted and the measured seconds."""
    feed = {key: np.asarray(array) for key, array in next(iter(data.batches(SAMPLES))).items()}
    sizes = {name: array.shape for name, array in feed.items()}
    names = [value.name for value in model.proto.graph.output]
    session = open_session(model.proto, threads=1)
    yield "forward", cost_of(model, sizes).seconds, measured(lambda: session.values(names, feed))
    if not steps:
        return
    outputs = dict(zip(names, session.values(names, feed), strict=True))
    compared = {name: 1.0 for name, value in outputs.items() if value.dtype == np.float32}
    try:
        gradient = gradient_graph(model, compared, {name: outputs[name].shape for name in compared}, feed)
    except ModelError as error:
        print(f"  {error}"[:110])
        return
    proto = onnx.ModelProto()
    proto.CopyFrom(gradient.proto)
    targets = {target: outputs[name] for name, target in gradient.targets.items()}
    whole = feed | targets | gradient.weights | gradient.seed()
    descent = open_session(proto, threads=1)
    predicted = cost_of(Model(proto), {name: array.shape for name, array in whole.items()}).seconds
    yield "gradient", predicted, measured(lambda: descent.values(gradient.outputs(), whole))


def measured(run: Callable[[], object]) -> float:
    """Return the CPU seconds of the quickest of some runs after the first."""
    run()
    best, total = float("inf"), 0.0
    for _ in range(RUNS):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
        total += best
        if total > ENOUGH:
            break
    return best


if __name__ == "__main__":
    main()
