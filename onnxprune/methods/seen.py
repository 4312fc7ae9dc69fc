"""The form of a model that methods look at and fit: the branches that the data take stand in its main graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from onnxprune.graph.follow import follow, read_tensors, restore, shared_names
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from onnxprune.methods.calibration import Runtime
from onnxprune.score.activity import Activity
from onnxprune.score.parted import Parted
from onnxprune.statistics.data import Data
from onnxprune.statistics.routes import Routes, Taken, routes


@dataclass(frozen=True, eq=False)
class Seen:
    """A model as its data see it.

    source: the reading of the model as it is.
    routes: which branches the data take.
    """

    source: View
    data: Data
    routes: Routes

    @cached_property
    def view(self) -> View:
        """Reading of the followed form; the parameters have the keys of the source."""
        return View(self.model) if self.model is not self.source.model else self.source

    @cached_property
    def model(self) -> Model:
        """The followed form; the model itself where there is nothing to follow."""
        return self.form(self.source.model)

    @cached_property
    def parts(self) -> tuple[Seen, ...]:
        """Where samples part, the model as each part of them sees it, the largest first."""
        return tuple(Seen(self.source, data, Routes(taken)) for taken, data in self.routes.parts)

    @cached_property
    def weights(self) -> set[str]:
        """Stored tensors that only what the data reach reads."""
        proto = self.model.proto
        return (read_tensors(proto.graph) & set(self.view.parameters)) - shared_names(proto)

    def activity(self, runtime: Runtime) -> Activity:
        """Return what the model does on the data."""
        known = self.view, self.data, runtime.threads, runtime.provider, runtime.memory
        if not self.parts:
            return Activity(*known)
        return Parted(*known, parts=tuple(part.activity(runtime) for part in self.parts))

    def form(self, model: Model) -> Model:
        """Return the followed form of the source, or of a model that was made from it."""
        taken: Taken = self.routes.taken
        if not taken and not self.routes.parts:
            return model
        return follow(model, taken, self.source.scopes, always=True)

    def restored(self, changed: Model, form: Model, model: Model) -> Model:
        """Return a model with the values that its followed form was given."""
        return restore(changed, form, model)


def look(source: View, data: Data, runtime: Runtime) -> Seen:
    """Return a model as the data see it.

    Raises:
        ModelError: onnxruntime cannot run what a condition is computed from.
    """
    return Seen(source, data, routes(source, data, runtime.threads, runtime.provider))
