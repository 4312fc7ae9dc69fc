"""Statistics of a model on data, to be kept, added to those of other data, and used later: where the data are not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import DataError, UsageError
from onnxprune.graph.external import data_files
from onnxprune.graph.model import Model, Source, file_sha256, load
from onnxprune.graph.view import View
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.linear import Linear, linear_layers
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import Seen, look
from onnxprune.score.activity import Activity
from onnxprune.score.readings import Reading
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.collect import GRAM_BYTES, shard_work
from onnxprune.statistics.data import Data, Elsewhere
from onnxprune.statistics.feeds import input_specs
from onnxprune.statistics.kept_sums import KeptSums, read_sums
from onnxprune.statistics.marks import marks_of
from onnxprune.statistics.observed import WantedRows
from onnxprune.statistics.routes import Routes
from onnxprune.statistics.shards import SHARD, all_sums
from onnxprune.types import FloatArray

PATCHES = "patches of "
PARTED = (
    "samples take different branches of the model, so their statistics cannot be added up; give the data to the method "
    "itself."
)


@on_one_thread
def gather(
    source: Source,
    data: DataSource,
    *,
    shard: int = SHARD,
    patches: bool = False,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> KeptSums:
    """Return sums over the data of all that the model's weights read.

    Args:
        shard: samples whose sums are one term of the whole.
        patches: products of what convolutions multiply, too: channels times taps, squared, for each.

    Raises:
        DataError: the data do not fit.
        UsageError: samples take different branches of the model.
    """
    runtime, model = runtime or Runtime(), load(source)
    samples = calibration(model, data)
    seen = look(View(model), samples, runtime)
    if seen.parts:
        raise UsageError(PARTED)
    allowed = runtime.memory or GRAM_BYTES
    activity = seen.activity(runtime)
    progress("statistics")
    work, notes = shard_work(
        seen.model,
        samples,
        activity.wanted,
        threads=runtime.threads or None,
        provider=runtime.provider,
        memory_bytes=allowed,
        size=shard,
        copies=2,
        patches=list(_patches(seen, activity)) if patches else (),
    )
    sums, sizes = all_sums(work, progress)
    progress("telling samples apart")
    marks, ends = marks_of(samples), np.cumsum(sizes)
    digests = [hashlib.sha256(part.tobytes()).hexdigest() for part in np.split(marks, ends[:-1])]
    settings: dict[str, Any] = {
        "branches": dict(seen.routes.taken),
        "unfused": seen.unfuse,
        "patches": patches,
        "memory": allowed,
        "inputs": [str(spec) for spec in samples.inputs],
    }
    return KeptSums(identity(model), settings, tuple(zip(sizes, digests, strict=True)), marks, sums, tuple(notes))


def identity(model: Model) -> str:
    """Return a hash of the graph and of all weights, those in other files too."""
    digest = hashlib.sha256(model.proto.SerializeToString(deterministic=True))
    for file in sorted(data_files(model.proto, model.folder)) if model.folder is not None else []:
        digest.update(file_sha256(file).encode())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class KnownSums:
    """Statistics for a model that were collected elsewhere."""

    kept: KeptSums

    @staticmethod
    def of(given: Path | KeptSums, model: Model) -> KnownSums:
        """Return the statistics of a file for a model.

        Raises:
            DataError: it is no such file.
            UsageError: they are of another model or version.
        """
        kept = read_sums(given)
        name = f"the statistics '{given}'" if isinstance(given, Path) else "the statistics"
        if kept.model != identity(model):
            raise UsageError(f"{name} are of another model; collect them again for this one (onnxprune stats).")
        if not kept.is_current:
            raise UsageError(f"{name} were made by onnxprune {kept.version}; collect them again (onnxprune stats).")
        return KnownSums(kept)

    def seen(self, view: View) -> Seen:
        """Return the model as those samples saw it."""
        inputs = tuple(input_specs(view.model.proto))
        mark = hashlib.sha256(self.kept.marks.tobytes()).hexdigest()
        data = Data(inputs, self.kept.samples, mark, (), False, Elsewhere(), 1)
        return Seen(view, data, Routes(dict(self.kept.settings["branches"])), bool(self.kept.settings["unfused"]))

    def tell(self, activity: Activity, seen: Seen) -> Activity:
        """Return what a model does with these statistics.

        Raises:
            UsageError: the data take other branches than those of the statistics did.
        """
        if seen.parts or dict(seen.routes.taken) != self.kept.settings["branches"]:
            raise UsageError("the data take other branches of the model than those of the statistics did.")
        lacking = [item.key for item in activity.wanted if item.key not in self.kept.sums]
        if lacking:
            raise DataError(f"the statistics lack '{lacking[0]}'; collect them again (onnxprune stats).")
        return replace(activity, given=self.kept.statistics)

    def grams(self, view: View, runtime: Runtime) -> dict[str, tuple[FloatArray, FloatArray, int]]:
        """Return weight -> (features, features) second moment of what it multiplies, the mean, and the rows counted.

        Of a convolution with taps only where patches were collected.
        """
        seen = self.seen(view)
        activity = seen.activity(runtime)
        found: dict[str, tuple[FloatArray, FloatArray, int]] = {}
        for layer in linear_layers(seen.view):
            names = [PATCHES + layer.key, *(name for (key, _), name in activity.pools.items() if key == layer.key)]
            for name in names:
                statistics = self.kept.statistics.tensors.get(name)
                if statistics is not None and statistics.gram is not None and len(statistics.gram) == features(layer):
                    found.setdefault(layer.key, (statistics.gram, statistics.mean, statistics.count))
        return found


def features(layer: Linear) -> int:
    """Return how many numbers the matrix of a layer multiplies at a time."""
    return int(layer.layout.matrix(np.broadcast_to(np.float32(0), layer.dims)).shape[2])


def _patches(seen: Seen, activity: Activity) -> Iterator[WantedRows]:
    """Yield the layers of one group that multiply more than the channels of what they read."""
    proto = seen.model.proto
    made = {name for node in proto.graph.node for name in node.output} | {value.name for value in proto.graph.input}
    widths: Mapping[str, int] = {key: len(reading.matrix(seen.view)) for key, reading in _read(activity).items()}
    for layer in linear_layers(seen.view):
        shape = layer.layout.matrix(np.broadcast_to(np.float32(0), layer.dims)).shape
        x = layer.node.inputs[0 if layer.index else 1]
        y = next(name for name in layer.node.outputs if name)
        if layer.is_recurrent or shape[0] > 1 or x not in made or y not in made:
            continue
        if widths.get(layer.key) not in (None, shape[2]):
            yield WantedRows(PATCHES + layer.key, x, y, layer.layout, int(shape[2]))


def _read(activity: Activity) -> dict[str, Reading]:
    return {reading.weight: reading for reading in activity.all_readings}
