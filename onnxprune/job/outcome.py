"""What came of a step and of a job: figures, gates, the verdict, and errors, as a report tells them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.errors import GateError, OnnxpruneError
from onnxprune.evidence.limits import measured
from onnxprune.evidence.verdict import Samples, judge
from onnxprune.graph.model import Model
from onnxprune.job.describe import finite
from onnxprune.job.gates import Gates
from onnxprune.job.job import Job, Step
from onnxprune.job.original import Original
from onnxprune.job.surroundings import surroundings
from onnxprune.report import Report

if TYPE_CHECKING:
    from onnxprune.evidence.compare import Comparison
    from onnxprune.evidence.examine import Evidence
    from onnxprune.methods.result import PruneResult

FAR = ("poor", "failed")
MADE_UP = (
    "gates were judged on made-up inputs, which show defects, not accuracy: give inputs of the model (--data, or "
    "--judge-data)"
)
ALL_FITTED = (
    "the data are few, so the result was judged on the same samples that it was fitted to: give 16 or more, or others "
    "to judge on (--judge-data)"
)


@dataclass(frozen=True, eq=False)
class Done:
    """A step that was carried out.

    result: what its method gave. model: the model of it.
    comparison: its outputs against those of the original; None where they were not compared.
    drop: how much the user's value fell from the original.
    evidence: what else was seen, masked parity of a step that removes channels among it.
    """

    number: int
    step: Step
    result: Any
    model: Model
    comparison: Comparison | None = None
    drop: float | None = None
    evidence: Evidence | None = None
    seconds: float = 0.0


def begun(job: Job) -> Report:
    """Return the report of a job that has not done anything yet."""
    details = {"seed": job.run.seed, "options": job.settings, **surroundings(job.argv)}
    return Report(job.name, details=details)


def note_verdict(
    report: Report, job: Job, original: Original, done: Done, gates: Gates, failures: list[str]
) -> list[str]:
    """Put the verdict into the report; return what fails besides, where the gates are strict."""
    comparison, masked = done.comparison, done.evidence.masked if done.evidence else None
    where = original.where
    unsure = [f"masked parity of '{name}'" for name in masked.unsure] if masked is not None else []
    verdict = judge(
        comparison.parity if comparison else {},
        Samples(where, comparison.samples if comparison else 0),
        command=job.name,
        worst_layers=worst_layers(done.result),
        failures=failures,
        unjudged=unsure,
    )
    report.details["verdict"] = verdict.to_json()
    if where == "fitted" and comparison is not None:
        report.warn(ALL_FITTED)
    more = []
    if gates.needs_outputs and where == "made-up":
        report.warn(MADE_UP)
        more += [MADE_UP] if gates.is_strict else []
    if verdict.status in FAR and gates.is_strict and not failures:
        more += [" ".join(verdict.reasons)]
    return more


def note_error(report: Report, error: OnnxpruneError) -> None:
    """Put the reason into the report of a job that ended early, and the report to the error."""
    text = str(error)
    report.output = None
    report.details["error"] = {"code": error.exit_code, "message": text}
    if report.details.get("verdict", {}).get("status") not in FAR:
        status = "failed" if isinstance(error, GateError) else "not judged"
        report.details["verdict"] = {"status": status, "reasons": [text]}
    error.report = report


def worst_layers(result: Any) -> list[str]:
    """Return the names of the layers with the largest error, the worst first, as far as the method tells."""
    pruned = pruned_of(result)
    if pruned is not None:
        layers = pruned.compensation.layers if pruned.compensation is not None else []
        errors = {layer.name: layer.after for layer in layers}
    elif hasattr(result, "mode"):
        errors = {
            layer.name: -layer.sqnr_db for layer in result.layers if layer.quantized and layer.sqnr_db is not None
        }
    else:
        thin: Any = getattr(result, "layers", ())
        errors = {layer.name: layer.error for layer in thin if layer.error is not None}
    known = {name: error for name, error in errors.items() if math.isfinite(error)}
    return sorted(known, key=lambda name: -known[name])[:3]


def model_of(result: Any) -> Model:
    """Return the model of what a method gave."""
    model: Model = getattr(result, "result", result).model
    return model


def pruned_of(result: Any) -> PruneResult | None:
    """Return what a method gave as a prune, None if it removes no channels."""
    inner = getattr(result, "result", result)
    return inner if hasattr(inner, "keep") else None


def figures_of(done: Done) -> Mapping[str, float | None]:
    """Return the worst figure of all outputs: cosine, sqnr_db, agreement; empty where nothing was compared."""
    parity = done.comparison.parity if done.comparison else {}
    found: dict[str, list[float | None]] = {name: [*measured(name, parity).values()] for name in ("cosine", "sqnr_db")}
    found["agreement"] = [figures.agreement for figures in parity.values() if figures]
    known = {name: [v for v in values if v is not None and math.isfinite(v)] for name, values in found.items()}
    return {name: min(values) for name, values in known.items() if values}


def masked_figures(evidence: Evidence) -> dict[str, object]:
    """Return what masked parity found, as JSON data."""
    masked = evidence.masked
    return {} if masked is None else {"relative_error": finite(masked.errors), "tolerance": masked.tolerance}
