"""What lies at the border, taken away: `python benchmarks/trim_table.py [--only ocr]`.

Made networks of the sizes that people ask about, with random weights: text recognisers over 8,210 and over 6,625
characters that are to read 63, a sentence encoder over 30,522 tokens of which 3,000 are in use. `file` and `latency`
are shares of the original's (interleaved medians, one thread), `same` what the result must show.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnxprune.methods.trim import TrimOptions, trim
from tests.micro.build import Net

Arrays = dict[str, np.ndarray]
ROUNDS = 30
LETTERS = 63


@dataclass(frozen=True)
class Case:
    """A network, what is trimmed, inputs, and what compares the outputs before and after."""

    name: str
    model: Callable[[], onnx.ModelProto]
    options: dict[str, object]
    feeds: Callable[[np.random.Generator], Arrays]
    same: Callable[[list[np.ndarray], list[np.ndarray]], str]


def recogniser(characters: int, width: int) -> Callable[[], onnx.ModelProto]:
    """Text lines of 32 pixels: seven convolutions, a projection to `width`, scores for every 4 pixels."""

    def made() -> onnx.ModelProto:
        net = Net()
        x = net.input("n", 1, 32, 256)
        sizes = (1, 32, 64, 128, 128, 256, 256)
        for number, (inner, outer) in enumerate(pairwise(sizes)):
            strides = [2, 2] if number in (0, 2) else [2, 1] if number in (3, 4, 5) else [1, 1]
            x = net.Relu(net.conv(x, inner, outer, strides=strides))
        x = net.transpose(net.reduce("Mean", x, [2], keepdims=0), 0, 2, 1)
        x = net.Relu(net.linear(x, 256, width))
        net.output(net.Softmax(net.linear(x, width, characters), axis=2))
        return net.model()

    return made


def encoder(words: int = 30522, width: int = 384, layers: int = 3) -> onnx.ModelProto:
    """Embeddings, positions, layers of attention and MLP, the mean over tokens: a small sentence encoder."""
    net = Net()
    ids = net.input("n", 64, name="ids", dtype=np.int64)
    x = net.Gather(net.weight(words, width, name="words"), ids, axis=0)
    x = net.layer_norm(net.Add(x, net.weight(1, 64, width)), width)
    for _ in range(layers):
        split = [net.reshape(net.linear(x, width, width), 0, 64, 12, width // 12) for _ in "qkv"]
        heads = [net.transpose(part, 0, 2, 1, 3) for part in split]
        scores = net.Mul(net.MatMul(heads[0], net.transpose(heads[1], 0, 1, 3, 2)), net.number((width / 12) ** -0.5))
        mixed = net.transpose(net.MatMul(net.Softmax(scores, axis=-1), heads[2]), 0, 2, 1, 3)
        x = net.layer_norm(net.Add(x, net.linear(net.reshape(mixed, 0, 64, width), width, width)), width)
        x = net.layer_norm(net.Add(x, net.linear(net.Relu(net.linear(x, width, 4 * width)), 4 * width, width)), width)
    net.output(net.reduce("Mean", x, [1], keepdims=0))
    return net.model()


def same_text(before: list[np.ndarray], after: list[np.ndarray]) -> str:
    """Compare the best of the kept characters at every place, and the scores anew over what is kept."""
    kept = before[0][..., : after[0].shape[-1]]
    agreement = float((kept.argmax(-1) == after[0].argmax(-1)).mean())
    error = np.abs(kept / kept.sum(-1, keepdims=True) - after[0]).max() / after[0].max()
    return f"text {agreement:.4f}, error {error:.1e}"


def same_meaning(before: list[np.ndarray], after: list[np.ndarray]) -> str:
    """Compare sentences: the first half has kept tokens only, in the second every eighth token is a rare one."""
    one, other = before[0].astype(np.float64), after[0].astype(np.float64)
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    half = len(cosine) // 2
    return f"kept {cosine[:half].min():.7f}, rare {cosine[half:].min():.5f}"


def sentences(rng: np.random.Generator) -> Arrays:
    ids = rng.integers(0, 3000, size=(16, 64))
    ids[8:, ::8] = rng.integers(3000, 30522, size=(8, 8))
    return {"ids": ids}


def lines(rng: np.random.Generator) -> Arrays:
    return {"x": rng.normal(size=(4, 1, 32, 256)).astype(np.float32)}


def cases() -> list[Case]:
    letters, tokens = f"0-{LETTERS - 1}", {"ids": "0-2999"}
    return [
        Case("ocr 8,210 -> 63", recogniser(8210, 1024), {"keep": {"OUT:2": letters}}, lines, same_text),
        Case("ocr 6,625 -> 63", recogniser(6625, 120), {"keep": {"OUT:2": letters}}, lines, same_text),
        *(
            Case(f"30,522 -> 3,000 tokens, {rare}", encoder, {"tokens": tokens, "rare": rare}, sentences, same_meaning)
            for rare in ("int8", "int5", "nearest", "unk=100")
        ),
    ]


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(case: Case, folder: Path) -> str:
    """Return one row of the table."""
    model = case.model()
    output = model.graph.output[0].name
    keep = {key.replace("OUT", output): spec for key, spec in dict(case.options.get("keep", {})).items()}  # type: ignore[call-overload]
    files = [folder / "before.onnx", folder / "after.onnx"]
    onnx.save(model, files[0])
    start = time.process_time()
    result = trim(files[0], TrimOptions(**{**case.options, "keep": keep}))  # type: ignore[arg-type]
    seconds = time.process_time() - start
    onnx.save(result.model.proto, files[1])
    feeds = case.feeds(np.random.default_rng(0))
    sessions = [session(file) for file in files]
    outputs = [opened.run(None, feeds) for opened in sessions]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for number, opened in enumerate(sessions):
            begin = time.perf_counter()
            opened.run(None, feeds)
            times[number].append(time.perf_counter() - begin)
    latency = np.median(times[1]) / np.median(times[0])
    sizes = [file.stat().st_size / 1e6 for file in files]
    return (
        f"| {case.name} | {sizes[0]:.1f} | {sizes[1]:.1f} | {sizes[1] / sizes[0]:.2f} | {latency:.2f} "
        f"| {case.same(*outputs)} | {seconds:.1f} |"
    )


def main() -> None:
    """Print one row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    print("| case | MB | MB after | file | latency | same | CPU s |")
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            if options.only in case.name:
                print(measure(case, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
