"""A job: what to do with which model, on which data, how, within which limits, written where. One value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.graph.model import Source
from onnxprune.graph.source_file import stem
from onnxprune.job.gates import Gates
from onnxprune.job.methods import METHODS, Method
from onnxprune.job.outputs import Outputs
from onnxprune.job.run import SHARED, Run
from onnxprune.option import default_of, said
from onnxprune.statistics.image_options import ImageOptions


@dataclass(frozen=True)
class Step:
    """A method with its options, and limits of its own that take the place of the job's."""

    method: Method
    options: Any
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, object]:
        """Name and options as plain data, without paths."""
        return {"command": self.method.name, **self.options.to_dict()}

    @property
    def reads_all(self) -> bool:
        """Whether it reads all samples of the user, not a few hundred."""
        return self.method.all_data or getattr(self.options, "select", None) is not None

    def shared(self, run: Run) -> Step:
        """Return the step with what it does not say itself taken from the run."""
        said = {item.name: item for item in fields(self.options) if item.name in SHARED}
        taken = {name: getattr(run, name) for name in said if getattr(self.options, name) == default_of(said[name])}
        return replace(self, options=replace(self.options, **taken)) if taken else self

    @property
    def times(self) -> bool:
        """Whether it measures how long models take."""
        return getattr(self.options, "latency", None) is not None or getattr(self.options, "measure_latency", False)

    def before(self, later: Sequence[Step]) -> Step:
        """Return the step with widths that suit the numbers which a later step makes the model compute in."""
        if "precision" not in self.method.option_names or self.options.precision is not None:
            return self
        found = [step.options.precision for step in later if step.method.name == "quantize"]
        return replace(self, options=replace(self.options, precision=found[-1])) if found and found[-1] else self


@dataclass(frozen=True)
class Job:
    """Steps, one after the other, each on what the one before it gave.

    model: path, bytes, ModelProto, onnx-graphsurgeon Graph or Model.
    data: .npz, .npy, a folder of those or of images, or `file.py:function`; from Python whatever `read` takes.
    gates: compared with the original after every step.
    about: what people are told that it is for.
    measure_latency: measure what is quantized against the original.
    name: "run" for a recipe; a command and a call from Python are named after their method.
    argv: words of the command line, for the report.
    """

    steps: tuple[Step, ...]
    model: Source | None = None
    data: Any = None
    run: Run = field(default_factory=Run)
    gates: Gates = field(default_factory=Gates)
    outputs: Outputs = field(default_factory=Outputs)
    about: str = ""
    measure_latency: bool = False
    name: str = "run"
    argv: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shared = [step.shared(self.run) for step in self.steps]
        object.__setattr__(self, "steps", tuple(step.before(shared[number:]) for number, step in enumerate(shared, 1)))
        where = "device" if self.run.device else "latency_command" if self.run.latency_command else None
        if where is not None and not any(step.times for step in self.steps):
            raise UsageError(f"{where}: no step measures a latency; ask for one (latency), or leave {where} out.")

    @property
    def settings(self) -> dict[str, object]:
        """What is done, as plain data without paths: one step is that command."""
        done = [step.settings for step in self.steps]
        return done[0] if len(done) == 1 else {"command": "run", "steps": done}

    @property
    def source_path(self) -> Path | None:
        """The file of the model, if it is one."""
        return Path(self.model) if isinstance(self.model, str | Path) else None

    def target(self, suffix: str | None = None) -> Path:
        """Return the file to write.

        Raises:
            UsageError: there is no name for it.
        """
        if self.outputs.output is not None:
            return self.outputs.output
        last = self.steps[-1]
        improved = getattr(last.options, "compressed", None)
        path = improved if isinstance(improved, Path) else self.source_path
        if path is None:
            raise UsageError("the model is no file: name the output.")
        return path.with_name(f"{stem(path)}-{suffix or last.method.suffix(last.options)}.onnx")

    @property
    def reads(self) -> tuple[Path, ...]:
        """Files that are read besides the model, as far as they are known by their names."""
        names = ("plan", "compressed", "labels", "loss", "stats")
        given = (getattr(step.options, name, None) for step in self.steps for name in names)
        return tuple(path for path in given if isinstance(path, Path))

    def as_data(self) -> dict[str, object]:
        """Return the recipe of the job as JSON data; what is as usual is left out.

        Paths are as they were given: relative ones hold in the folder where the job was made.
        """
        run = self.run
        shown = run.images if run.images != ImageOptions() else None
        parts = {
            "about": self.about or None,
            "model": self.source_path,
            "data": self.data if isinstance(self.data, str | Path) else None,
            "samples": run.samples,
            "seed": run.seed or None,
            "threads": run.threads or None,
            "provider": run.provider,
            "memory": run.memory,
            "device": run.device,
            "latency_command": run.latency_command,
            "latency_timeout": run.latency_timeout,
            "cluster": run.cluster,
            "target": run.target,
            "verify": run.verify,
            "measure_latency": self.measure_latency,
            "input_shapes": run.input_shapes,
            "images": _said(vars(shown)) if shown is not None else None,
            "steps": [{step.method.name: _options(step)} for step in self.steps],
            "gates": _said({item.name: getattr(self.gates, item.name) for item in fields(self.gates)}),
            "outputs": _said(vars(self.outputs)),
        }
        data: dict[str, Any] = plain(_said(parts) | ({"verify": False} if run.verify is False else {}))
        return data


def plain(value: Any) -> Any:
    """Return the types of YAML and JSON: lists for tuples, text for paths."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def step(name: str, limits: Mapping[str, float] | None = None, **options: object) -> Step:
    """Return a step from Python.

    Raises:
        UsageError: there is no such method or option, or a value makes no sense.
    """
    if name not in METHODS:
        raise UsageError(f"there is no step '{name}'; there are {', '.join(METHODS)}.")
    return Step(METHODS[name], METHODS[name].options.of(**options), dict(limits or {}))


def _said(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if not (value is None or value is False or value in ((), {}))}


def _options(step: Step) -> dict[str, object]:
    """Return the options of a step as a recipe spells them, those that do not change the model among them."""
    values = {name: value for name, value in step.options.to_dict().items() if name not in SHARED}
    told = {item.name: item for item in fields(step.options) if said(item).untold and item.name not in SHARED}
    more = {name: getattr(step.options, name) for name in told if getattr(step.options, name) != default_of(told[name])}
    return {**values, **more, **({"gates": dict(step.limits)} if step.limits else {})}
