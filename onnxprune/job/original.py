"""The original model of a job, opened once: its samples, what it gives on them, what the user's function says of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxprune.errors import UsageError
from onnxprune.evidence.border import Border
from onnxprune.evidence.compare import Reference, compare, open_reference
from onnxprune.evidence.evaluation import evaluate
from onnxprune.evidence.verdict import Where
from onnxprune.graph.model import Model
from onnxprune.graph.save import save
from onnxprune.graph.session import open_session
from onnxprune.job.gates import Gates
from onnxprune.job.run import Run
from onnxprune.methods.calibration import SAMPLES as MOST
from onnxprune.methods.calibration import calibration
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import fixed_batch, input_specs
from onnxprune.statistics.image_options import ImageOptions
from onnxprune.statistics.images import SUFFIXES
from onnxprune.statistics.marks import marks_of
from onnxprune.statistics.split import changed, first, part, split

if TYPE_CHECKING:
    from onnxprune.evidence.compare import Comparison
    from onnxprune.graph.trace import Trace
    from onnxprune.graph.view import View
    from onnxprune.types import Array

SAMPLES = 128
"""So many samples are compared, and give ranges, when nobody gives a number."""

NO_IMAGES = (
    "size, mean, std and layout (--image-size, --mean, --std, --layout) are of images, and there are none; leave them "
    "out, or scale the arrays yourself."
)


@dataclass(eq=False)
class Original:
    """The original model of a job. Everything is made when it is first asked for, and once.

    given: data of the user, of any kind that is read. folder: for models that must be files.
    border: what became of its inputs and outputs in the steps that were done. current: the model with these.
    fits: something is fitted to the data, so a part of them is kept for judging.
    met: marks of the samples that statistics were collected of elsewhere.
    reads_all: a step reads all the data; the others get the first few hundred, as ever.
    """

    source: Model
    given: Any
    run: Run
    gates: Gates
    folder: Path
    fits: bool = True
    reads_all: bool = False
    border: Border = field(default_factory=Border)
    current: Model | None = None
    met: Array | None = None
    _all_met: bool = False
    _open: list[Reference] = field(default_factory=list)

    @cached_property
    def _parts(self) -> tuple[Data | None, Data | None]:
        """What methods fit to, and what results are judged on, where that is something else."""
        data, judge = self._whole, self._read(self.gates.judge_data)
        if judge is not None or data is None or not self.fits:
            return data, self._unmet(judge)
        fit, held = split(data)
        return fit, self._unmet(held)

    def _unmet(self, judged: Data | None) -> Data | None:
        """Return samples to judge on without those that statistics know already; all of them, where none is left."""
        if judged is None or self.met is None:
            return judged
        new = ~np.isin(marks_of(judged), self.met)
        whole = fixed_batch(judged.inputs) is not None
        self._all_met = not (new.all() if whole else new.any())
        return judged if self._all_met or whole else part(judged, new)

    @cached_property
    def _whole(self) -> Data | None:
        """All the data of the user."""
        return self._read(self.given)

    def provenance(self) -> dict[str, object] | None:
        """Return hash and number of the samples that were given, as JSON data; None where none were read."""
        read: Data | None = self.__dict__.get("_whole")
        return None if read is None else {"sha256": read.sha256, "samples": read.samples}

    @property
    def data(self) -> Data | None:
        """The checked data that methods fit to, as the model takes them after the steps that were done."""
        return self._taken(self._some(self._parts[0]))

    @property
    def all_data(self) -> Data | None:
        """The same without a limit, where a step asks for it."""
        return self._taken(self._parts[0])

    @property
    def judged(self) -> Data | None:
        """The checked data that results are judged on; None where there are none."""
        fit, judged = self._parts
        return self._some(fit if judged is None else judged)

    def _some(self, data: Data | None) -> Data | None:
        return first(data, MOST) if data is not None and self.reads_all and self.run.samples is None else data

    @property
    def where(self) -> Where:
        """What figures are measured on, as a verdict wants to know it."""
        if self.judged is None:
            return "made-up"
        if not self.fits:
            return "all"
        return "held-out" if self._parts[1] is not None and not self._all_met else "fitted"

    @cached_property
    def traced(self) -> tuple[View, Trace]:
        """The model, read and traced."""
        return traced(self.source, self.run, self.judged)

    @property
    def reference(self) -> Reference:
        """The original in a session, with the samples that outputs are compared on."""
        if not self._open:
            sizes = self._sizes()
            read = traced(self.source, replace(self.run, input_shapes=sizes)) if sizes else self.traced
            self._open.append(self.opened(self.source, read))
        return self._open[0]

    def feeds(self) -> list[dict[str, Array]]:
        """Return inputs to fit to, drawn at random where there are no data."""
        from onnxprune.statistics.batch import batch_size

        drawn = self.reference  # tells, too, that onnxruntime runs the original at all
        if self.data is not None:
            some = self.data if self.run.samples is not None else first(self.data, SAMPLES)
            return [dict(feed) for feed in some.batches(batch_size(*self.traced))]
        if self.judged is not None:
            drawn = self._session(self.source, self.traced, None, None, "")
            drawn.session.close()
        feeds = [dict(feed) for feed in drawn.samples]
        return feeds if self.current is None else [self.border.narrowed(feed) for feed in feeds]

    def judge(self, gates: Gates) -> Any:
        """Return what tells whether a model keeps the limits; None without limits."""
        if not gates.is_active:
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
        """Return a model in a session, with the samples that it is judged on: all of them, or the first few."""
        data = self.judged if model is self.source else self._taken(self.judged)
        if data is not None:
            limit = None if self.where == "held-out" else self.run.samples or SAMPLES
            data = first(data, samples or limit or data.samples)
        return self._session(model, read, data, samples, self._named(data))

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        """Return input -> shape, where the model after the steps that were done has fixed what was dynamic."""
        if self.current is None:
            return {}
        _, trace = self.traced
        found = dict(self.run.input_shapes)
        for name, now in declared_sizes(self.current.proto).items():
            before = trace.shapes.get(name, ())
            if len(before) != len(now):
                continue
            both = list(zip(now, before, trace.dynamic(name), strict=True))
            if any(size and free for size, _, free in both):
                found[name] = tuple(size if size and free else old for size, old, free in both)
        return found if found != dict(self.run.input_shapes) else {}

    def _taken(self, data: Data | None) -> Data | None:
        """Return data as the model takes them after the steps that were done."""
        if data is None or self.current is None:
            return data
        return changed(data, self.border.narrowed, input_specs(self.current.proto))

    def _named(self, data: Data | None) -> str:
        """Return how reports call the samples."""
        if data is None:
            return ""
        given = self.given if self.gates.judge_data is None else self.gates.judge_data
        source = str(given) if isinstance(given, str | Path) else "the given data"
        rest = {"held-out": " that nothing was fitted to", "fitted": ", which it was fitted to"}.get(self.where, "")
        return f"{data.samples} sample{'s' * (data.samples != 1)} of {source}{rest}"

    def _session(
        self, model: Model, read: tuple[View, Trace], data: Data | None, samples: int | None, name: str
    ) -> Reference:
        from onnxprune.statistics.batch import batch_size

        run = self.run
        return open_reference(
            model,
            file=model.path,
            traced=read,
            data=data.batches(batch_size(*read)) if data is not None else None,
            data_name=name,
            data_count=data.samples if data is not None else None,
            samples=samples or run.samples,
            seed=run.seed,
            input_shapes=self._sizes() or run.input_shapes,
            threads=run.threads,
            provider=run.provider,
            border=self.border if model is self.source else None,
        )

    def _read(self, given: object) -> Data | None:
        """Return data of the user, read and checked.

        Raises:
            DataError: they do not fit the model.
            UsageError: options for images, and the data are none.
        """
        if given is None:
            return None
        if self.run.images != ImageOptions() and not _are_images(given):
            raise UsageError(NO_IMAGES)
        if self.reads_all and not isinstance(given, Data):
            return read(given, input_specs(self.source.proto), samples=self.run.samples, images=self.run.images)
        return calibration(self.source, given, self.run.samples, self.run.images)

    def _drop_of_model(self, model: Model) -> float:
        return self.value - self.evaluated(model)

    def _written(self, model: Model) -> Path:
        file = self.folder / ("original.onnx" if model is self.source else "candidate.onnx")
        save(model, file)
        return file


def traced(model: Model, run: Run, data: Data | None = None) -> tuple[View, Trace]:
    """Return a model as it is read, and traced, at sizes that go with the data."""
    from onnxprune.graph.trace import trace
    from onnxprune.graph.view import View

    view = View(model)
    return view, trace(view, dict(run.input_shapes), data.sizes if data is not None else None)


def declared_sizes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return input -> its sizes as the graph declares them, 0 where they are dynamic."""
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
        if value.type.tensor_type.HasField("shape")
    }


def _are_images(given: object) -> bool:
    """Tell whether data are an image or a folder that may hold some."""
    if not isinstance(given, str | Path):
        return False
    path = Path(given)
    return path.suffix.lower() in SUFFIXES or (
        path.is_dir() and any(item.suffix.lower() in SUFFIXES for item in path.rglob("*"))
    )
