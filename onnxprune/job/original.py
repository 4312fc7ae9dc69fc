"""The original model of a job, opened once: its samples, what it gives on them, what the user's function says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.graph.model import Model, save
from onnxprune.job.gates import Gates
from onnxprune.job.run import Run
from onnxprune.methods.calibration import calibration
from onnxprune.statistics.feeds import input_specs
from onnxprune.statistics.split import changed, first
from onnxprune.validate.border import Border
from onnxprune.validate.compare import Reference, compare, open_reference
from onnxprune.validate.gates import evaluate
from onnxprune.validate.session import open_session

if TYPE_CHECKING:
    from onnxprune.graph.trace import Trace
    from onnxprune.graph.view import View
    from onnxprune.statistics.data import Data
    from onnxprune.types import Array
    from onnxprune.validate.compare import Comparison

SAMPLES = 128
"""So many samples of the user's data are compared when nobody gives a number."""


@dataclass(eq=False)
class Original:
    """The original model of a job. Everything is made when it is first asked for, and once.

    given: data of the user, of any kind that is read. folder: for models that must be files.
    border: what became of its inputs and outputs in the steps that were done. current: the model with these.
    """

    source: Model
    given: Any
    run: Run
    gates: Gates
    folder: Path
    border: Border = field(default_factory=Border)
    current: Model | None = None
    _open: list[Reference] = field(default_factory=list)

    @property
    def data(self) -> Data | None:
        """The checked data that methods fit to, as the model takes them after the steps that were done."""
        if self.given_data is None or self.current is None:
            return self.given_data
        return changed(self.given_data, self.border.narrowed, input_specs(self.current.proto))

    @cached_property
    def given_data(self) -> Data | None:
        """The checked data of the user; None where there are none."""
        return None if self.given is None else calibration(self.source, self.given, self.run.samples, self.run.images)

    @cached_property
    def traced(self) -> tuple[View, Trace]:
        """The model, read and traced."""
        return traced(self.source, self.run)

    @property
    def reference(self) -> Reference:
        """The original in a session, with the samples that outputs are compared on."""
        if not self._open:
            self._open.append(self.opened(self.source, self.traced))
        return self._open[0]

    def feeds(self) -> list[dict[str, Array]]:
        """Return inputs to fit to, drawn at random where there are no data."""
        return [dict(feed) for feed in self.reference.samples]

    def judge(self, gates: Gates) -> Any:
        """Return what tells whether a model keeps the limits; None without limits."""
        if not gates.active:
            return None
        from onnxprune.methods.quantization.search import Judge

        drop = self._drop_of_model if gates.max_drop is not None else None
        return Judge(self.reference, gates, self.run.threads, drop)

    def compare(self, compressed: Path | Model) -> Comparison:
        """Return how close a model is to the original."""
        with open_session(compressed, threads=self.run.threads, provider=self.run.provider) as session:
            return compare(self.reference, session)

    @cached_property
    def value(self) -> float:
        """The user's value of the original."""
        return self.evaluated(self.source)

    def evaluated(self, model: Path | Model) -> float:
        """Return the user's value of a model.

        Raises:
            DataError: the function raises or gives no number.
        """
        function = self.gates.function()
        if function is None:
            raise ValueError("there is no function to evaluate with")
        if isinstance(model, Path):
            return evaluate(function, model, self.gates.evaluation)
        unchanged = model.path is not None and model is self.source
        file = model.path if unchanged and model.path is not None else self._written(model)
        return evaluate(function, file, self.gates.evaluation)

    def release(self) -> None:
        """Let the session go, and the memory that it takes; it is opened again when it is asked for."""
        from onnxprune.methods.quantization.native import release

        self.close()
        release()

    def close(self) -> None:
        """Let the session go."""
        for reference in self._open:
            reference.session.close()
        self._open.clear()

    def opened(self, model: Model, read: tuple[View, Trace], samples: int | None = None) -> Reference:
        """Return a model in a session, with samples of the data: as many as the run says, or fewer."""
        from onnxprune.statistics.batch import batch_size

        run, is_source = self.run, model is self.source
        data = self.given_data if is_source else self.data
        count = samples or run.samples or SAMPLES
        if data is not None:
            data = first(data, count)
        return open_reference(
            model,
            file=model.path,
            traced=read,
            data=data.batches(batch_size(*read)) if data is not None else None,
            data_name=f"{data.samples} samples of {_name(self.given)}" if data is not None else "",
            data_count=data.samples if data is not None else None,
            samples=samples or run.samples,
            seed=run.seed,
            input_shapes=run.input_shapes,
            threads=run.threads,
            provider=run.provider,
            border=self.border if is_source else None,
        )

    def _drop_of_model(self, model: Model) -> float:
        return self.value - self.evaluated(model)

    def _written(self, model: Model) -> Path:
        file = self.folder / ("original.onnx" if model is self.source else "candidate.onnx")
        save(model, file)
        return file


def traced(model: Model, run: Run) -> tuple[View, Trace]:
    """Return a model as it is read, and traced."""
    from onnxprune.graph.trace import trace
    from onnxprune.graph.view import View

    view = View(model)
    return view, trace(view, dict(run.input_shapes))


def _name(given: Any) -> str:
    return str(given) if isinstance(given, str | Path) else "the given data"
