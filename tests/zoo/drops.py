"""Branches of the zoo: a random third of them goes, and the result equals the original with these branches times zero.

    python -m tests.zoo.drops [NAME ..] [--seed N]

prints one line for each network: branches found, dropped, and the largest relative error, or why there is nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import onnx

from models import zoo
from onnxprune.errors import OnnxpruneError
from onnxprune.evidence.dropped import masked_original
from tests import plain
from tests.methods.residual import branches_of, silenced
from tests.oracle import is_dynamic, random_inputs, relative_error, session
from tests.zoo.test_zoo import INNER, observed

TOLERANCE = 1e-4
"""float32 rounding through up to 200 layers is 1e-6; a branch that stayed is above 1e-2."""
SEEN = 10
"""Dropping branches moves the outputs so many times as much as the largest error, so that parity shows something."""
WITHOUT = frozenset(
    "ESPCN GNN LSTM MLPConcat UNet alexnet densenet121 googlenet repvgg_a0 resnest14d shufflenet_v2_x1_0 squeezenet1_1 "
    "vgg16_bn".split()
)
"""Networks that have no residual branch: plain chains, concatenations, or sums of parallel layers without a skip."""


@dataclass(frozen=True)
class Outcome:
    """found: branches. free: those that can be dropped. dropped: those that were. error: None where none were.

    moved: how far the branches move the outputs, so that parity shows something.
    cut: the same with a quarter of the channels gone besides, against the masked original of the package.
    """

    found: int
    free: int
    dropped: int
    error: float | None = None
    moved: float = 0.0
    cut: float | None = None

    @property
    def shows(self) -> bool:
        """Whether parity shows something."""
        return self.moved > SEEN * max(self.error or 0.0, self.cut or 0.0)


def outcome(name: str, seed: int = 0, *, channels: bool = True) -> Outcome:
    """Drop a random third of the branches of a network, and compare."""
    original, rng = zoo.build(name), np.random.default_rng(seed)
    found = branches_of(original)
    free = [branch for branch in found if branch.reason is None]
    if not free:
        return Outcome(len(found), 0, 0)
    chosen = [branch for branch in free if rng.random() < 1 / 3] or [free[int(rng.integers(len(free)))]]
    names = [branch.name for branch in chosen]
    feeds = random_inputs(original, rng, 2 if is_dynamic(original) else 1)
    short = plain.prune(original, drop=names)
    onnx.checker.check_model(short.model.proto)
    silent = silenced(original, chosen)
    error = apart(name, silent, short.model.proto, feeds)
    kept = {output.name for output in silent.graph.output}
    whole, quiet = (dict(zip(*_run(proto, name, feeds), strict=True)) for proto in (original, silent))
    moved = max(relative_error(value, quiet[key]) for key, value in whole.items() if key in kept or name in INNER)
    if not channels:
        return Outcome(len(found), len(free), len(chosen), error, moved)
    both = plain.prune(original, drop=names, ratio=0.25, align=1)
    masked = masked_original(both.channels, both.keep, both.short).proto
    return Outcome(len(found), len(free), len(chosen), error, moved, apart(name, masked, both.model.proto, feeds))


def apart(name: str, reference: onnx.ModelProto, result: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> float:
    """Return the largest relative error of outputs, whose shapes are those of the reference; checks that it runs."""
    one, two = (_run(proto, name, feeds)[1] for proto in (reference, result))
    assert [a.shape for a in one] == [b.shape for b in two]
    session(result, "all").run(None, feeds)
    return max(relative_error(a, b) for a, b in zip(one, two, strict=True))


def _run(proto: onnx.ModelProto, name: str, feeds: dict[str, np.ndarray]) -> tuple[list[str], list[np.ndarray]]:
    """Return the names of the outputs, or of inner tensors that show more, and their values."""
    opened = session(observed(proto, name), "basic")
    taken = {value.name for value in opened.get_inputs()}
    fed = {key: value for key, value in feeds.items() if key in taken}
    return [value.name for value in opened.get_outputs()], opened.run(None, fed)


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    wrong = 0
    for name in given.names or zoo.names():
        try:
            found = outcome(name, given.seed)
        except (OnnxpruneError, AssertionError) as error:
            print(f"{name}: {type(error).__name__} {str(error)[:200]}", flush=True)
            wrong += 1
            continue
        bad = any(error is not None and not error < TOLERANCE for error in (found.error, found.cut))
        bad |= found.dropped > 0 and not found.shows
        wrong += bad or (found.found == 0) != (name in WITHOUT)
        print(f"{name}: {found}{' WRONG' * bad}", flush=True)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
