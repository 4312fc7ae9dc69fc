"""Made-up inputs for a refit when the user gives none: weaker than the user's own, and said so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from onnxprune.allocate.measures import Shaped
from onnxprune.allocate.measuring import macs_per_sample
from onnxprune.compensate.closed_cost import closed_form_seconds
from onnxprune.errors import DataError
from onnxprune.evidence.inputs import random_inputs
from onnxprune.graph.model import Model
from onnxprune.graph.session import file_of, open_session
from onnxprune.graph.trace import Shape, trace
from onnxprune.methods.own_text import own_text
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import input_specs
from onnxprune.statistics.split import first

SAMPLES = 256
FEWEST = 16
MOST_MACS = 1.5e11
"""Of one run over all samples: large networks get fewer."""
BATCH = 16
WEAKER = (
    "refitted to made-up inputs, because there are no data: better than no refit, but weaker than the model's own "
    "inputs; give 128 or more of them with --data, no labels are needed"
)
OWN_TEXT = (
    "refitted to text made by the model itself, because there are no data: better than random tokens, but weaker than "
    "text that the model is used on; give 128 or more samples with --data"
)


def synthetic(
    channels: Shaped,
    input_shapes: Mapping[str, Shape],
    seed: int,
    runtime: Runtime,
    samples: int = SAMPLES,
    seconds: float = inf,
) -> Data:
    """Return made-up inputs: images of 1/f noise, integers within the tables that they index, masks, else N(0, 1).

    A language model makes its own text (`own_text`).

    Args:
        seconds: CPU seconds that a refit to them may take, as predicted; there are fewer where it would take more.

    Raises:
        DataError: an input cannot be made up, onnxruntime does not run the model at any size that was tried, or the
            refit takes too long whatever their number.
        ModelError: onnxruntime cannot run the model.
    """
    view = channels.view
    model = view.model
    with open_session(file_of(model) or model, threads=runtime.threads, provider=runtime.provider) as session:
        traced = trace(view, dict(input_shapes))
        drawn = random_inputs(view, traced, session, seed=seed, batch=BATCH, images=True)
        text = own_text(view, traced, session, drawn, input_shapes, samples, FEWEST)
    specs = input_specs(model.proto)
    try:
        one = read(text[:1] if text else [drawn.sample(0)], specs, synthetic=True)
        made = text or [drawn.sample(number) for number in range(_count(channels, one, samples))]
        found = replace(read(made, specs, synthetic=True), written=text is not None)
    except DataError as error:
        raise DataError(f"no inputs could be made up: {error} Give --data, or --compensate none.") from error
    return _affordable(model, found, seconds)


def _count(channels: Shaped, one: Data, samples: int) -> int:
    """Return how many feeds to make, like one that is made."""
    count = max(FEWEST, min(samples, int(MOST_MACS // max(macs_per_sample(channels, one), 1))))
    return -(-count // one.samples)


def _affordable(model: Model, found: Data, seconds: float) -> Data:
    """Return as many of the samples as a refit to them stays within so many seconds, as predicted.

    Raises:
        DataError: the fewest are too many.
    """
    if seconds == inf:
        return found
    feed = next(iter(found.batches(BATCH)))
    while (price := closed_form_seconds(model, feed, found.samples)) > seconds:
        if found.samples <= FEWEST:
            raise DataError(f"that would take about {price:.0f} CPU seconds; give --data, or --compensate lstsq.")
        found = first(found, max(FEWEST, found.samples // 2))
    return found


def said_of(data: Data | None) -> tuple[str, ...]:
    """Return what is to be said of samples that were made up."""
    if data is None or not data.synthetic:
        return ()
    return (OWN_TEXT if data.written else WEAKER,)
