"""Comparing two models from Python, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.evidence.compare import Comparison, Reference
    from onnxprune.graph.model import Model, Source
    from onnxprune.graph.trace import Shape


def validate(
    original: Source,
    compressed: Source,
    *,
    data: str | Path | Iterable[object] | object = None,
    samples: int | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Shape] | None = None,
    threads: int = 0,
    provider: str | None = None,
) -> Comparison:
    """Return how close the outputs of two models are: cosine, SQNR, largest difference, top-1 agreement per output.

    The result has a `verdict`: good, poor, failed or not judged, with reasons.

    Args:
        data: what to run: a path, feeds (input name -> array) or a calibration reader, see
            `onnxprune.statistics.data.read`; None draws random inputs, which show defects, not accuracy.
        samples: how many of them.

    Raises:
        ModelError: a model does not load or run, or the two differ in inputs or outputs.
        DataError: the data do not fit.
    """
    from onnxprune.evidence.compare import compare, self_noise
    from onnxprune.graph.model import load
    from onnxprune.graph.session import file_of, open_session

    before, after = load(original), load(compressed)
    reference = reference_on(original, before, data, samples, seed, input_shapes, threads, provider)
    with reference.session, open_session(file_of(compressed) or after, threads=threads, provider=provider) as session:
        noise = self_noise(reference, threads=threads, provider=provider).results()
        return replace(compare(reference, session), noise=noise)


def reference_on(
    source: Source,
    model: Model,
    data: object,
    samples: int | None,
    seed: int,
    input_shapes: Mapping[str, Shape] | None,
    threads: int,
    provider: str | None,
) -> Reference:
    """Return the original with samples that it runs on, see `validate`."""
    from onnxprune.evidence.compare import open_reference
    from onnxprune.graph.session import file_of

    count = None
    if data is not None:
        from onnxprune.statistics.data import read
        from onnxprune.statistics.feeds import input_specs

        data = read(data, input_specs(model.proto), samples=samples)
        count = data.samples
    feeds: Any = data
    return open_reference(
        model,
        file=file_of(source),
        data=feeds,
        data_count=count,
        samples=samples,
        seed=seed,
        input_shapes=input_shapes,
        threads=threads,
        provider=provider,
    )
