"""A large made decoder, as builders for onnxruntime-genai write it: seconds to analyse it, memory and time of a prune.

    python benchmarks/decoder.py [--gigabytes 3] [--layers 32] [--packed] [--folder DIR] [OPTION OF PRUNE ..]

The weights are random and lie in another file. Target: memory below 2 GB and 1.5 times the largest tensor, at most 4
times the seconds of copying the file. Memory is that of the process itself; pages of mapped files are named apart.
Without options of prune the feed-forward layers lose 30 %.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.processes.memory import taken

WORDS, HEAD, BLOCK, ANGLES = 32_000, 128, 32, 4096
TURN = 7919
EVERY = 0.02
"""Seconds between two looks at the memory of a command."""
MICROSOFT = "com.microsoft"
MLP = ["--ratio", "0.3", "--exact-only", "--no-heads"]


@dataclass
class Decoder:
    """Draws a decoder of some layers, writing its weights into a file as it goes.

    width: of the residual stream. packed: weights in 4 bits, in blocks.
    """

    data: BinaryIO
    location: str
    width: int
    packed: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    ends: tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]] = field(default_factory=lambda: ([], []))

    def stored(self, name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT, level: float = 0.02) -> str:
        """Add a random tensor, written in pieces."""
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        tensor, start, random = TensorProto(name=name, dims=shape, data_type=kind), self.data.tell(), _random(dtype)
        left = int(np.prod(shape)) * dtype.itemsize
        random = np.roll(random, TURN * len(self.weights))  # runtimes keep what is equal once
        piece = (random * np.float32(level)).astype(dtype).tobytes() if dtype.kind == "f" else random.tobytes()
        size = left
        while left:
            left -= self.data.write(piece[: min(left, len(piece))])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.location), ("offset", str(start)), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
        self.weights.append(tensor)
        return name

    def op(self, kind: str, *inputs: str, outputs: tuple[str, ...] = (), domain: str = "", **attributes: object) -> str:
        """Add a node; return its first output."""
        outputs = outputs or (f"{kind.lower()}_{len(self.nodes)}",)
        self.nodes.append(helper.make_node(kind, inputs, outputs, outputs[0], domain=domain, **attributes))
        return outputs[0]

    def product(self, name: str, x: str, inner: int, outer: int) -> str:
        """Multiply with a matrix, packed or plain."""
        if not self.packed:
            return self.op("MatMul", x, self.stored(name, (inner, outer)))
        blocks = inner // BLOCK
        packed = self.stored(f"{name}.int4", (outer, blocks, BLOCK // 2), TensorProto.UINT8)
        stored = [packed, self.stored(f"{name}.scales", (outer, blocks), level=0.002)]
        sizes = {"K": inner, "N": outer, "bits": 4, "block_size": BLOCK}
        return self.op("MatMulNBits", x, *stored, domain=MICROSOFT, **sizes)

    def added(self, name: str, x: str, y: str) -> tuple[str, str]:
        """Return the norm of a sum, and the sum."""
        gain = self.stored(f"{name}.norm", (self.width,), level=1.0)
        outputs = (f"{name}.normalised", "", "", f"{name}.sum")
        self.op("SkipSimplifiedLayerNormalization", x, y, gain, outputs=outputs, domain=MICROSOFT, epsilon=1e-5)
        return outputs[0], outputs[3]

    def layer(self, name: str, x: str, y: str, lengths: tuple[str, str], angles: list[str]) -> tuple[str, str]:
        """Draw attention with a cache and a gated feed-forward layer; return the norm of the sum, and the sum."""
        heads, shared = self.width // HEAD, max(1, self.width // HEAD // 4)
        sizes = {"q": heads * HEAD, "k": shared * HEAD, "v": shared * HEAD}
        query, key, value = (self.product(f"{name}.{part}", y, self.width, size) for part, size in sizes.items())
        query, key = (
            self.op("RotaryEmbedding", part, "position_ids", *angles, domain=MICROSOFT) for part in (query, key)
        )
        caches = []
        for kind in ("key", "value"):
            caches.append(f"past_key_values.{name}.{kind}")
            shapes = [["n", shared, length, HEAD] for length in ("past", "total")]
            self.ends[0].append(helper.make_tensor_value_info(caches[-1], TensorProto.FLOAT, shapes[0]))
            self.ends[1].append(helper.make_tensor_value_info(f"present.{name}.{kind}", TensorProto.FLOAT, shapes[1]))
        outputs = (f"{name}.attention", f"present.{name}.key", f"present.{name}.value")
        mixed = self.op(
            *("GroupQueryAttention", query, key, value, *caches, *lengths),
            outputs=outputs,
            domain=MICROSOFT,
            num_heads=heads,
            kv_num_heads=shared,
        )
        y, x = self.added(f"{name}.a", x, self.product(f"{name}.o", mixed, heads * HEAD, self.width))
        wide = _inner(self.width)
        gate, up = (self.product(f"{name}.{part}", y, self.width, wide) for part in ("gate", "up"))
        inner = self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up)
        return self.added(f"{name}.f", x, self.product(f"{name}.down", inner, wide, self.width))


def _inner(width: int) -> int:
    return 11 * width // 4 // 256 * 256


@cache
def _random(dtype: np.dtype[np.generic]) -> np.ndarray:
    """Return random numbers that are written again and again: nothing here looks at what they are."""
    rng = np.random.default_rng(0)
    size = 1 << 20
    return rng.standard_normal(size, np.float32) if dtype.kind == "f" else rng.integers(0, 256, size).astype(dtype)


def parameters(width: int, layers: int) -> int:
    """Return how many numbers a decoder holds."""
    return layers * (width * width * 5 // 2 + 3 * width * _inner(width)) + 2 * WORDS * width


def make(path: Path, layers: int, width: int, packed: bool) -> None:
    """Write a decoder."""
    with path.with_suffix(".data").open("wb") as data:
        net = Decoder(data, path.with_suffix(".data").name, width, packed)
        shapes = {"input_ids": ["n", "new"], "attention_mask": ["n", "total"], "position_ids": ["n", "new"]}
        net.ends[0].extend(helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n, shape in shapes.items())
        net.weights += [helper.make_tensor(n, TensorProto.INT64, [1], [1]) for n in ("one", "last")]
        length = net.op("Sub", net.op("ReduceSum", "attention_mask", "last", keepdims=0), "one")
        total = net.op("Gather", net.op("Shape", "attention_mask"), net.op("Squeeze", "one"))
        lengths = net.op("Cast", length, to=TensorProto.INT32), net.op("Cast", total, to=TensorProto.INT32)
        angles = [net.stored(part, (ANGLES, HEAD // 2), level=1.0) for part in ("cosines", "sines")]
        x = net.op("Gather", net.stored("words", (WORDS, width)), "input_ids")
        y = net.op("SimplifiedLayerNormalization", x, net.stored("norm", (width,), level=1.0), epsilon=1e-5, axis=-1)
        for number in range(layers):
            y, x = net.layer(str(number), x, y, lengths, angles)
        logits = net.product("head", y, width, WORDS)
        net.op("Identity", logits, outputs=("logits",))
    net.ends[1].append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "new", WORDS]))
    graph = helper.make_graph(net.nodes, "decoder", *net.ends, net.weights)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString())


@dataclass(frozen=True)
class Usage:
    """What a command took: wall and CPU seconds; MiB of memory at the peak, and with pages of mapped files in it."""

    seconds: float
    cpu: float
    own: float
    resident: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:7.1f} s, {self.cpu:6.1f} CPU s, {self.own:6.0f} MiB ({self.resident:.0f} MiB with pages of "
            "files, which the system takes back)"
        )


def run(words: list[str]) -> Usage:
    """Return what a command takes, looked at from outside; its last lines are shown where it fails."""
    start, own = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
        while True:
            number, status, used = os.wait4(process.pid, os.WNOHANG)
            if number:
                break
            own = max(own, taken(process.pid))
            time.sleep(EVERY)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            print("\n".join(said.read().decode(errors="replace").splitlines()[-5:]))
            raise SystemExit(f"the command failed with exit code {process.returncode}")
    return Usage(seconds, used.ru_utime + used.ru_stime, own / (1 << 20), used.ru_maxrss / 1024)


def copy(source: Path, target: Path) -> None:
    """Copy a file by reading and writing it to the disk; file systems may share its blocks otherwise."""
    with source.open("rb") as given, target.open("wb") as taken_over:
        shutil.copyfileobj(given, taken_over, 1 << 24)
        taken_over.flush()
        os.fsync(taken_over.fileno())


def main() -> None:
    """Make the decoder, copy it, analyse it, prune it, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--analysis-only", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the files are made (and removed again)")
    given, prune = parser.parse_known_args()
    each = 0.5 + 4 / BLOCK if given.packed else 4
    widths = range(HEAD * 4, HEAD * 400, HEAD * 4)
    width = min(widths, key=lambda width: abs(parameters(width, given.layers) * each / 1e9 - given.gigabytes))
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        source, output = folder / "decoder.onnx", folder / "pruned.onnx"
        make(source, given.layers, width, given.packed)
        size = sum(path.stat().st_size for path in folder.iterdir())
        nodes = len(onnx.load(source, load_external_data=False).graph.node)
        print(f"{given.layers} layers of width {width}, {nodes} nodes, {size / 1e9:.2f} GB", flush=True)
        usage = run([sys.executable, "-m", "onnxprune.cli", "inspect", str(source), "--json"])
        print(f"inspect   {usage}", flush=True)
        if given.analysis_only:
            return
        start = time.perf_counter()
        copy(source.with_suffix(".data"), folder / "copy.data")
        copying = time.perf_counter() - start
        (folder / "copy.data").unlink()
        words = [sys.executable, "-m", "onnxprune.cli", "prune", str(source), "-o", str(output), *(prune or MLP), "-q"]
        usage = run(words)
        left = sum(path.stat().st_size for path in folder.glob("pruned*"))
        print(f"copy      {copying:7.1f} s")
        print(f"prune     {usage}, {left / size:.2f} of the bytes")


if __name__ == "__main__":
    main()
