"""Statistics of a vast model: it runs level by level, so that the weights of one level are in use at a time.

What later levels read waits on a shelf, and so do the products of channels, which scores ask for one group at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from onnxprune.compensate.foretold import foretold, shapes_of
from onnxprune.compensate.shelf import Shelf
from onnxprune.compensate.stages import Stages, heavy_waits, tensor_levels
from onnxprune.graph.mapped import SMALLEST_BYTES
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics.collect import BATCH, Statistics, no_gram
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import Feed
from onnxprune.statistics.moments import Accumulator, ChannelStatistics
from onnxprune.statistics.observed import Wanted


def streamed(
    model: Model,
    data: Data,
    wanted: Sequence[Wanted],
    *,
    threads: int | None = None,
    provider: str | None = None,
    memory_bytes: int,
    progress: Callable[[str], None] = lambda text: None,
) -> Statistics:
    """Return statistics of tensors over the data, as `collect` does.

    Args:
        memory_bytes: for what waits, and for the products of one tensor: larger ones are left out, and a note says so.

    Raises:
        ModelError: onnxruntime cannot run a part of the model, or the temporary folder is full.
    """
    graph, shelf, products = model.proto.graph, Shelf(memory_bytes), Shelf(0)
    levels = tensor_levels(graph, heavy_waits(graph))
    until = {item.tensor: levels[item.tensor] for item in wanted}
    opener = partial(open_session, threads=threads, provider=provider)
    feeds = list(data.batches(BATCH))
    stages = Stages(model, model.proto, levels, until, feeds, opener, shelf)
    _require_room(model, stages, feeds, wanted, memory_bytes)
    last = {item.key: max(until[other.tensor] for other in wanted if other.key == item.key) for item in wanted}
    sums: dict[str, Accumulator] = {}
    found: dict[str, ChannelStatistics] = {}
    notes: list[str] = []
    count = max(until.values(), default=-1) + 1
    for level in range(count):
        progress(f"statistics: level {level + 1} of {count}")
        stages.advance(level)
        for item in (item for item in wanted if until[item.tensor] == level):
            for array in stages.values(item.tensor):
                if item.key not in sums:
                    needed = 8 * array.shape[item.axis] ** 2
                    fits = needed <= memory_bytes
                    sums[item.key] = Accumulator(item.axis, gram=item.gram and fits)
                    if item.gram and not fits:
                        notes.append(no_gram(item.tensor, needed - memory_bytes))
                sums[item.key].add(array, item.axis)
        for key in [key for key in sums if last[key] == level]:
            found[key] = _put_away(sums.pop(key).result(), products)
        stages.release(level)
    return Statistics(data.samples, found, tuple(notes))


def _require_room(
    model: Model, stages: Stages, feeds: Sequence[Feed], wanted: Sequence[Wanted], memory_bytes: int
) -> None:
    shapes = shapes_of(model, feeds)
    work = foretold(model, (stages,), feeds, shapes, memory_bytes)
    sizes = {item.key: 8 * shapes[item.tensor][item.axis] ** 2 for item in wanted if item.gram}
    products = sum(size for size in sizes.values() if size <= memory_bytes)
    replace(work, disk=work.disk + products).require_room()


def _put_away(statistics: ChannelStatistics, shelf: Shelf) -> ChannelStatistics:
    """Return statistics whose products lie in a mapped file, unless they are small."""
    if statistics.gram is None or statistics.gram.nbytes < SMALLEST_BYTES:
        return statistics
    return replace(statistics, gram=shelf.put(statistics.gram).open())
