"""Blocks of few bits that know each other: matrix after matrix, on what the quantized network gives, towards the float.

minimises || W X - Q X~ ||^2 over grids Q, X being what a layer reads in the original, X~ in the network whose layers
before it are quantized. With H = X~ X~^T the error is || (W' - Q) X~ ||^2 and a constant, for
W' = W + W (X - X~) X~^T H^-1: the layer is refitted, then rounded with H, and its bias keeps the mean.
Source: Li et al., GPTAQ (2025), section 3, whose steps column by column have the same solution.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.compensate.lstsq import fit
from onnxprune.compensate.problem import Problem, RowBlocks
from onnxprune.compensate.readers import Reader, find_readers
from onnxprune.compensate.refit import LayerError, RefitOptions, Walk
from onnxprune.compensate.weights import Weights
from onnxprune.graph.model import Model
from onnxprune.methods.quantization import rounding
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array, FloatArray

Blocks = tuple[Array, Array, Array]
"""Codes (outputs, blocks, block size), scales (outputs, blocks), zero points: see `weight_only.round_blocks`."""


Rounded = tuple[Blocks, Array]
"""Blocks, and the weights (outputs, features + 1), the bias last, that they stand for."""


@dataclass(frozen=True)
class BlockGrid:
    """Bits of a weight, and how many weights share a scale."""

    bits: int
    size: int


@dataclass(frozen=True)
class BlockLayer:
    """A matrix in blocks, and the bias that goes with it.

    bias: None where it stays. target: the stored tensor of the bias.
    """

    blocks: Blocks
    bias: Array | None = None
    target: str = ""


def walked(
    proto: onnx.ModelProto,
    names: Collection[str],
    given: Mapping[str, Blocks],
    feeds: Sequence[Feed],
    grid: BlockGrid,
    threads: int = 0,
) -> dict[str, BlockLayer]:
    """Return blocks and biases by the name of the product, for each that is alone with its matrix.

    Args:
        proto: prepared, Gemm split.
        names: of products that are put into blocks.
        given: stored matrix -> blocks that it has already, of products that are not alone with theirs.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    weights = Weights(Model(copy))
    for name, blocks in given.items():
        matrix = weights.value(name)
        if matrix is not None:
            weights.replace(name, meant(blocks, len(matrix)).T)
    walk = BlockWalk(Model(proto), weights, feeds, names, grid, threads)
    walk.run()
    return walk.found


class BlockWalk(Walk):
    """Both networks side by side: every product is refitted and put into blocks."""

    def __init__(
        self,
        original: Model,
        weights: Weights,
        feeds: Sequence[Feed],
        names: Collection[str],
        grid: BlockGrid,
        threads: int = 0,
    ) -> None:
        """Take the names of the products."""
        self._names, self._grid = names, grid
        self.found: dict[str, BlockLayer] = {}
        super().__init__(original, weights, {}, list(feeds), RefitOptions(mix=False, threads=threads or None))

    def suited(self, readers: list[Reader]) -> list[Reader]:
        """Return the products whose matrix is their own; a bias that others use as well stays."""
        own = [r for r in readers if r.node.name in self._names and is_plain(r, self._weights)]
        return [r if has_own_bias(r, self._weights) else bare(r) for r in own]

    def change(self, reader: Reader) -> LayerError:
        """Refit one product, and put it into blocks."""
        problem = self.problem(reader)
        blocks = RowBlocks(problem, self._lstsq)
        blocks.keep()
        result = fit(problem, self._lstsq, blocks)
        gram, mean = second_moment(blocks, problem.start.shape[2] - 1)
        starts = [problem.start[0], *([result.weights[0]] if result.used else [])]
        rounded = [self._rounded(start, gram, mean, problem.free_bias) for start in starts]
        made, weights = nearest_outputs(rounded, blocks, problem)
        reader.store(self._weights, weights[None])
        self.found[reader.node.name] = BlockLayer(made, *_bias(reader, weights[:, -1]))
        level = max(result.level, 1e-30)
        return LayerError(reader.name, reader.node.op_type, result.before / level, result.after / level, True)

    def _rounded(self, start: Array, gram: FloatArray, mean: FloatArray, free_bias: bool) -> Rounded:
        """Return weights (outputs, features + 1) in blocks, and as these stand for them; a free bias keeps the mean."""
        matrix, bias = start[:, :-1].astype(np.float32), start[:, -1]
        central = gram - np.outer(mean, mean) if free_bias else gram
        made = rounding.round_with_gram(matrix.T, central, self._grid.bits, self._grid.size)
        found = meant(made, matrix.shape[1])
        if free_bias:
            bias = bias + (matrix - found) @ mean
        return made, np.concatenate([found, bias[:, None]], axis=1)


def nearest_outputs(rounded: Sequence[Rounded], blocks: RowBlocks, problem: Problem) -> Rounded:
    """Return of every output the weights that come nearest to its targets, once rounded.

    Where the input hardly varies in some directions a refit makes up for little by large weights, and these have wide
    steps: what was nearer before it was rounded may be farther then. Outputs do not know of each other.
    """
    best = np.argmin([output_errors(weights, blocks, problem) for _, weights in rounded], axis=0)
    outputs = np.arange(len(best))
    codes, scales, zeros, weights = (
        np.stack(parts)[best, outputs] for parts in zip(*((*made, weights) for made, weights in rounded), strict=True)
    )
    return (codes, scales, zeros), weights


def output_errors(weights: Array, blocks: RowBlocks, problem: Problem) -> FloatArray:
    """Return (outputs,) the squared error of each output over the rows, as far as what follows shows it."""
    low, high = problem.clamp or (-np.inf, np.inf)
    errors, turned = np.zeros(len(weights)), weights.T.astype(np.float32)
    for _, rows, targets, offsets in blocks:
        shift = np.float32(0) if offsets is None else offsets[0]
        given, wanted = rows[0] @ turned + shift, targets[0] + shift
        errors += np.square(np.clip(given, low, high) - np.clip(wanted, low, high), dtype=np.float64).sum(axis=0)
    return errors


def second_moment(blocks: RowBlocks, features: int) -> tuple[FloatArray, FloatArray]:
    """Return the second moment (features, features) and the mean of what a product reads."""
    total = np.zeros((features + 1, features + 1))
    for _, rows, _, _ in blocks:
        total += rows[0].T @ rows[0]
    count = max(total[-1, -1], 1.0)
    return total[:-1, :-1] / count, total[-1, :-1] / count


def meant(blocks: Blocks, features: int) -> Array:
    """Return (outputs, features) weights that blocks stand for."""
    codes, scales, zeros = blocks
    whole = (codes.astype(np.float32) - zeros[..., None].astype(np.float32)) * scales[..., None]
    return np.asarray(whole.reshape(len(whole), -1)[:, :features])


def is_plain(reader: Reader, weights: Weights) -> bool:
    """Tell whether a matrix is a stored tensor of this product alone, and nothing scales what it gives."""
    own = weights.is_own(reader.node.input[1])
    return reader.weight_index == 1 and own and bool((reader.scale == 1).all())


def has_own_bias(reader: Reader, weights: Weights) -> bool:
    """Tell whether a product has no bias, or one that is a stored tensor of nobody else."""
    sink = reader.sink
    if sink is None or sink.index is None:
        return sink is None
    name = sink.node.input[sink.index]
    return weights.source(name) == name and weights.is_own(name)


def bare(reader: Reader) -> Reader:
    """Return a product by itself, without what is added behind it."""
    return replace(reader, y=reader.node.output[0], sink=None, other="", total="", clamp=None)


def alone(proto: onnx.ModelProto, names: Collection[str]) -> set[str]:
    """Return the products that a walk can change: see `is_plain`."""
    weights = Weights(Model(proto))
    return {r.node.name for r in find_readers(weights) if r.node.name in names and is_plain(r, weights)}


def _bias(reader: Reader, bias: Array) -> tuple[Array | None, str]:
    sink = reader.sink
    if sink is None or sink.index is None:
        return None, ""
    return sink.content(bias).astype(np.float32), sink.node.input[sink.index]


def put_biases(proto: onnx.ModelProto, found: Mapping[str, BlockLayer]) -> None:
    """Give layers their new biases, in place."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for layer in found.values():
        if layer.bias is not None:
            tensor = stored[layer.target]
            kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(layer.bias.astype(kind).reshape(tuple(tensor.dims)), tensor.name))
