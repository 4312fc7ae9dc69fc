"""What a gradient step of ResNet-50 costs against onnxruntime alone: python benchmarks/step_cost.py [--batch 8]

The graph of the zoo with random weights, 30 % of its channels removed; 32 images of 224 x 224 in runs of `--batch`. In
turns, seconds of the processor, medians of three: the gradient graph alone in onnxruntime, a whole step with what the
original gives at hand (gradients averaged, weights changed), and the original alone.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models import zoo
from onnxprune.compensate.descent import Descent
from onnxprune.compensate.distil import loss_weights, variances
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.compensate.slopes import Slopes, Teacher
from onnxprune.graph.model import load
from onnxprune.methods.finetuning.correspond import correspondence

IMAGES = 32


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    batch = parser.parse_args().batch
    original = load(zoo.build("resnet50"))
    run = onnxprune.Run(verify=False, threads=1)
    small = load(onnxprune.prune(original, ratio=0.3, compensate="none", run=run).model.proto)
    name = original.proto.graph.input[0].name
    feed = {name: np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)}
    pairs = correspondence(original, small, [{name: feed[name][:2]}])
    teacher = Teacher(original, {**pairs.outputs, **pairs.inner})
    probe = teacher(feed)
    compared = loss_weights(variances(probe, [probe]), list(pairs.outputs), list(pairs.inner), 4.0)
    gradient = gradient_graph(small, compared, {key: probe[key].shape for key in compared}, feed)
    slopes = Slopes.open(gradient, teacher, 1)
    answered = slopes.answered([feed])[0]
    whole, names = {**answered, **gradient.weights, **gradient.seed()}, gradient.outputs()
    descent, runs = Descent(gradient.weights, gradient.matrices, 0.01, 100), IMAGES // batch
    ways: dict[str, Callable[[], object]] = {
        "onnxruntime alone": lambda: [slopes.session.native.run(names, whole) for _ in range(runs)],
        "a step": lambda: descent.step(slopes.mean(descent.weights, [answered] * runs)),
        "the original": lambda: [teacher(feed) for _ in range(runs)],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(4):
        for way, work in ways.items():
            start = time.process_time()
            work()
            if turn:  # the first one warms up
                seconds[way].append(time.process_time() - start)
    middle = {way: float(np.median(times)) for way, times in seconds.items()}
    print("; ".join(f"{way} {value:.2f} s" for way, value in middle.items()))
    alone, step, asked = middle.values()
    print(f"step / onnxruntime {step / alone:.3f}, with the original in both {(step + asked) / (alone + asked):.3f}")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
