"""Random inputs of the right type and range for a model that nobody gave data for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evidence.noise import Image, image_of, pink_images
from onnxprune.graph.conflicts import spelled_sizes
from onnxprune.graph.session import Port, Session
from onnxprune.graph.sizes import axis_symbols
from onnxprune.graph.trace import Shape, Trace
from onnxprune.graph.view import Node, View
from onnxprune.types import Array

CARRIERS = frozenset("Identity Cast Reshape Flatten Squeeze Unsqueeze Transpose Slice Expand Concat Clip Split".split())
"""Operators that hand integer values on as they are."""

OTHER_SIZES = (64, 32, 128, 16, 256, 8)
"""Sizes for dynamic axes that are tried when the traced ones do not run."""

MOST_TRIED = 96
"""Tables with sizes that the graph spells, which are tried last."""


@dataclass(frozen=True)
class Domain:
    """What an input may hold: integers in [low, high), the first of `choices`, a padding mask, an image, or N(0, 1)."""

    low: int = 0
    high: int = 0
    choices: tuple[float, ...] = ()
    mask: bool = False
    image: Image | None = None


@dataclass(frozen=True)
class RandomInputs:
    """Draws feeds with sizes that onnxruntime has accepted.

    tables: one or two tables of input shapes; the second one differs in the batch size (or another dynamic size).
    """

    ports: tuple[Port, ...]
    domains: dict[str, Domain]
    tables: tuple[dict[str, Shape], ...]
    seed: int

    def sample(self, number: int, table: int = 0) -> dict[str, Array]:
        """Return the feeds number `number`: the same number always gives the same values."""
        rng = np.random.default_rng([self.seed, number])
        shapes = self.tables[table]
        return {
            port.name: _draw(port, shapes[port.name], self.domains.get(port.name, Domain()), rng) for port in self.ports
        }


def random_inputs(
    view: View, trace: Trace, session: Session, *, seed: int = 0, batch: int = 1, images: bool = False
) -> RandomInputs:
    """Return a source of random inputs whose sizes the session has been seen to run.

    Args:
        trace: traced with the user's --input-shape, so that these sizes are fixed in it.
        batch: size of the batch where it is dynamic; the second table has twice as much.
        images: inputs that look like images get 1/f noise instead of N(0, 1).

    Raises:
        DataError: an input takes what cannot be drawn (strings, sequences), or no sizes that were tried run.
    """
    for port in session.inputs:
        if port.dtype is None:
            raise DataError(f"the input '{port.name}' takes {port.kind}, which cannot be drawn at random; give --data.")
    domains = {port.name: _domain(port, view, trace, images) for port in session.inputs}
    failure: DataError | None = None
    for shapes in chain(
        _tables(trace, session, batch), _spelled(view, trace, session), _free(trace, session, batch, (1,))
    ):
        source = RandomInputs(session.inputs, domains, (shapes,), seed)
        try:
            session.run(source.sample(0))
        except DataError as error:
            failure = failure or error
            continue
        return RandomInputs(session.inputs, domains, (shapes, *_second(source, trace, session, batch)), seed)
    raise failure or DataError(f"no sizes were found that {session.label} runs on; give --input-shape or --data.")


def _tables(trace: Trace, session: Session, size: int) -> Iterator[dict[str, Shape]]:
    """Input shapes to try in order: as traced but for the batch, as traced, then dynamic axes at OTHER_SIZES."""
    known = {port.name: _known_shape(port, trace) for port in session.inputs}
    batch = _batch_axes(known, trace)
    yield {name: _with_batch(shape, batch[name], size) for name, shape in known.items()}
    if any(axes.any() for axes in batch.values()):
        yield known
    other = {name: trace.second.shapes.get(name, shape) for name, shape in known.items()}
    if other != known:
        yield {name: _with_batch(shape, batch[name], size) for name, shape in other.items()}
    yield from _free(trace, session, size, OTHER_SIZES)


def _free(trace: Trace, session: Session, size: int, lengths: Sequence[int]) -> Iterator[dict[str, Shape]]:
    """Input shapes in which every dynamic axis but the batch has one length; 1 goes with all, but says little."""
    known = {port.name: _known_shape(port, trace) for port in session.inputs}
    batch = _batch_axes(known, trace)
    free = {name: _dynamic(name, shape, trace) & ~batch[name] for name, shape in known.items()}
    for length in lengths if any(axes.any() for axes in free.values()) else ():
        yield {
            name: _with_batch(tuple(np.where(free[name], length, shape).tolist()), batch[name], size)
            for name, shape in known.items()
        }


def _spelled(view: View, trace: Trace, session: Session) -> Iterator[dict[str, Shape]]:
    """Input shapes with one dynamic size, then two, as the graph spells it somewhere: small numbers first."""
    symbols = {port.name: _symbols(port, view, trace) for port in session.inputs}
    free = list(dict.fromkeys(s for entries in symbols.values() for s in entries if isinstance(s, str)))
    traced: dict[str | int, int] = {}
    for port in session.inputs:
        traced.update(zip(symbols[port.name], _known_shape(port, trace), strict=True))
    ones: list[dict[str | int, int]] = [{symbol: size} for size in spelled_sizes(view) for symbol in free]
    twos = [a | b for a, b in combinations(ones, 2) if a.keys() != b.keys()]
    for held in islice([*ones, *twos], MOST_TRIED):
        sizes = {**traced, **held}
        yield {name: tuple(s if isinstance(s, int) else sizes[s] for s in axes) for name, axes in symbols.items()}


def _symbols(port: Port, view: View, trace: Trace) -> list[str | int]:
    shape = _known_shape(port, trace)
    if port.name not in view.inputs:
        return list(shape)
    symbols = axis_symbols(view, port.name)
    return symbols if len(symbols) == len(shape) else list(shape)


def _second(source: RandomInputs, trace: Trace, session: Session, size: int) -> list[dict[str, Shape]]:
    """Return a second table if a dynamic size can change: twice the batch, else the trace's second sizes."""
    shapes = source.tables[0]
    batch = _batch_axes({port.name: _known_shape(port, trace) for port in session.inputs}, trace)
    if any(axes.any() for axes in batch.values()):
        table = {name: _with_batch(shape, batch[name], 2 * size) for name, shape in shapes.items()}
    else:
        table = {name: trace.second.shapes.get(name, shape) for name, shape in shapes.items()}
    if table == shapes:
        return []
    try:
        session.run(RandomInputs(source.ports, source.domains, (table,), source.seed).sample(0))
    except DataError:
        return []
    return [table]


def _known_shape(port: Port, trace: Trace) -> Shape:
    if port.name in trace.shapes:
        return trace.shapes[port.name]
    return tuple(dim if isinstance(dim, int) and dim > 0 else 1 for dim in port.dims)


def _dynamic(name: str, shape: Shape, trace: Trace) -> Array:
    return trace.dynamic(name) if name in trace.shapes else np.zeros(len(shape), dtype=bool)


def _batch_axes(shapes: Mapping[str, Shape], trace: Trace) -> dict[str, Array]:
    """Input -> (rank,) True on the axes that carry the batch: dynamic, and of the sizes of a small leading axis."""
    leading = {
        (shape[0], trace.second.shapes[name][0])
        for name, shape in shapes.items()
        if name in trace.shapes and shape and trace.dynamic(name)[0] and shape[0] <= 8
    }
    table = {}
    for name, shape in shapes.items():
        second = trace.second.shapes.get(name, shape)
        pairs = list(zip(shape, second, strict=False))
        table[name] = np.array([a != b and (a, b) in leading for a, b in pairs], dtype=bool)
    return table


def _with_batch(shape: Shape, axes: Array, size: int) -> Shape:
    return tuple(size if batch else dim for dim, batch in zip(shape, axes, strict=True))


def _domain(port: Port, view: View, trace: Trace, images: bool) -> Domain:
    if "mask" in port.name.lower():
        return Domain(mask=True)
    image = image_of(port.name, port.dtype, _known_shape(port, trace), view, trace) if images else None
    if image is not None:
        return Domain(image=image)
    if port.dtype is None or port.dtype.kind not in "iu":
        return Domain()
    limits, choices = _uses(port.name, view, trace)
    if limits:
        return Domain(high=max(1, min(limits)))
    if choices:
        return Domain(choices=tuple(choices))
    if port.dtype.itemsize == 1:
        info = np.iinfo(port.dtype)
        return Domain(low=int(info.min), high=int(info.max) + 1)
    return Domain(high=2)


def _uses(name: str, view: View, trace: Trace) -> tuple[list[int], list[float]]:
    """Follow an integer input to the tables that it indexes (sizes) and the constants that it is compared with."""
    limits: list[int] = []
    choices: list[float] = []
    open_keys: list[tuple[str, int]] = [(name, 0)]
    seen = {name}
    while open_keys:
        key, offset = open_keys.pop()
        for node, index in view.readers.get(key, []):
            limit = _table_size(node, index, trace)
            if limit is not None:
                limits.append(limit - offset)
            constant = _constant(node, index, trace)
            if node.op_type == "Equal" and constant is not None:
                choices.append(constant)
            shift = int(constant) if node.op_type == "Add" and constant is not None else 0
            if node.op_type in CARRIERS or (node.op_type == "Add" and constant is not None):
                fresh = [output for output in node.outputs if output and output not in seen]
                seen.update(fresh)
                open_keys += [(output, offset + shift) for output in fresh]
    return limits, choices


def _table_size(node: Node, index: int, trace: Trace) -> int | None:
    """Return how many rows the table has that this input of a node indexes, or None."""
    if node.op_type in ("Gather", "GatherElements") and index == 1:
        shape = trace.shapes.get(node.inputs[0])
        axis = node.attribute("axis", 0)
        if not shape:
            return None
        return 1 if trace.dynamic(node.inputs[0])[axis] else shape[axis]
    if node.op_type == "EmbedLayerNormalization" and index in (0, 1) and node.has_input(2 + 2 * index):
        shape = trace.shapes.get(node.inputs[2 + 2 * index])
        return shape[0] if shape else None
    if node.op_type == "OneHot" and index == 0 and node.inputs[1] in trace.values:
        return int(trace.values[node.inputs[1]].ravel()[0])
    return None


def _constant(node: Node, index: int, trace: Trace) -> float | None:
    """Return the largest value of the other operand of a two-operand node, if it is a stored constant."""
    if len(node.inputs) != 2:
        return None
    other = trace.values.get(node.inputs[1 - index])
    return float(other.max()) if other is not None and other.size and other.dtype.kind in "iuf" else None


def _draw(port: Port, shape: Shape, domain: Domain, rng: np.random.Generator) -> Array:
    dtype = port.dtype or np.dtype("float32")
    if domain.mask:
        values = _padding_mask(shape)
    elif domain.image is not None:
        values = pink_images(shape, domain.image, rng)
    elif domain.choices:
        values = np.full(shape, domain.choices[0])
    elif dtype.kind == "b":
        values = np.asarray(rng.integers(0, 2, shape))
    elif dtype.kind in "iu":
        values = np.asarray(rng.integers(domain.low, domain.high, shape))
    else:
        values = np.asarray(rng.standard_normal(shape))
    return values.astype(dtype)


def _padding_mask(shape: Shape) -> Array:
    """Return ones, with zeros in the last eighth of the last axis: a whole row of zeros would make softmax NaN."""
    values = np.ones(shape)
    if shape and shape[-1] >= 8:
        values[..., -(shape[-1] // 8) :] = 0
    return values
