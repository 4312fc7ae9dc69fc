"""Made-up inputs for a refit when the user gives none: weaker than the user's own, and said so."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.allocate.measures import Shaped
from onnxprune.allocate.measuring import macs_per_sample
from onnxprune.errors import DataError
from onnxprune.evidence.inputs import random_inputs
from onnxprune.graph.session import file_of, open_session
from onnxprune.graph.trace import Shape, trace
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import input_specs

SAMPLES = 256
FEWEST = 16
MOST_MACS = 1.5e11
"""Of one run over all samples: large networks get fewer."""
BATCH = 16
WEAKER = (
    "refitted to made-up inputs, because there are no data: better than no refit, but weaker than the model's own "
    "inputs; give 128 or more of them with --data, no labels are needed"
)


def synthetic(
    channels: Shaped, input_shapes: Mapping[str, Shape], seed: int, runtime: Runtime, samples: int = SAMPLES
) -> Data:
    """Return made-up inputs: images of 1/f noise, integers within the tables that they index, masks, else N(0, 1).

    Raises:
        DataError: an input cannot be made up, or onnxruntime does not run the model at any size that was tried.
        ModelError: onnxruntime cannot run the model.
    """
    view = channels.view
    model = view.model
    with open_session(file_of(model) or model, threads=runtime.threads, provider=runtime.provider) as session:
        drawn = random_inputs(view, trace(view, dict(input_shapes)), session, seed=seed, batch=BATCH, images=True)
    specs, first = input_specs(model.proto), drawn.sample(0)
    try:
        one = read([first], specs, synthetic=True)
        count = max(FEWEST, min(samples, int(MOST_MACS // max(macs_per_sample(channels, one), 1))))
        feeds = [first, *(drawn.sample(number) for number in range(1, -(-count // one.samples)))]
        return read(feeds, specs, synthetic=True)
    except DataError as error:
        raise DataError(f"no inputs could be made up: {error} Give --data, or --compensate none.") from error
