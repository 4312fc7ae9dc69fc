"""A language model of characters, trained here on text that Python ships, and what pruning it costs in perplexity.

    python benchmarks/characters.py [--steps 2000] [--folder DIR]

The text is that of `help()` (pydoc_data.topics). The model is a decoder of two layers; it is trained with the gradient
graphs and the optimiser of this package, and pruned without labels: half of the feed-forward layers and a quarter of
the heads go. Perplexity is that of the last tenth of the text, which nothing else sees. The second table has no data:
what the model writes itself, against as many samples of random characters and of the text.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import Run
from onnxprune.channels.analyse import analyse
from onnxprune.compensate.descent import Descent
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.compensate.terms import label_term
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.synthetic import synthetic

LAYERS, WIDTH, HEADS, INNER, LENGTH, BATCH = 2, 128, 8, 512, 64, 16
SAMPLES = 512
WAYS = {
    "magnitude": {"score": "l2", "compensate": "none"},
    "magnitude of weights times inputs (Wanda-sp)": {"score": "wanda", "compensate": "none"},
    "fluctuation and biases (FLAP)": {"score": "flap", "compensate": "bias"},
    "least squares": {"compensate": "lstsq"},
    "least squares and steps": {},
}


class Drawing:
    """Draws the decoder with random weights."""

    def __init__(self, words: int) -> None:
        self.random, self.words = np.random.default_rng(0), words
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[TensorProto] = []

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        """Add a node; return its output."""
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: object) -> str:
        """Add a stored tensor."""
        self.stored.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def linear(self, name: str, x: str, inner: int, outer: int) -> str:
        """Multiply with a matrix and add a bias."""
        weight = self.random.normal(size=(inner, outer)).astype(np.float32) / np.float32(inner**0.5)
        y = self.op("MatMul", x, self.constant(f"{name}.weight", weight), name=f"{name}.product")
        return self.op("Add", y, self.constant(f"{name}.bias", np.zeros(outer, np.float32)), name=name)

    def norm(self, name: str, x: str) -> str:
        """Normalise the width."""
        gain = self.constant(f"{name}.gain", np.ones(WIDTH, np.float32))
        shift = self.constant(f"{name}.shift", np.zeros(WIDTH, np.float32))
        return self.op("LayerNormalization", x, gain, shift, name=name, axis=-1)

    def heads(self, x: str, *order: int) -> str:
        """Give every head an axis of its own."""
        return self.op("Transpose", self.op("Reshape", x, "split"), perm=order)

    def layer(self, name: str, x: str) -> str:
        """Add attention to what came before, and a feed-forward layer."""
        y = self.norm(f"{name}.norm", x)
        parts = [self.linear(f"{name}.{part}", y, WIDTH, WIDTH) for part in ("query", "key", "value")]
        query, key, value = (
            self.heads(p, *o) for p, o in zip(parts, [(0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)], strict=True)
        )
        scores = self.op("Mul", self.op("MatMul", query, key), "scale")
        mixed = self.op("MatMul", self.op("Softmax", self.op("Add", scores, "mask"), axis=-1), value)
        mixed = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), "join")
        x = self.op("Add", x, self.linear(f"{name}.out", mixed, WIDTH, WIDTH), name=f"{name}.attention")
        y = self.op("Relu", self.linear(f"{name}.up", self.norm(f"{name}.norm2", x), WIDTH, INNER))
        return self.op("Add", x, self.linear(f"{name}.down", y, INNER, WIDTH), name=f"{name}.feed")

    def model(self) -> onnx.ModelProto:
        """Return the decoder: (n, LENGTH) characters -> (n, LENGTH, words) scores of the next one."""
        self.constant("split", np.array([0, 0, HEADS, WIDTH // HEADS]))
        self.constant("join", np.array([0, 0, -1]))
        self.constant("scale", np.float32((WIDTH // HEADS) ** -0.5))
        self.constant("mask", np.triu(np.full((LENGTH, LENGTH), -1e5, np.float32), 1))
        for name, value in (("depth", np.array([self.words])), ("values", np.array([0, 1], np.float32))):
            self.constant(name, value)
        hot = self.op("OneHot", "ids", "depth", "values", axis=-1, name="hot")
        table = self.random.normal(size=(self.words, WIDTH)).astype(np.float32) / 4
        x = self.op("MatMul", hot, self.constant("table", table), name="looked_up")
        places = self.random.normal(size=(LENGTH, WIDTH)).astype(np.float32) / 8
        x = self.op("Add", x, self.constant("places", places))
        for number in range(LAYERS):
            x = self.layer(f"layer{number}", x)
        y = self.linear("scores", self.norm("last", x), WIDTH, self.words)
        ends = [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", LENGTH]),
            helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", LENGTH, self.words]),
        ]
        graph = helper.make_graph(self.nodes, "characters", ends[:1], ends[1:], self.stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def with_flat_scores(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with one row of scores for each character, as the loss wants it."""
    flat = onnx.ModelProto.FromString(proto.SerializeToString())
    words = flat.graph.output[0].type.tensor_type.shape.dim[2].dim_value
    flat.graph.initializer.append(numpy_helper.from_array(np.array([-1, words]), "flat"))
    flat.graph.node.append(helper.make_node("Reshape", ["scores", "flat"], ["rows"]))
    flat.graph.output[0].CopyFrom(helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["m", words]))
    return flat


def looked_up(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with a Gather of the table instead of a product with a row of zeros and a one."""
    made = onnx.ModelProto.FromString(proto.SerializeToString())
    nodes = [node for node in made.graph.node if node.name not in ("hot", "looked_up")]
    nodes.insert(0, helper.make_node("Gather", ["table", "ids"], ["looked_up"], "looked_up"))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    left = [tensor for tensor in made.graph.initializer if tensor.name not in ("depth", "values")]
    del made.graph.initializer[:]
    made.graph.initializer.extend(left)
    return made


def train(proto: onnx.ModelProto, text: np.ndarray, words: int, steps: int, rate: float) -> onnx.ModelProto:
    """Return the model after steps down the cross-entropy of the next character."""
    random = np.random.default_rng(1)
    feed = {"ids": np.zeros((BATCH, LENGTH), np.int64)}
    term = label_term("cross-entropy", "rows", (BATCH * LENGTH, words), "labels", 1.0)
    gradient = gradient_graph(Model(with_flat_scores(proto)), {}, {}, feed, [term])
    session = open_session(gradient.proto, threads=1)
    descent = Descent(gradient.weights, gradient.matrices, rate, steps)
    eye, losses = np.eye(words, dtype=np.float32), []
    for step in range(1, steps + 1):
        rows = windows(text, random.integers(0, len(text) - LENGTH - 1, BATCH))
        given = {"ids": rows[:, :-1], "labels": eye[rows[:, 1:].ravel()], **descent.weights, **gradient.seed()}
        loss, *slopes = session.values(gradient.outputs(), given)
        descent.step(slopes)
        losses.append(float(np.ravel(loss)[0]))
        if step % 250 == 0:
            print(f"step {step}: loss {np.mean(losses[-250:]):.3f}", flush=True)
    trained = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in trained.graph.initializer:
        if tensor.name in descent.weights:
            tensor.CopyFrom(numpy_helper.from_array(descent.weights[tensor.name], tensor.name))
    return trained


def windows(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return (n, LENGTH + 1) characters from each start on."""
    return text[starts[:, None] + np.arange(LENGTH + 1)]


def perplexity(proto: onnx.ModelProto, text: np.ndarray) -> float:
    """Return the perplexity of a text, in windows that do not overlap."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = windows(text, np.arange(0, len(text) - LENGTH - 1, LENGTH))
    total = 0.0
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        scores = session.run(None, {"ids": part[:, :-1]})[0].astype(np.float64)
        scores -= scores.max(axis=-1, keepdims=True)
        chances = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        total -= np.take_along_axis(chances, part[:, 1:, None], axis=-1).sum()
    return float(np.exp(total / (len(rows) * LENGTH)))


def main() -> None:
    """Train, prune, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--folder", type=Path, help="where the trained model is kept, and taken from if it is there")
    given = parser.parse_args()
    whole = "\n".join(topics[name] for name in sorted(topics))
    letters = sorted(set(whole))
    text = np.searchsorted(letters, list(whole))
    train_text, test_text = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    print(f"{len(text)} characters, {len(letters)} different ones", flush=True)
    kept = given.folder / "characters.onnx" if given.folder else None
    if kept is not None and kept.exists():
        model = onnx.load(kept)
    else:
        start = time.process_time()
        model = looked_up(train(Drawing(len(letters)).model(), train_text, len(letters), given.steps, given.rate))
        print(f"trained in {time.process_time() - start:.0f} CPU s", flush=True)
        if kept is not None:
            onnx.save(model, kept)
    starts = np.random.default_rng(2).integers(0, len(train_text) - LENGTH - 1, SAMPLES)
    data = {"ids": windows(train_text, starts)[:, :-1]}
    whole_one = perplexity(model, test_text)
    print("| what | perplexity | lost | CPU s |\n| --- | ---: | ---: | ---: |")
    print(f"| the model | {whole_one:.3f} | | |", flush=True)
    ratios = {"layer*.up*": 0.5, "layer*.value*": 0.25}

    def show(name: str, given: dict[str, np.ndarray] | None, **options: object) -> None:
        start = time.process_time()
        result = onnxprune.prune(
            model, given, ratios=ratios, exact_only=True, align=1, heads=True, run=Run(threads=1), **options
        )
        found = perplexity(result.model.proto, test_text)
        print(f"| {name} | {found:.3f} | {found - whole_one:.3f} | {time.process_time() - start:.0f} |", flush=True)

    for name, options in WAYS.items():
        show(name, data, **options)
    own = synthetic(analyse(onnxprune.load(model)), {}, 0, Runtime(1)).samples
    chance = np.random.default_rng(3).integers(0, len(letters), (own, LENGTH))
    print(f"Without data, {own} samples:\n| what | perplexity | lost | CPU s |\n| --- | ---: | ---: | ---: |")
    show("no refit", None, compensate="none")
    show("random characters, least squares", {"ids": chance}, compensate="lstsq")
    show("its own text, least squares (the default)", None)
    show("real text, least squares", {"ids": data["ids"][:own]}, compensate="lstsq")


if __name__ == "__main__":
    main()
