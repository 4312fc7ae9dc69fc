"""The form of a model that methods look at and fit: the branches that the data take stand in its main graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.compensate.refit import Positions
from onnxprune.errors import ModelError
from onnxprune.graph.bodies import read_tensors
from onnxprune.graph.follow import Followed, follow, shared_names
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.graph.unfollow import restore
from onnxprune.graph.view import View
from onnxprune.methods.runtime import Runtime
from onnxprune.operators.fused import is_fused
from onnxprune.score.activity import Activity
from onnxprune.score.parted import Parted
from onnxprune.statistics.data import Data
from onnxprune.statistics.routes import Routes, Taken, routes
from onnxprune.types import IntArray

ROUNDING = 1e-3
"""Single precision in another order of sums."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A model as its data see it.

    source: the reading of the model as it is.
    routes: which branches the data take.
    unfuse: fused layers are looked at as what they are made of.
    """

    source: View
    data: Data
    routes: Routes
    unfuse: bool = True

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
        return tuple(Seen(self.source, data, Routes(taken), self.unfuse) for taken, data in self.routes.parts)

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
        always = bool(self.routes.parts) or (self.unfuse and self.has_fused)
        return follow(model, taken, self.source.scopes, always=always, unfuse=self.unfuse)

    @property
    def has_fused(self) -> bool:
        """Whether a layer may be fused."""
        return any(is_fused(node.proto) for node in self.source.nodes)

    def agrees(self, runtime: Runtime) -> bool:
        """Tell whether the form gives what the source gives, on one sample."""
        feed = next(iter(self.data.batches(1)))
        try:
            one, two = (
                open_session(
                    m.proto, threads=runtime.threads or None, provider=runtime.provider, folder=m.folder
                ).values([value.name for value in m.proto.graph.output], feed)
                for m in (self.source.model, self.model)
            )
        except ModelError:
            return False
        pairs = [(a, b) for a, b in zip(one, two, strict=True) if a.dtype.kind == "f"]
        return all(a.shape == b.shape and np.allclose(a, b, ROUNDING, ROUNDING * np.abs(a).max()) for a, b in pairs)

    def positions(self, table: Positions) -> Positions:
        """Return kept positions with those of tensors that only the form has."""
        if not isinstance(self.model, Followed):
            return table
        own: dict[str, Sequence[IntArray | None]] = {}
        for name, (twin, axis) in self.model.twins.items():
            if twin in table:
                own[name] = table[twin] if axis is None else [None, None, table[twin][axis]]
        return {**table, **own}

    def restored(self, changed: Model, form: Model, model: Model) -> Model:
        """Return a model with the values that its followed form was given."""
        return restore(changed, form, model)


def look(source: View, data: Data, runtime: Runtime) -> Seen:
    """Return a model as the data see it.

    Raises:
        ModelError: onnxruntime cannot run what a condition is computed from.
    """
    seen = Seen(source, data, routes(source, data, runtime.threads, runtime.provider))
    return seen if not seen.has_fused or seen.agrees(runtime) else replace(seen, unfuse=False)
