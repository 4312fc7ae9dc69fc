"""Carry out a saved plan on the model that it was made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxprune.channels.analyse import analyse
from onnxprune.channels.plan import Plan
from onnxprune.channels.rewrite import rewrite
from onnxprune.compensate.effort import Effort
from onnxprune.errors import UsageError
from onnxprune.graph.drop import shorten
from onnxprune.graph.model import Model, Source, load
from onnxprune.methods.calibration import DataSource, Runtime, calibration
from onnxprune.methods.depth import border_left, notes_of, sizes_left, whole_of
from onnxprune.methods.layer_options import check_effort, choose, named, require_data
from onnxprune.methods.options import MODES
from onnxprune.methods.refit import refit
from onnxprune.methods.result import PruneResult
from onnxprune.methods.synthetic import WEAKER, synthetic
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.turned import turned_if_few

NOT_REFITTED = (
    "the prune that made this plan refitted what stays, and a plan only says what to remove: without data this result "
    "is further from the original than that one; give the same data (--data)"
)


@dataclass(frozen=True)
class ApplyOptions:
    """Options of `apply`.

    plan: what to remove, or the file that it was saved in.
    force: apply it to another model as well, as long as its tensors fit.
    input_shapes: graph input -> full shape, as it was when the plan was made.
    heads, head_dim: as they were when the plan was made.
    compensate, steps, effort, memory, seed: see `PruneOptions`. Without data, what stays is refitted only where
        `compensate` asks for it, to made-up inputs.
    """

    plan: Path | Plan | None = None
    force: bool = False
    heads: bool | None = None
    head_dim: bool | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    compensate: str | None = None
    steps: int | None = None
    effort: str | None = None
    memory: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.compensate is not None:
            choose("compensate", self.compensate, MODES)
        check_effort(self.effort, self.compensate, self.steps)
        if isinstance(self.plan, str):
            object.__setattr__(self, "plan", Path(self.plan))

    @classmethod
    def of(cls, **values: Any) -> ApplyOptions:
        """Return options by name.

        Raises:
            UsageError: an unknown name.
        """
        return cls(**named(cls, values))

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON data without paths."""
        default = ApplyOptions()
        values = {name: value for name, value in vars(self).items() if value != getattr(default, name)}
        return {name: value for name, value in values.items() if name not in ("plan", "memory", "force")}

    def read_plan(self) -> Plan:
        """Return the plan.

        Raises:
            UsageError: there is none, or its file cannot be read.
        """
        if isinstance(self.plan, Plan):
            return self.plan
        if self.plan is None:
            raise UsageError("apply needs a plan: give the file that a prune saved it in.")
        try:
            return Plan.from_json(self.plan.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"the plan '{self.plan}' does not exist.") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"the plan '{self.plan}' is not a text file; give one that a prune saved.") from error
        except OSError as error:
            raise UsageError(f"the plan '{self.plan}' cannot be read ({error.strerror or error}).") from error


def check_source(model: Model, plan: Plan, force: bool) -> None:
    """Refuse a plan of another file.

    Raises:
        UsageError: it was made for another one, and is not forced.
    """
    if model.sha256 != plan.source_sha256 and not force:
        raise UsageError(
            f"the plan was made for another file (sha256 {plan.source_sha256[:12]}.., this one has "
            f"{model.sha256[:12]}..); make a plan for this one, or force it where the tensors are the same."
        )


@on_one_thread
def apply(
    source: Source,
    options: ApplyOptions,
    data: DataSource | None = None,
    *,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> PruneResult:
    """Remove what a plan says.

    Args:
        source: the model that the plan was made for; it is not changed.
        data, runtime, progress: see `onnxprune.methods.prune.prune`.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read.
        UsageError: the plan was made for another model, or does not fit.
    """
    runtime, plan, model = runtime or Runtime(), options.read_plan(), load(source)
    check_source(model, plan, options.force)
    require_data(options.effort, data)
    samples = turned_if_few(calibration(model, data)) if data is not None else None
    seen = samples.sizes if samples is not None else None
    short = shorten(model, plan.dropped, options.input_shapes)
    left, shapes = short.model if short is not None else model, sizes_left(short, options.input_shapes)
    channels = analyse(left, shapes, options.heads, options.head_dim, seen=seen)
    keep = channels.keep(plan)
    cut = rewrite(channels, keep)
    border, notes = border_left(short, channels, keep), tuple(notes_of(short))
    result = PruneResult(cut, plan, channels, keep, {}, notes, uncompensated=cut, border=border, short=short)
    if samples is None and options.compensate not in (None, "none"):
        samples = synthetic(whole_of(short) or channels, options.input_shapes, options.seed, runtime)
        result = replace(result, warnings=(*notes, WEAKER))
    elif samples is None and plan.refitted and options.compensate is None:
        result = replace(result, warnings=(*notes, NOT_REFITTED))
    progress("refitting what stays")
    runtime = replace(runtime, memory=options.memory)
    effort = None if options.effort is None else Effort.of(options.effort)
    fitted = refit(result, samples, options.compensate, runtime, options.steps, progress=progress, effort=effort)
    return replace(fitted, samples=samples)
