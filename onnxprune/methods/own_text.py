"""Text that a language model writes itself, where nobody gives any: random tokens are unlike all that it ever reads.

The first token of a sample is drawn, the next few are those that the model finds most likely, all others are drawn from
what it gives: likely beginnings, and variety behind them.

Source: Liu et al. 2023, LLM-QAT: Data-Free Quantization Aware Training for Large Language Models, section 3.1 (their
hybrid of three to five certain tokens, then drawn ones).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from onnxprune.errors import DataError, ModelError
from onnxprune.evidence.inputs import RandomInputs
from onnxprune.graph.count import macs
from onnxprune.graph.session import Port, Session
from onnxprune.graph.states import fed_back
from onnxprune.graph.trace import Shape, Trace
from onnxprune.graph.view import View
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array

CERTAIN = 3
"""Tokens behind the first that are the most likely ones."""
LENGTH, SHORTEST = 64, 16
"""Tokens of a sample where the model takes any number; fewer where it is large."""
MOST_MACS = 1.5e11
"""Multiply-adds of all that is written."""
FEWEST_WORDS = 8
"""A smaller range of integers is no vocabulary."""
CAUSAL = 1e-3
"""Scores of a token may move by this share of the largest when what follows changes: rounding of other products."""


@dataclass(frozen=True)
class Writer:
    """How a model takes tokens and gives scores of the next one.

    ids, scores: the input and the output. words: so many tokens may be drawn.
    length: of all samples, where it is fixed. batch: likewise. states: input -> output that is fed back into it.
    masks, places, kinds: inputs that tell which tokens count, where they stand, and of what kind they are.
    """

    ids: Port
    scores: str
    words: int
    length: int | None
    batch: int | None
    states: Mapping[str, str]
    masks: tuple[Port, ...]
    places: tuple[Port, ...]
    kinds: tuple[Port, ...]
    past: tuple[Port, ...]

    @property
    def by_steps(self) -> bool:
        """Whether it takes one token at a time, with what was fed back."""
        return self.length == 1 and bool(self.states)

    def feed(self, tokens: Array, before: Mapping[str, Array] | None = None, done: int = 0) -> Feed:
        """Return what the model takes with (samples, new) tokens behind `done` others.

        Args:
            before: what was fed back; None: nothing was.
        """
        count, new = tokens.shape
        found = {self.ids.name: tokens.astype(self.ids.dtype)}
        found |= {port.name: np.ones((count, done + new), port.dtype) for port in self.masks}
        places = np.broadcast_to(np.arange(done, done + new), (count, new))
        found |= {port.name: places.astype(port.dtype or np.int64) for port in self.places}
        found |= {port.name: np.zeros((count, new), port.dtype) for port in self.kinds}
        return found | (dict(before) if before is not None else {p.name: _empty(p, count) for p in self.past})


def writer_of(
    view: View, trace: Trace, session: Session, drawn: RandomInputs, asked: Mapping[str, Shape]
) -> Writer | None:
    """Return how a model writes; None where it takes no tokens, gives no scores of them, or takes more than text.

    Args:
        asked: sizes of inputs that the user gives.
    """
    pairs = {given: made for made, given in fed_back(view)}
    ports = {port.name: port for port in session.inputs}
    past = [port for name, port in ports.items() if name in pairs and _is_state(port)]
    rest = [port for port in ports.values() if port not in past]
    tables = {p.name: drawn.domains[p.name].high for p in rest if _is_tokens(p) and "position" not in p.name.lower()}
    found = [(size, name, output) for name, size in tables.items() if (output := _scores(trace, session, size))]
    if not found:
        return None
    words, ids, (scores, width) = max(found)
    others = [port for port in rest if port.name != ids]
    masks, places, kinds = (
        tuple(p for p in others if any(word in p.name.lower() for word in known))
        for known in (("mask",), ("position",), ("type", "segment"))
    )
    if len({p.name for p in (*masks, *places, *kinds)}) < len(others) or any(len(p.dims) != 2 for p in others):
        return None
    sizes = asked.get(ids, ports[ids].dims)
    batch, length = (dim if isinstance(dim, int) and dim > 0 else None for dim in sizes)
    states = {port.name: pairs[port.name] for port in past}
    return Writer(ports[ids], scores, min(words, width), length, batch, states, masks, places, kinds, tuple(past))


def own_text(
    view: View,
    trace: Trace,
    session: Session,
    drawn: RandomInputs,
    asked: Mapping[str, Shape],
    most: int,
    fewest: int,
) -> list[Feed] | None:
    """Return feeds of text that the model wrote; None where it does not write, or where that would take too long.

    Args:
        drawn: inputs at random, whose seed is taken.
        asked: sizes of inputs that the user gives.
        most, fewest: samples.
    """
    writer = writer_of(view, trace, session, drawn, asked)
    if writer is None:
        return None
    size = _size(writer, view, trace, most, fewest)
    if size is None:
        return None
    generator = np.random.default_rng([drawn.seed, CERTAIN])
    try:
        feeds = list(_written(writer, session, generator, *size))
        return feeds if writer.by_steps or _is_causal(writer, session, feeds[0]) else None
    except (DataError, ModelError):  # it asks for more than is known of such models
        return None


def _size(writer: Writer, view: View, trace: Trace, most: int, fewest: int) -> tuple[int, int] | None:
    """Return how many samples of how many tokens to write; None where the fewest are too many."""
    traced = max(1, prod(trace.shapes[writer.ids.name]))
    each = sum(macs(view, trace.shapes).values()) / traced
    if writer.by_steps:  # every step is a sample
        most, fewest = max(1, most // LENGTH), 1
    fixed = writer.length is not None and not writer.by_steps
    for length in (writer.length or 0,) if fixed else (LENGTH, LENGTH // 2, SHORTEST):
        runs = length if writer.states else length * length if fixed else length * (length + 1) // 2
        count = int(min(most, MOST_MACS // max(1.0, runs * each)))
        if count >= fewest:
            return count, length
    return None


def _written(
    writer: Writer, session: Session, generator: np.random.Generator, count: int, length: int
) -> Iterator[Feed]:
    """Yield what the model takes of texts of so many tokens: whole ones, or each of their steps."""
    size = writer.batch or count
    for _ in range(-(-count // size)):
        tokens = np.zeros((size, length), np.int64)
        tokens[:, 0] = generator.integers(0, writer.words, size)
        before: Mapping[str, Array] | None = None
        for done in range(1, length):
            if writer.states:
                step = writer.feed(tokens[:, done - 1 : done], before, done - 1)
                if writer.by_steps:
                    yield step
                given = session.run(step)
                before = {name: given[output] for name, output in writer.states.items()}
                scores = given[writer.scores][:, -1]
            elif writer.length:
                scores = session.run(writer.feed(tokens))[writer.scores][:, done - 1]
            else:
                scores = session.run(writer.feed(tokens[:, :done]))[writer.scores][:, -1]
            tokens[:, done] = _next(scores[:, : writer.words], generator if done > CERTAIN else None)
        if not writer.by_steps:
            yield writer.feed(tokens)


def _next(scores: Array, generator: np.random.Generator | None) -> Array:
    """Return one token for each row of scores: drawn, or the most likely one."""
    scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        raise DataError("scores of tokens are no numbers.")
    if generator is None:
        return np.asarray(scores.argmax(axis=1))
    chances = np.exp(scores - scores.max(axis=1, keepdims=True)).cumsum(axis=1)
    drawn = generator.random((len(scores), 1)) * chances[:, -1:]
    return np.asarray(np.minimum((chances <= drawn).sum(axis=1), scores.shape[1] - 1))


def _is_causal(writer: Writer, session: Session, feed: Feed) -> bool:
    """Tell whether scores of tokens do not know what follows them; that the model runs on whole texts, too."""
    tokens = np.array(feed[writer.ids.name])
    tokens[:, -1] = (tokens[:, -1] + 1) % writer.words
    one, two = (session.run(f)[writer.scores] for f in (feed, {**feed, writer.ids.name: tokens}))
    if one.shape[1] != tokens.shape[1]:  # scores of the last token alone
        return bool(writer.states)
    return bool(np.abs(one[:, :-1] - two[:, :-1]).max() <= CAUSAL * np.abs(one).max())


def _is_tokens(port: Port) -> bool:
    return port.dtype is not None and port.dtype.kind in "iu" and len(port.dims) == 2


def _is_state(port: Port) -> bool:
    """Tell whether there can be nothing of it, or zeros: one axis grows at most, besides that of the samples."""
    free = sum(not isinstance(dim, int) for dim in port.dims[1:])
    return port.dtype is not None and port.dtype.kind == "f" and len(port.dims) >= 2 and free <= 1


def _empty(port: Port, count: int) -> Array:
    """Return a state at the beginning of a text."""
    shape = tuple(dim if isinstance(dim, int) else 0 for dim in port.dims[1:])
    return np.zeros((count, *shape), port.dtype)


def _scores(trace: Trace, session: Session, size: int) -> tuple[str, int] | None:
    """Return the output that has a score for each of about so many tokens, and how many it has."""
    for port in session.outputs if size >= FEWEST_WORDS else ():
        shape = trace.shapes.get(port.name, ())
        if port.dtype is not None and port.dtype.kind == "f" and len(shape) == 3 and size / 2 <= shape[2] <= 2 * size:
            return port.name, shape[2]
    return None
