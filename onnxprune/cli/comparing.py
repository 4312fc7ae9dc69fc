"""What `validate` looks at besides outputs as a whole: every layer, and the tolerance of every output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.report import Report

if TYPE_CHECKING:
    from onnxprune.evidence.compare import Comparison, Reference
    from onnxprune.evidence.layer_parity import LayerParity
    from onnxprune.graph.model import Model
    from onnxprune.graph.session import Feeds
    from onnxprune.job.run import Run


MADE_UP = "how steady models are on made-up inputs says little of yours: give data"


def note_layers(
    record: Report,
    models: tuple[Model, Model],
    feeds: Iterable[Feeds],
    bound: float | None,
    run: Run,
    plan: Path | None = None,
) -> LayerParity | None:
    """Put every layer into the report; return the first one whose SQNR is below the bound."""
    from onnxprune.differences.link import kept_between
    from onnxprune.evidence.layer_parity import compare_layers, first_below

    kept = kept_between(*models, plan)
    found = compare_layers(*models, feeds, kept=kept, threads=run.threads, provider=run.provider)
    record.details["compared_layers"] = [layer.to_json() for layer in found]
    below = first_below(found, bound) if bound is not None else None
    record.details["first_below"] = below.to_json() if below else None
    record.details["layer_bound_db"] = bound
    return below


def note_robust(record: Report, reference: Reference, models: tuple[Model, Model], run: Run) -> None:
    """Put into the report how steady both models are under small changes of their inputs."""
    from onnxprune.evidence.robust import steadiness

    found = steadiness(reference, *models, seed=run.seed, threads=run.threads, provider=run.provider)
    record.details["robustness"] = {
        "brittle": found.is_brittle,
        "sentence": found.sentence,
        "samples": reference.count,
        "lines": [line.to_json() for line in found.lines],
    }
    for warning in (*found.warnings, *([MADE_UP] if reference.made_up else [])):
        record.warn(warning)


def beyond(comparison: Comparison, tolerances: Sequence[tuple[str, float]]) -> list[str]:
    """Return one phrase for each output that differs by more than its tolerance; a named one goes before that of all.

    Raises:
        UsageError: there is no such output.
    """
    named, everywhere = dict(item for item in tolerances if item[0]), dict(tolerances).get("")
    for name in named:
        if name not in comparison.parity:
            raise UsageError(
                f"--tolerance '{name}': there is no such output; there are {', '.join(comparison.parity)}."
            )
    found = []
    for name, figures in comparison.parity.items():
        limit = named.get(name, everywhere)
        if limit is None:
            continue
        difference = figures.max_abs if figures is not None else None
        if difference is None:
            found.append(f"output '{name}' could not be measured for --tolerance")
        elif difference > limit:
            found.append(f"output '{name}': the largest difference is {difference:.3g}, above --tolerance {limit:g}")
    return found


def with_layer(below: LayerParity | None, failures: list[str], bound: float | None) -> list[str]:
    """Return what failed, first the layer that is below the bound."""
    if below is None:
        return failures
    what = f"layer '{below.name}' ({below.operator})"
    return [f"{what} is the first below --layer-sqnr {bound:g}: {below.sqnr_db:.1f} dB", *failures]
