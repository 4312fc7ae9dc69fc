"""Carry out a job and write what it gives: the model, checked before it gets its name, its plan and the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote

from onnxprune.errors import DataError, GateError, NothingToPruneError, UsageError
from onnxprune.evidence.verdict import LEAST_COSINE, advice
from onnxprune.files.identity import files_of, refuse_inputs
from onnxprune.files.staging import Staging
from onnxprune.graph.external import WeightFiles
from onnxprune.graph.model import Model, file_sha256, load
from onnxprune.graph.provenance import with_provenance
from onnxprune.graph.save import save as save_model
from onnxprune.graph.signature import check_signing, sign, signature_beside
from onnxprune.job.beside import config_of, stage_config
from onnxprune.job.carry_out import JobResult, carry_out
from onnxprune.job.job import Job
from onnxprune.job.outputs import check_distinct, check_outputs, check_writable, told
from onnxprune.job.sources_check import check_sources
from onnxprune.job.watching import Check, Stage, unseen
from onnxprune.report import Report


def check_job(job: Job, *, suffix: str | None = None, also: tuple[Path, ...] = ()) -> Path:
    """Look for everything that can be wrong with a job before any work; return the file that it will write.

    Args:
        suffix: what the default name of the output gets, instead of that of the last step.
        also: further files that are read, and so never replaced.

    Raises:
        DataError: data or a function that are not there.
        OutputError: an output that cannot be written.
        UsageError: there is no model, or a plan is asked for where there is not one prune.
    """
    if job.model is None:
        raise UsageError("the recipe names no model; give --model FILE.")
    prunes = [step.method.name for step in job.steps if step.method.name in ("prune", "tune", "apply", "trim")]
    if job.outputs.plan is not None and len(prunes) != 1:
        raise UsageError("a plan says what one prune removes; this recipe has not exactly one, leave the plan out.")
    target = job.target(suffix)
    inputs = read_by(job, also)
    check_outputs(job.outputs, target, inputs)
    for state in (getattr(step.options, "state", None) for step in job.steps):
        check_writable(state, inputs=inputs)
        check_distinct((state, target, *job.outputs.texts))
    if job.outputs.intermediates is not None:
        refuse_inputs(files_of(job.outputs.intermediates), inputs)
    check_sources(job)
    return target


def write_job(job: Job, *, stage: Stage = unseen, suffix: str | None = None, also: tuple[Path, ...] = ()) -> JobResult:
    """Carry out a job and write its outputs; without a name the model goes beside the input.

    Args:
        suffix, also: see `check_job`.

    Raises:
        GateError: a limit is not kept; nothing was written but the report, and the model before if that is asked for.
        NothingToPruneError, DataError: nothing was written but the report.
        OutputError: something cannot be written.
        OnnxpruneError: see `carry_out`.
    """
    target = check_job(job, suffix=suffix, also=also)
    job = replace(job, outputs=replace(job.outputs, output=target))
    reads = [path for path in (*job.reads, *also) if path is not None]
    drafts: list[Path] = []
    sources: list[Model] = []

    with Staging(clobber=not job.outputs.no_clobber) as staging:

        def deliver(model: Model, original: Model, check: Check) -> None:
            def checked(draft: Path | Model) -> None:
                if isinstance(draft, Path):
                    drafts.append(draft)
                check(draft)

            sources.append(original)
            save(
                model,
                target,
                clobber=not job.outputs.no_clobber,
                provenance=not job.outputs.no_provenance,
                inputs=reads,
                check=checked,
                source=original,
                staging=staging,
            )
            if job.outputs.sign is not None:
                staging.text(signature_beside(target), sign(drafts[-1], job.outputs.sign, name=target.name))

        try:
            done = carry_out(job, stage=stage, deliver=deliver)
        except (GateError, NothingToPruneError, DataError) as error:
            error.report.details["recipe"] = job.as_data()
            for path, text in told(job.outputs, error.report):
                staging.text(path, text)
            staging.commit()  # also the model of the step before, where that was asked for
            raise
        report = done.report
        report.details["recipe"] = job.as_data()
        _describe_output(report, done.model, target, drafts[-1])
        stage_config(job.source_path, target, sources[-1], done.model, staging, report)
        if job.outputs.sign is not None:
            report.details["signature"] = signature_beside(target).name
        report.details["next"] = next_steps(report, job, target)
        if job.outputs.plan is not None and done.plan is not None:
            staging.text(job.outputs.plan, done.plan.to_json())
        for path, text in told(job.outputs, report):
            staging.text(path, text)
        for state in (getattr(step.options, "state", None) for step in job.steps):
            if isinstance(state, Path):
                staging.then(partial(state.unlink, missing_ok=True))
        staging.commit()
    return done


def read_by(job: Job, also: tuple[Path, ...] = ()) -> dict[str, Iterable[Path]]:
    """Return the files that a job reads, by what they are: no output may be one of them."""
    key = job.outputs.sign
    spec = job.gates.eval if isinstance(job.gates.eval, str) else None
    given = [item for item in (job.data, job.gates.judge_data) if isinstance(item, str | Path)]
    model = job.source_path
    return {
        "the model": [model] if model is not None else [],
        "weights of the model": WeightFiles(model) if model is not None else [],
        "read besides the model": [*job.reads, *also, *(path for path in [config_of(model)] if path is not None)],
        "code of the evaluation": list(files_of(spec)),
        "the key": [key] if key is not None else [],
        "part of the data": [path for item in given for path in files_of(item)],
    }


def save(
    model: Model,
    path: str | Path,
    *,
    clobber: bool = True,
    provenance: bool = True,
    inputs: list[Path] | tuple[Path, ...] = (),
    check: Check | None = None,
    source: Model | None = None,
    staging: Staging | None = None,
    sign_with: str | Path | None = None,
) -> None:
    """Write a model atomically; a result says in its metadata where it comes from.

    A genai_config.json beside the source is written beside it too, where the sizes in it changed.

    Args:
        clobber: replace an existing output.
        provenance: leave the onnxprune.* keys of a result in its metadata.
        inputs, check, source, staging: see `onnxprune.graph.save.save`.
        sign_with: private key (PEM) that signs the model; the signature goes beside it, see `verify`.

    Raises:
        OutputError: the place cannot be written, is an input, or exists and may not be replaced.
        OnnxpruneError: the result is not valid, a defect of ours; nothing is written.
    """
    if provenance and model.origin is not None:
        model = replace(model, proto=with_provenance(model.proto, *model.origin), file_bytes=None)
    has_config = model.origin is not None and config_of(model.path) is not None
    if staging is not None or not (has_config or sign_with):
        save_model(model, path, clobber=clobber, inputs=inputs, check=check, source=source, staging=staging)
        return
    drafts: list[Path] = []

    def checked(draft: Path) -> None:
        drafts.append(draft)
        if check is not None:
            check(draft)

    if sign_with is not None:
        check_signing(Path(sign_with))
    with Staging(clobber=clobber) as together:
        save_model(model, path, clobber=clobber, inputs=inputs, check=checked, source=source, staging=together)
        if has_config:
            stage_config(model.path, Path(path), load(model.path or path), model, together)
        if sign_with is not None:
            text = sign(drafts[-1], Path(sign_with), name=Path(path).name)
            together.text(signature_beside(Path(path)), text)
        together.commit()


def next_steps(report: Report, job: Job, target: Path) -> list[str]:
    """Return what to do about the questions that this run cannot answer; the last line is about what judged it."""
    source = quote(str(job.source_path or "MODEL"))
    cosines = [figures["cosine"] or 0.0 for figures in report.parity.values() if figures]
    far = bool(cosines) and min(cosines) < LEAST_COSINE and report.details["verdict"]["status"] == "not judged"
    steps = [f"The outputs differ much (cosine {min(cosines):.2f}). {advice(report.command)}"] if far else []
    steps += [f"Faster? onnxprune bench {source} {quote(str(target))}"]
    if job.data is None and job.gates.judge_data is None:
        steps.append(
            "Random inputs show defects, not accuracy: give inputs without labels (--data PATH), a bound to search "
            f"under (onnxprune tune {source} --data PATH --min-agreement 0.98), or a gate (--max-drop X --eval "
            "FILE.py:FUNCTION)."
        )
    return steps


def _describe_output(report: Report, model: Model, target: Path, draft: Path) -> None:
    """Fill in what is known about the output only once it is written, if not yet under its name."""
    if report.output is not None:
        size = draft.stat().st_size + model.external_bytes
        report.output = replace(report.output, path=str(target), bytes=size, sha256=file_sha256(draft))
