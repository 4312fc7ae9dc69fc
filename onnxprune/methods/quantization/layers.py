"""Which nodes a mode quantizes, and how much noise the quantized model has at the output of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx

from onnxprune.errors import ModelError, OnnxpruneError, UsageError
from onnxprune.evidence.layer_parity import dequantized_names
from onnxprune.evidence.parity import SQNR_LIMIT_DB
from onnxprune.files.scratch import scratch_folder
from onnxprune.methods.quantization.recognise import nodes, precision
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.graph.session import Session

Feeds = Mapping[str, Array]
F = TypeVar("F", bound=Mapping[str, Array])

NO_TENSOR = np.zeros(0, np.bool_)
"""Stands for a sequence, which has no noise."""
EMBEDDED_LIMIT = 1 << 30
WATCHED_SAMPLES = 8

COMPUTE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention", "Gather", "EmbedLayerNormalization"}
)
"""Operators that compute with weights; the others follow them."""

MOVES = frozenset("Reshape Transpose Flatten Squeeze Unsqueeze Split Slice Resize Pad MaxPool Relu Clip".split())
"""Operators that follow the precision of what they are given."""


@dataclass(frozen=True)
class Layer:
    """A node that can be quantized. `sqnr_db`: of its output in the quantized model, None if it cannot be compared."""

    name: str
    operator: str
    output: str
    quantized: bool = True
    sqnr_db: float | None = None
    cost_db: float | None = None

    def to_json(self) -> dict[str, object]:
        """Return the fields that the report shows."""
        return {
            "name": self.name,
            "operator": self.operator,
            "computes": self.operator in COMPUTE,
            "precision": "quantized" if self.quantized else "float",
            "sqnr_db": _rounded(self.sqnr_db),
            "alone_sqnr_db": _rounded(self.cost_db),
        }


def candidates(proto: onnx.ModelProto, operators: Iterable[str], weights_only: bool) -> list[Layer]:
    """Return the nodes of the main graph that a mode would quantize, in order.

    Args:
        weights_only: only those that read a stored tensor.
    """
    stored = {t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1}
    chosen = frozenset(operators)
    return [
        Layer(node.name, node.op_type, next(o for o in node.output if o))
        for node in proto.graph.node
        if node.op_type in chosen and (not weights_only or stored & set(node.input))
    ]


def chosen_by_name(
    proto: onnx.ModelProto, skip: tuple[str, ...], only: tuple[str, ...], blocked: tuple[str, ...]
) -> set[str]:
    """Return the names of the nodes that stay float by the user's wish.

    Args:
        blocked: operators that stay float.

    Raises:
        UsageError: a pattern matches nothing.
    """
    every = list(nodes(proto.graph))
    labels = {node.name: {node.name, *node.output, *node.input} for node in every}
    matched = {pattern: _matching(labels, pattern) for pattern in (*skip, *only)}
    for pattern, names in matched.items():
        if not names:
            option = "--skip" if pattern in skip else "--only"
            raise UsageError(f"{option} '{pattern}' matches no node or tensor; 'onnxprune inspect' shows names.")
    kinds = {node.op_type for node in every}
    left = {node.name for node in every if node.op_type in blocked}
    for operator in blocked:
        if operator not in kinds:
            raise UsageError(f"--op-block-list '{operator}': the model has no such operator.")
    for pattern in skip:
        left |= matched[pattern]
    if only:
        left |= set(labels) - set().union(*(matched[pattern] for pattern in only))
    return left


def why_nothing(mode: str, proto: onnx.ModelProto) -> str:
    """Return why a mode has nothing to quantize."""
    kind = precision(proto)
    if kind not in ("", "float32"):
        return (
            f"nothing can be quantized in {mode} mode: the weights of the model are {kind}, and only float32 ones are "
            "stored in fewer bits; convert the model to float32 first."
        )
    kinds = {node.op_type for node in proto.graph.node}
    if mode == "dynamic" and "Conv" in kinds:
        return (
            "dynamic mode has nothing to quantize here: it leaves convolutions alone, which onnxruntime runs several "
            "times slower that way; take --mode static with --data."
        )
    what = {"weight-only": "product with a stored matrix", "dynamic": "matrix product or LSTM"}
    return f"nothing can be quantized in {mode} mode: the model has no {what.get(mode, 'layer that takes 8 bits')}."


def watched_feeds(feeds: Sequence[F]) -> Sequence[F]:
    """Return the first feeds that together have WATCHED_SAMPLES samples; one feed where their batch is small.

    A small batch means large activations: see `statistics.batch`.
    """
    size = max((array.shape[0] for array in feeds[0].values() if array.ndim), default=1)
    return feeds[: max(1, min(size, WATCHED_SAMPLES // max(1, size)))]


def noise(
    original: onnx.ModelProto, quantized: onnx.ModelProto, layers: list[Layer], feeds: Sequence[Feeds], threads: int = 0
) -> dict[str, float | None]:
    """Return the SQNR in dB of each layer's output, by the layer's name: quantized model against the original.

    The original's tensors are held for all feeds: give few.
    """
    pairs = _pairs(original, quantized, layers)
    if not pairs:  # all of them inside bodies
        return {}
    sums = [_Sums() for _ in pairs]
    known = list(_run(original, [pair[0] for pair in pairs.values()], feeds, threads))
    for before, after in zip(known, _run(quantized, [pair[1] for pair in pairs.values()], feeds, threads), strict=True):
        for item, a, b in zip(sums, before, after, strict=True):
            item.add(a, b)
    return {name: item.sqnr_db() for name, item in zip(pairs, sums, strict=True)}


class _Sums:
    """Energies of one tensor and of its noise, in single precision: many tensors are watched."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0
        self.fits = True

    def add(self, original: Array, other: Array) -> None:
        """Take one batch in."""
        self.fits = self.fits and original.shape == other.shape and original.dtype.kind == "f"
        if self.fits:
            a = original.ravel().astype(np.float32, copy=False)
            difference = a - other.ravel()
            with np.errstate(over="ignore"):  # a mask that stands for infinity: there is nothing to compare
                self.signal += float(a @ a)
                self.noise += float(difference @ difference)

    def sqnr_db(self) -> float | None:
        """Return the ratio in dB; None where there is nothing to compare."""
        if not self.fits or not math.isfinite(self.signal + self.noise) or not self.signal:
            return None
        return 10 * math.log10(self.signal / self.noise) if self.noise else SQNR_LIMIT_DB


def _pairs(original: onnx.ModelProto, quantized: onnx.ModelProto, layers: list[Layer]) -> dict[str, tuple[str, str]]:
    """Layer -> its tensor in the original and in the quantized model.

    A layer may have taken over the Relu behind it, which then is a part of the quantization of its output.
    """
    here, there = _made(original), _made(quantized)
    outputs = {node.name: node.output[0] for node in quantized.graph.node}
    dequantized = dequantized_names(quantized.graph)
    pairs = {}
    for layer in layers:
        name = layer.output if layer.output in there else outputs.get(layer.name, "")
        if name in here and name in there:
            pairs[layer.name] = name, dequantized.get(name, name)
    return pairs


def _run(proto: onnx.ModelProto, names: list[str], feeds: Iterable[Feeds], threads: int) -> Iterator[list[Array]]:
    """Yield the named tensors for each feed; the session goes before the next model's is opened."""
    from onnxprune.graph.session import open_session

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    present = {value.name for value in copy.graph.output}
    for name in dict.fromkeys(names):
        if name not in present:
            copy.graph.output.add(name=name)
    label = "the model with watched layers"
    with scratch_folder() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(copy, path, save_as_external_data=copy.ByteSize() > EMBEDDED_LIMIT)
        del copy
        with open_session(path, threads=threads, level="basic", arena=False, label=label) as session:
            for feed in feeds:
                yield _tensors(session, names, feed)


def _tensors(session: Session, names: list[str], feed: Feeds) -> list[Array]:
    from onnxprune.graph.session import reason

    try:
        found = session.native.run(names, session.fit(dict(feed)))
        return [value if isinstance(value, np.ndarray) else NO_TENSOR for value in found]
    except OnnxpruneError:
        raise
    except Exception as error:  # onnxruntime raises whatever it meets
        raise ModelError(f"onnxruntime cannot run {session.label}: {reason(error)}.") from error


def _made(proto: onnx.ModelProto) -> set[str]:
    return {name for node in proto.graph.node for name in node.output if name}


def _matching(labels: Mapping[str, set[str]], pattern: str) -> set[str]:
    return {name for name, words in labels.items() if any(fnmatchcase(word, pattern) for word in words)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
