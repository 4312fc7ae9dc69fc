"""Comparing two models from Python, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.graph.model import Source
    from onnxprune.graph.trace import Shape
    from onnxprune.validate.compare import Comparison
    from onnxprune.validate.session import Feeds


def validate(
    original: Source,
    compressed: Source,
    *,
    data: Iterable[Feeds] | None = None,
    samples: int | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Shape] | None = None,
    threads: int = 0,
    provider: str | None = None,
) -> Comparison:
    """Return how close the outputs of two models are: cosine, SQNR, largest difference, top-1 agreement per output.

    Args:
        data: feeds (input name -> array) to run; None draws random inputs, which show defects, not accuracy.
        samples: how many random inputs.

    Raises:
        ModelError: a model does not load or run, or the two differ in inputs or outputs.
        DataError: the data do not fit.
    """
    from onnxprune.graph.model import load
    from onnxprune.validate.compare import compare, open_reference
    from onnxprune.validate.session import file_of, open_session

    before, after = load(original), load(compressed)
    reference = open_reference(
        before,
        file=file_of(original),
        data=data,
        samples=samples,
        seed=seed,
        input_shapes=input_shapes,
        threads=threads,
        provider=provider,
    )
    with reference.session, open_session(file_of(compressed) or after, threads=threads, provider=provider) as session:
        return compare(reference, session)
