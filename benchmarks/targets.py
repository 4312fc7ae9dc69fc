"""Targets: whether widths keep their rules, whether padding is what it costs, and what a recipe for int8 gains.

python benchmarks/targets.py law         widths chosen on every graph of the zoo for every target, against the rules
python benchmarks/targets.py padding     layers of the zoo at odd widths: predicted padding against measured time
python benchmarks/targets.py int8        mobilenet_v2, 40 % pruned, then static int8, in one recipe
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models import zoo
from onnxprune.errors import NothingToPruneError
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.hardware.fit import LayerFit, fit
from onnxprune.hardware.host import host
from onnxprune.hardware.target import targets
from onnxprune.methods.choice import choose
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.width_rule import stored_precision
from tests.hardware.law import violations

DEMANDS = ({"ratio": 0.3}, {"ratio": 0.5, "scope": "global"}, {"macs": 0.5})
TURNS, LAYERS = 40, 60
SHARES = (0.45, 0.6, 0.75, 0.9)
"""Odd widths are these shares of a layer's own."""


def law() -> None:
    """Choose widths for every target on every graph, and hold them against the rules."""
    broken, choices, nothing = 0, 0, 0
    for name in zoo.names():
        channels = onnxprune.analyse(zoo.build(name))
        for target in targets().values():
            for demand in DEMANDS:
                options = PruneOptions(target=target.name, score="random", **demand)
                try:
                    keep, _, _ = choose(channels, options)
                except NothingToPruneError:
                    nothing += 1
                    continue
                precision = target.precision_for(None, stored_precision(channels.view))
                found = violations(channels, keep, target.name, precision)
                choices, broken = choices + 1, broken + bool(found)
                if found:
                    print(f"{name}, {target.name}, {demand}: {found[0]}")
        print(f"{name}: done", file=sys.stderr)
    print(f"{choices} choices, {broken} with a width that breaks a rule, {nothing} left nothing to prune")


def padding() -> None:
    """Compare predicted with measured times of layers at odd widths, each with the good widths around it."""
    generator, pairs = np.random.default_rng(0), []
    nodes = [node for name in zoo.names() for node in _convolutions(name)]
    chosen = generator.permutation(len(nodes))[:LAYERS]
    for number, (_, shape, size, attributes) in enumerate(nodes[i] for i in chosen):
        share = SHARES[number % len(SHARES)]
        writes, reads = (max(1, round(share * width)) | 1 for width in shape[:2])
        reads = reads if shape[1] > 4 else shape[1]
        reads = reads // 4 * 4 if reads > 4 else reads  # other numbers leave the blocked kernels, which is no padding
        writes = max(4, writes // 4 * 4)
        odd = _layer((writes, reads, *shape[2:]), size, attributes)
        for good in fit(*odd[1:], host(), "float32").layers[0].good:
            if good == writes:
                continue
            even = _layer((good, reads, *shape[2:]), size, attributes)
            predicted = _work(odd) / _work(even)
            pairs.append((predicted, _ratio(odd[0], even[0])))
    predicted, measured = zip(*pairs, strict=True)
    found = spearmanr(predicted, measured)
    within = np.mean([abs(np.log(m / p)) < np.log(1.15) for p, m in pairs])
    told = f"rank correlation {found.statistic:.2f}, {within:.0%} within 15 %"
    print(f"{len(pairs)} pairs of widths on {host().name}: {told}")


def int8() -> None:
    """Prune and quantize in one recipe, by default and with widths for float, and time all in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = folder / "model.onnx", folder / "data.npz"
        proto = zoo.build("mobilenet_v2")
        onnx.save(proto, model)
        inputs = np.random.default_rng(0).normal(size=(32, 3, 224, 224)).astype(np.float32)
        np.savez(data, **{proto.graph.input[0].name: inputs})
        files = [model]
        for number, words in enumerate(("", ", precision: float32")):
            recipe, target = folder / f"{number}.yaml", folder / f"{number}.onnx"
            recipe.write_text(
                f"threads: 1\nsteps:\n  - prune: {{ratio: 0.4, compensate: none{words}}}\n"
                "  - quantize: {mode: static, guard: false}\n"
            )
            _command("run", recipe, "--model", model, "--data", data, "-o", target)
            files.append(target)
        found = json.loads(_command("bench", *files, "--threads", 1, "--runs", 400, "--json"))["latency"].values()
        first = next(iter(found))
        for label, timing in zip(("float", "int8, default", "int8, widths for float"), found, strict=True):
            low, middle = timing["p10_ms"], timing["median_ms"]
            print(
                f"{label}: median {middle:.2f} ms ({middle / first['median_ms']:.2f}), "
                f"p10 {low:.2f} ms ({low / first['p10_ms']:.2f})"
            )


def _command(*words: object) -> str:
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


Convolution = tuple[str, tuple[int, ...], tuple[int, ...], dict[str, object]]


def _convolutions(name: str) -> list[Convolution]:
    """Return name, shape of the weight, spatial size and attributes of every undivided convolution of images."""
    view = View(onnxprune.load(zoo.build(name)))
    traced, found = trace(view, {}), []
    for node in view.nodes:
        weight = traced.shapes.get(node.inputs[1], ()) if node.op_type == "Conv" else ()
        if len(weight) == 4 and node.attribute("group", 1) == 1 and weight[0] >= 16:
            attributes = {key: value for key, value in node.attributes.items() if key != "group"}
            found.append((name, weight, traced.shapes[node.inputs[0]][2:], attributes))
    return found


def _layer(shape: tuple[int, ...], size: tuple[int, ...], attributes: dict[str, object]):
    """Return a session of one convolution, its view and its trace."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=shape).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, shape[1], *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    view = View(onnxprune.load(model))
    return session, view, trace(view, {})


def _work(layer) -> float:
    found: LayerFit = fit(layer[1], layer[2], host(), "float32").layers[0]
    return found.work


def _ratio(one: onnxruntime.InferenceSession, other: onnxruntime.InferenceSession) -> float:
    """Return the ratio of times, measured in turns."""
    feeds = [{"x": np.ones(list(s.get_inputs()[0].shape), np.float32)} for s in (one, other)]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for session, feed, store in zip((one, other), feeds, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            store.append(time.perf_counter() - start)
    return median(sorted(times[0])[: TURNS // 2]) / median(sorted(times[1])[: TURNS // 2])


if __name__ == "__main__":
    {"law": law, "padding": padding, "int8": int8}[sys.argv[1]]()
