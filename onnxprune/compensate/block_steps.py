"""Gradient steps block by block, where steps of the whole network would cost too much.

Each block learns to give what the original gives there, from what the blocks before it, as they are by then, give it.
Inputs and targets are found out once, a step needs the memory of one block, and fewer samples do: the blocks before
have no part in it, and targets are values at many positions instead of a few answers.
Source: block-wise distillation (Li et al., 2020, DNA, section 3.2); inputs of the compressed prefix as in BRECQ (Li et
al., 2021, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from math import prod

import numpy as np

from onnxprune.compensate.block_lesson import FEWEST, Lesson
from onnxprune.compensate.block_stream import BlockStream
from onnxprune.compensate.distil import LOOKS, Distilled, DistilOptions, variances
from onnxprune.compensate.draws import Draws, draws_of
from onnxprune.compensate.joints import Chain, Joint
from onnxprune.compensate.shelf import Shelf
from onnxprune.compensate.slopes import BACKWARD, Cut
from onnxprune.errors import ModelError
from onnxprune.graph.cost import seconds
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.operators.call import Shape
from onnxprune.statistics.feeds import Feed, input_specs
from onnxprune.types import Array

SAMPLES, BATCH = 8, 4
"""Samples of a step, and of one run."""
BLOCKS, BLOCK_BYTES = 4, 1 << 28
"""So many blocks, or as many as have weights of so many bytes each."""
HELD, FEWEST_HELD = 48, 2
"""Samples that are held out, at most, and runs of them, at least."""
LEAST_FEEDS = 8
"""With fewer runs of samples, steps would learn what is special about these."""
READY_SHARE, LOOK_SHARE = 0.25, 0.15
"""Of the seconds, at most, for what both networks give between the blocks, and for looks at held-out samples."""
STEP_SHARE = 0.5
"""Where the fewest steps take more of the seconds than this, their runs are of fewer samples."""
KEPT_BYTES = 1 << 30
"""What is known between two blocks goes to files beyond this."""

Given = Callable[[str, Array], Array]
"""Takes a tensor of the original, by name, to the positions of the pruned network."""
Place = tuple[Joint, Joint]
"""A cut, in the original and in the pruned network."""


def block_steps(
    original: Model,
    pruned: Model,
    outputs: Mapping[str, Cut],
    cut: Given,
    feeds: Sequence[Feed],
    options: DistilOptions,
    progress: Callable[[str], None] = lambda text: None,
    aside: Sequence[Feed] = (),
) -> tuple[Model, Distilled]:
    """Return the pruned model after steps of its blocks, or as it was if held-out samples say that it got worse.

    Args:
        outputs: outputs of both networks to compare. options: `seconds` is what all may take, as predicted.
        progress: told which step of which block is taken.
        aside: samples to hold out; without any, one in eight of the feeds is.

    Raises:
        ModelError: the networks cannot be cut, there are too few samples, or the seconds are not enough.
    """
    size = min(BATCH, options.batch)
    while True:
        draws = draws_of(feeds, input_specs(original.proto), SAMPLES, size, aside)
        work = _BlockSteps(original, pruned, outputs, cut, draws, options, progress)
        if size == 1 or work.fewest_seconds <= STEP_SHARE * work.seconds or draws.batch > size:
            return work.run()
        size = max(1, size // 2)


@dataclass(eq=False)
class _BlockSteps:
    original: Model
    pruned: Model
    outputs: Mapping[str, Cut]
    cut: Given
    draws: Draws
    options: DistilOptions
    progress: Callable[[str], None]

    @property
    def seconds(self) -> float:
        """What all may take."""
        return self.options.seconds or 0.0

    @cached_property
    def shapes(self) -> list[dict[str, Shape]]:
        """Shapes of tensors for a run of samples, in both networks."""
        sizes = {name: array.shape for name, array in self.draws.example().items()}
        return [trace(View(model), sizes).shapes for model in (self.original, self.pruned)]

    @cached_property
    def costs(self) -> list[dict[str, float]]:
        """Predicted seconds of the nodes for a run of samples, in both networks."""
        pairs = zip((self.original, self.pruned), self.shapes, strict=True)
        return [seconds(View(model), shapes) for model, shapes in pairs]

    @property
    def fewest_seconds(self) -> float:
        """Roughly what the fewest steps of all blocks take, of one run each."""
        return FEWEST * BACKWARD * sum(self.costs[1].values())

    def run(self) -> tuple[Model, Distilled]:
        ends = self._ends(self.costs[1], *self.shapes)
        left, (old, new) = self.seconds, (sum(table.values()) for table in self.costs)
        looks = int(LOOK_SHARE * left / ((LOOKS + 1) * new))
        held = list(islice(self.draws.held_out(), min(max(looks, FEWEST_HELD), -(-HELD // self.draws.batch))))
        once = old + new
        count = min(int(READY_SHARE * left / once) - len(held), self.draws.samples // self.draws.batch)
        if count < LEAST_FEEDS:
            raise ModelError(f"steps block by block need {LEAST_FEEDS} runs of samples, there are {max(count, 0)}.")
        fit = list(islice(_mixed(self.draws, self.options.seed).examples(), count))
        return self._down(ends, [*fit, *held], count, left - once * (count + 2 * len(held)))

    def _ends(self, costs: Mapping[str, float], old: Mapping[str, Shape], new: Mapping[str, Shape]) -> list[Place]:
        """Return where blocks of about the same cost end, the last one aside."""
        first, second = (Chain(model.proto.graph) for model in (self.original, self.pruned))
        there = {joint.name: joint for joint in first.joints()}
        spent = np.cumsum([costs.get(node.name or node.output[0], 0.0) for node in second.nodes])
        made = {name: number for number, node in enumerate(second.nodes) for name in node.output}
        last = min(made.get(name, 0) for name in self.outputs)
        able = [joint for joint in second.joints() if joint.name in there and joint.nodes <= last]
        able = [joint for joint in able if self._fits(joint.name, old, new)]
        if not able:
            raise ModelError("there is no single tensor that all goes through in both networks.")
        stored = 4 * sum(prod(tensor.dims) for tensor in self.pruned.proto.graph.initializer)
        blocks = max(BLOCKS, -(-stored // BLOCK_BYTES))
        places = np.array([spent[joint.nodes - 1] for joint in able])
        wanted = [spent[-1] * number / blocks for number in range(1, blocks)]
        chosen = sorted({int(np.abs(places - target).argmin()) for target in wanted})
        return [(there[able[place].name], able[place]) for place in chosen]

    def _fits(self, name: str, old: Mapping[str, Shape], new: Mapping[str, Shape]) -> bool:
        """Tell whether a tensor of the original, what was cut left out, has the shape of the pruned one."""
        if name not in old or name not in new:
            return False
        return self.cut(name, np.zeros(old[name], np.float32)).shape == tuple(new[name])

    def _down(self, ends: list[Place], feeds: list[Feed], count: int, left: float) -> tuple[Model, Distilled]:
        """Walk through the blocks; the feeds from `count` on are held out."""
        shelf = Shelf(KEPT_BYTES)
        old, new = (BlockStream.of(model, feeds, shelf) for model in (self.original, self.pruned))
        plain = BlockStream.of(self.pruned, feeds[count:], shelf)
        names, taken, notes = list(self.outputs), 0, list[str]()
        starts = [(old.chain.start, new.chain.start), *ends]
        stops = [*ends, (Joint("", len(old.chain.nodes), tuple(names)), Joint("", len(new.chain.nodes), tuple(names)))]
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            which, name = f"block {number + 1} of {len(starts)}", stop[0].name
            old.advance(start[0], stop[0])
            compared = {name: partial(self.cut, name)} if name else self.outputs
            lesson = Lesson(new, old, start[1], stop[1].nodes, compared, count, self.draws.runs, self.options)
            try:
                share = left / (len(starts) - number)
                model, steps, spent = lesson.learned(share, partial(self._tell, which))
                new.put(model)
                taken, left = taken + steps, left - spent
            except ModelError as error:
                notes.append(f"{which} learned nothing: {error}")
            for stream in (new, plain):
                stream.advance(start[1], stop[1])
        if 2 * len(notes) > len(starts):
            raise ModelError(notes[0])
        notes = [f"{notes[0]} ({len(notes) - 1} more alike)" if len(notes) > 1 else note for note in notes[:1]]
        before, after = (self._far(old, stream, count) for stream in (plain, new))
        if not after < before:
            return self.pruned, Distilled(before, before, notes=tuple(notes))
        told = f"{len(starts)} blocks learned one after the other; a longer effort lets all learn at once."
        return new.model, Distilled(before, after, taken, outlook=told, notes=tuple(notes))

    def _tell(self, which: str, text: str) -> None:
        self.progress(f"{which}, {text}")

    def _far(self, old: BlockStream, new: BlockStream, count: int) -> float:
        """Return how far the outputs are apart on held-out samples, as a share of their variance."""
        names, held = list(self.outputs), range(count, len(old.feeds))
        wanted = [{n: self.outputs[n](a) for n, a in old.known(number, names).items()} for number in held]
        spread = variances(names, wanted)
        found = [new.known(number, names) for number in range(len(new.feeds) - len(held), len(new.feeds))]
        pairs = [(name, given[name], there[name]) for given, there in zip(found, wanted, strict=True) for name in names]
        return float(np.mean([np.square(a - b).mean() / max(spread[name], 1e-12) for name, a, b in pairs]))


def _mixed(draws: Draws, seed: int) -> Draws:
    """Return draws whose samples stand in another order."""
    order = np.random.default_rng(seed).permutation(draws.samples)
    return replace(draws, feed={name: array[order] for name, array in draws.feed.items()})
