"""The original model of a recipe: what it gives on the data, and what the user's function says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import DataError, ModelError
from onnxprune.graph.model import Model, save
from onnxprune.methods.calibration import calibration
from onnxprune.recipe.recipe import Recipe
from onnxprune.validate.compare import Reference, compare, open_reference
from onnxprune.validate.gates import Gates, evaluate
from onnxprune.validate.session import open_session

if TYPE_CHECKING:
    from onnxprune.statistics.data import Data
    from onnxprune.types import Array
    from onnxprune.validate.compare import Comparison

SAMPLES = 128
"""So many samples are compared when the recipe gives no number."""


def is_active(gates: Gates) -> bool:
    """Tell whether there is any limit."""
    return gates.needs_outputs or gates.max_drop is not None


@dataclass(eq=False)
class Original:
    """The original model: what it gives on the data, and what the user's function says of it. Each is made once."""

    recipe: Recipe
    source: Model
    folder: Path
    _value: list[float] = field(default_factory=list)
    _reference: list[Reference] = field(default_factory=list)

    @cached_property
    def data(self) -> Data | None:
        """The checked data."""
        if self.recipe.data is None:
            return None
        return calibration(self.source, self.recipe.data, self.recipe.samples, self._images)

    @property
    def reference(self) -> Reference:
        """The original in a session, with the samples that outputs are compared on."""
        if not self._reference:
            self._reference.append(self.opened(self.source))
        return self._reference[0]

    def feeds(self, *, required: bool) -> list[dict[str, Array]]:
        """Return inputs; none where the model cannot be run, unless that is required."""
        try:
            return [dict(feed) for feed in self.reference.samples]
        except ModelError:
            if required:
                raise
            return []

    def judge(self, gates: Gates) -> Any:
        """Return what tells whether a model keeps the limits; None without limits."""
        if not is_active(gates):
            return None
        from onnxprune.methods.quantization.search import Judge

        drop = self._drop_of_model if gates.max_drop is not None else None
        return Judge(self.reference, gates, self.recipe.threads, drop)

    def compare(self, file: Path) -> Comparison:
        """Return how close a model is to the original."""
        runs = self.recipe
        with open_session(file, threads=runs.threads, provider=runs.provider) as session:
            return compare(self.reference, session)

    def drop(self, file: Path) -> float:
        """Return how much the user's value falls."""
        if not self._value:
            self._value.append(self._evaluated(self.source.path or self._written(self.source, "original.onnx")))
        return self._value[0] - self._evaluated(file)

    def close(self) -> None:
        """Let the session go."""
        for reference in self._reference:
            reference.session.close()
        self._reference.clear()

    def _drop_of_model(self, model: Model) -> float:
        return self.drop(self._written(model, "candidate.onnx"))

    def _written(self, model: Model, name: str) -> Path:
        save(model, self.folder / name)
        return self.folder / name

    def _evaluated(self, file: Path) -> float:
        from onnxprune.statistics.sources import load_function

        spec = self.recipe.gates.eval or ""
        path, _, name = spec.rpartition(":")
        if not Path(path).is_file():
            raise DataError(f"eval '{spec}': there is no file '{path}'.")
        return evaluate(load_function(Path(path), name), file, spec)

    @property
    def _images(self) -> Any:
        from onnxprune.statistics.images import ImageOptions

        images = self.recipe.images
        return ImageOptions(images.size, images.mean, images.std, images.layout)

    def opened(self, model: Model, samples: int | None = None) -> Reference:
        """Return a model in a session, with samples of the data: as many as the recipe says, or fewer."""
        from onnxprune.graph.trace import trace
        from onnxprune.graph.view import View
        from onnxprune.statistics.batch import batch_size
        from onnxprune.statistics.data import read
        from onnxprune.statistics.feeds import input_specs

        recipe = self.recipe
        view = View(model)
        traced = view, trace(view, dict(recipe.input_shapes))
        data = None
        if recipe.data is not None:
            spec = recipe.data if isinstance(recipe.data, str | Path) else self.data
            count, batch = samples or recipe.samples or SAMPLES, batch_size(*traced)
            data = read(spec, input_specs(model.proto), samples=count, batch=batch, images=self._images)
        return open_reference(
            model,
            file=model.path,
            traced=traced,
            data=data,
            data_name=f"{data.samples} samples of {recipe.data}" if data is not None else "",
            data_count=data.samples if data is not None else None,
            samples=samples or recipe.samples,
            seed=recipe.seed,
            input_shapes=recipe.input_shapes,
            threads=recipe.threads,
            provider=recipe.provider,
        )
