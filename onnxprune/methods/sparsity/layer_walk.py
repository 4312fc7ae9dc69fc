"""Zeros on data: layer by layer, on the inputs that the sparse network gives, towards what the original gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.compensate.lstsq import moments
from onnxprune.compensate.problem import RowBlocks
from onnxprune.compensate.readers import Reader
from onnxprune.compensate.refit import LayerError, RefitOptions, Walk
from onnxprune.compensate.ridge import Moments, ridge
from onnxprune.compensate.weights import Weights
from onnxprune.graph.model import Model
from onnxprune.methods.sparsity.patterns import Pattern
from onnxprune.methods.sparsity.reconstruct import BLOCK, damped, polish, reconstruct
from onnxprune.statistics.data import Data
from onnxprune.types import Array, BoolArray

TOWARDS = 1e-2
"""Ridge strength with which a dense layer first makes up for the layers before it."""


@dataclass(frozen=True)
class Goal:
    """What one layer is to become.

    score: "obc", "wanda", "magnitude" or "random".
    rebuild: change the weights that stay.
    """

    pattern: Pattern
    sparsity: float
    score: str
    rebuild: bool
    seed: int = 0


class SparseWalk(Walk):
    """Gives every reader that has a goal its zeros."""

    def __init__(
        self, original: Model, weights: Weights, data: Data, goals: Mapping[str, Goal], options: RefitOptions
    ) -> None:
        """Take goals by the first output of the node."""
        super().__init__(original, weights, {}, list(data), replace(options, mix=False))
        self._goals = goals
        self.readers = [reader for reader in self.readers if reader.node.output[0] in goals]
        self.done = {reader.node.output[0] for reader in self.readers}

    def change(self, reader: Reader) -> LayerError:
        goal, problem = self._goals[reader.node.output[0]], self.problem(reader)
        train, held = moments(RowBlocks(problem, self._options.lstsq), problem)
        found = train + held
        start, plain = problem.start, reader.layout.matrix(reader.weight)
        wanted = ridge(found, start, TOWARDS, free_bias=problem.free_bias) if goal.rebuild else start
        parts = []
        for group in range(len(start)):
            gram = second_moment(found, group, problem.free_bias)
            if goal.score in ("magnitude", "random"):
                chosen = mask(plain[group], None, goal, group)
                parts.append(fitted(wanted[group, :, :-1], gram, chosen) if goal.rebuild else (plain[group], chosen))
            else:
                parts.append(solve(wanted[group, :, :-1], gram, goal, group))
        weight, keep = np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts])
        if not goal.rebuild:
            weight = start[:, :, :-1]
        result = with_bias(np.where(keep, weight, 0.0), start, found, problem.free_bias and goal.rebuild)
        left = reader.layout.weight(np.where(keep, plain, 0.0), reader.like.shape)
        zeroed = replace(reader, read=lambda: left)
        zeroed.store(self._weights, result)
        cut = np.stack([mask(part, None, replace(goal, score="magnitude"), 0) for part in plain])
        magnitude = with_bias(np.where(cut, start[:, :, :-1], 0.0), start, found, False)
        level = max(found.spread(), 1e-30)
        errors = found.error(magnitude) / level, found.error(result) / level
        return LayerError(reader.name, reader.node.op_type, *errors, True)


def second_moment(found: Moments, group: int, centred: bool) -> Array:
    """Return the (features, features) second moment of a group, without the mean where a bias takes care of it."""
    count = max(found.count, 1.0)
    gram = found.gram[group, :-1, :-1] / count
    mean = found.gram[group, -1, :-1] / count
    return np.asarray(gram - np.outer(mean, mean) if centred else gram)


def solve(wanted: Array, gram: Array, goal: Goal, number: int) -> tuple[Array, BoolArray]:
    """Return weights (outs, features) with zeros and their mask.

    Args:
        wanted: dense weights to come near to.
        gram: (features, features) second moment of the inputs.
        number: tells layers and groups apart where numbers are drawn.
    """
    if goal.score != "obc":
        chosen = mask(wanted, gram, goal, number)
        return fitted(wanted, gram, chosen) if goal.rebuild else (np.where(chosen, wanted, 0.0), chosen)
    hessian = damped(gram)
    pattern = goal.pattern

    def choose(scores: Array) -> BoolArray:
        return pattern.keep(scores, goal.sparsity)

    weight, keep = reconstruct(wanted, hessian, choose, pattern.step(BLOCK))
    return polish(weight, wanted, hessian, keep), keep


def fitted(wanted: Array, gram: Array, keep: BoolArray) -> tuple[Array, BoolArray]:
    """Return the weights of a mask that come nearest to the dense ones, and the mask."""
    return polish(wanted, wanted, damped(gram), keep), keep


def mask(weight: Array, gram: Array | None, goal: Goal, number: int) -> BoolArray:
    """Return the mask (outs, features) by magnitude, by |w| times the norm of the input, or by chance."""
    if goal.score == "random":
        scores = np.random.default_rng((goal.seed, number, *weight.shape)).random(weight.shape)
    elif goal.score == "wanda" and gram is not None:
        # Source: Sun et al. 2024, A Simple and Effective Pruning Approach for LLMs: compared within each output.
        scores = np.abs(weight) * np.sqrt(np.maximum(np.diag(gram), 0.0))
        if goal.pattern == Pattern():
            return np.concatenate([goal.pattern.keep(row[None], goal.sparsity) for row in scores])
    else:
        scores = np.abs(weight)
    return goal.pattern.keep(scores, goal.sparsity)


def with_bias(weight: Array, start: Array, found: Moments, free: bool) -> Array:
    """Return (groups, outs, features + 1) weights whose bias gives the targets their mean."""
    bias = start[:, :, -1]
    if free:
        count = max(found.count, 1.0)
        mean, target = found.gram[:, -1, :-1] / count, found.cross[:, -1, :] / count
        bias = target - np.einsum("gof,gf->go", weight, mean)
    return np.concatenate([weight, bias[:, :, None]], axis=2)
