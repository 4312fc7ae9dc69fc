"""The functions of the package: each makes a job and carries it out, as the command of its name does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from onnxprune.channels.analyse import Channels
from onnxprune.channels.analyse import analyse as find_channels
from onnxprune.channels.plan import Plan
from onnxprune.cluster.hiring import hired
from onnxprune.graph.model import Source, load
from onnxprune.job.carry_out import JobResult, carry_out
from onnxprune.job.gates import Gates
from onnxprune.job.job import Job, step
from onnxprune.job.run import Run
from onnxprune.job.watching import told
from onnxprune.recipe import read_recipe

if TYPE_CHECKING:
    from onnxprune.keywords import (
        ApplyKwargs,
        CandidateKwargs,
        FactorizeKwargs,
        FinetuneKwargs,
        PruneKwargs,
        QuantizeKwargs,
        SparsifyKwargs,
        TrimKwargs,
        TuneKwargs,
    )
    from onnxprune.methods.calibration import DataSource
    from onnxprune.methods.factorize import FactorizeResult
    from onnxprune.methods.finetune import FinetuneResult
    from onnxprune.methods.quantize import QuantizeResult
    from onnxprune.methods.result import PruneResult
    from onnxprune.methods.sensitivity import Sensitivity
    from onnxprune.methods.sparsify import SparsifyResult
    from onnxprune.methods.trim import TrimResult
    from onnxprune.methods.tune import TuneResult
    from onnxprune.statistics.kept_sums import KeptSums

Progress = Callable[[str], None]


def prune(
    model: Source,
    data: DataSource | None = None,
    *,
    run: Run | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
    **options: Unpack[PruneKwargs],
) -> PruneResult:
    """Return a model without the channels that matter least, checked against the original as `onnxprune MODEL` does.

    Args:
        model: path, bytes, `onnx.ModelProto`, `onnx_graphsurgeon.Graph` or `Model`; it is not changed.
        data: inputs of the kind that the model is used on, without labels: what stays is refitted to them, without
            them to made-up inputs. A path, feeds, or what `onnxprune.statistics.data.read` takes.
        run: how models are run, and on how much.
        gates: limits that the result must keep.
        progress: told what is being done.
        options: fields of `PruneOptions`, such as `ratio=0.4`, `macs=0.5`, `score="l2"`, `skip=("head*",)`.

    Returns:
        A `PruneResult`: `model.proto` is the pruned ModelProto, `plan` says what was removed, `report` what was found.

    Raises:
        DataError: the data do not fit the model.
        GateError: a limit is not kept.
        ModelError: the model cannot be read, or has no weights.
        NothingToPruneError: nothing can be removed as asked, or a target cannot be reached.
        UsageError: an option that makes no sense.
    """
    return cast("PruneResult", _one("prune", model, data, run, gates, progress, options))


def sparsify(
    model: Source,
    data: DataSource | None = None,
    *,
    run: Run | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
    **options: Unpack[SparsifyKwargs],
) -> SparsifyResult:
    """Return a model with zeros in its weights; `result.model.proto` is the ModelProto.

    Args:
        model, data, run, gates, progress: see `prune`. Which weights go, and what the others become, follow the data.
        options: fields of `SparsifyOptions`, such as `sparsity=0.7`, `pattern="2:4"`, `scope="erk"`.

    Raises:
        DataError, GateError, UsageError: see `prune`.
        NothingToPruneError: no layer can have the zeros that are asked for.
    """
    return cast("SparsifyResult", _one("sparsify", model, data, run, gates, progress, options))


def factorize(
    model: Source,
    data: DataSource | None = None,
    *,
    run: Run | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
    **options: Unpack[FactorizeKwargs],
) -> FactorizeResult:
    """Return a model whose layers are chains of smaller ones; `result.model.proto` is the ModelProto.

    Args:
        model, data, run, gates, progress: see `prune`. Factors are near to the layers on the data, not as matrices.
        options: fields of `FactorizeOptions`, such as `params=0.5`, `macs=0.6`, `energy=0.99`.

    Raises:
        DataError, GateError, UsageError: see `prune`.
        NothingToPruneError: nothing can be replaced, or a target cannot be reached.
    """
    return cast("FactorizeResult", _one("factorize", model, data, run, gates, progress, options))


def quantize(
    model: Source,
    data: DataSource | None = None,
    *,
    run: Run | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
    **options: Unpack[QuantizeKwargs],
) -> QuantizeResult:
    """Return a model in fewer bits; `result.model.proto` is the ModelProto.

    Args:
        model, data, run, gates, progress: see `prune`. Ranges come from the data; with gates, the layers that cost most
            stay in float until they hold.
        options: fields of `QuantizeOptions`, such as `mode="static"`, `bits=4`, `rounding="gptq"`.

    Raises:
        DataError, GateError, UsageError: see `prune`.
        ModelError: the model is quantized already, or cannot be quantized in this mode.
        NothingToPruneError: it has nothing that this mode quantizes.
    """
    return cast("QuantizeResult", _one("quantize", model, data, run, gates, progress, options))


def trim(
    model: Source,
    data: DataSource | None = None,
    *,
    run: Run | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
    **options: Unpack[TrimKwargs],
) -> TrimResult:
    """Return a model without what is not needed at its border: classes, tokens, outputs, inputs.

    Args:
        model, data, run, gates, progress: see `prune`. Data are only compared on.
        options: fields of `TrimOptions`, such as `keep={"logits": "0-3,7"}`, `tokens={"input_ids": "@ids.txt"}`,
            `outputs=("logits",)`, `fix={"sr": 16000}`.

    Raises:
        DataError, GateError, ModelError, UsageError: see `prune`.
        NothingToPruneError: an operator holds what is to go.
    """
    return cast("TrimResult", _one("trim", model, data, run, gates, progress, options))


def tune(
    model: Source,
    data: DataSource | None = None,
    *,
    run: Run | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
    **options: Unpack[TuneKwargs],
) -> TuneResult:
    """Return the smallest model that keeps the gates.

    Args:
        model, data, run, gates, progress: see `prune`; data and a gate are needed.
        options: fields of `TuneOptions`, such as `step=0.1`, `workers=2`, `state="search.json"`.

    Raises:
        DataError: the data do not fit, or the function of `gates.eval` raises or returns no number.
        NothingToPruneError: not even the smallest step keeps the bound.
        UsageError: there is no bound, or an option makes no sense.
    """
    return cast("TuneResult", _one("tune", model, data, run, gates, progress, options))


def apply(
    model: Source,
    plan: Plan | str | Path,
    data: DataSource | None = None,
    *,
    run: Run | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
    **options: Unpack[ApplyKwargs],
) -> PruneResult:
    """Return a model without what a plan removes.

    Args:
        plan: a `Plan`, or the file that it was saved in.
        model, data, run, gates, progress: see `prune`. Without data nothing is refitted unless `compensate` asks.
        options: fields of `ApplyOptions`, such as `force=True`.

    Raises:
        UsageError: the plan was made for another model, or does not fit.
        DataError, GateError, ModelError: see `prune`.
    """
    return cast("PruneResult", _one("apply", model, data, run, gates, progress, {**options, "plan": plan}))


def finetune(
    original: Source,
    compressed: Source,
    data: DataSource | None = None,
    *,
    run: Run | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
    **options: Unpack[FinetuneKwargs],
) -> FinetuneResult:
    """Return a compressed model brought nearer to its original by gradient steps, with labels or without.

    Args:
        original: what the model was made from. compressed: the model; neither is changed.
        data, run, gates, progress: see `prune`; data are needed, and all of them are read.
        options: fields of `FinetuneOptions`, such as `effort="30m"`, `labels=y`, `state="run.state"`. A state stays
            where it is: a finished one gives its result at once.

    Raises:
        DataError: data or labels do not fit.
        GateError, ModelError: see `prune`.
        UsageError: the models do not correspond, or an option makes no sense.
    """
    return cast(
        "FinetuneResult", _one("finetune", original, data, run, gates, progress, {**options, "compressed": compressed})
    )


def sensitivity(
    model: Source,
    data: DataSource,
    *,
    run: Run | None = None,
    progress: Progress | None = None,
    ratios: Sequence[float] | None = None,
    **options: Unpack[CandidateKwargs],
) -> Sensitivity:
    """Return what cutting each group alone does to the outputs.

    Args:
        model, data, run, progress: see `prune`.
        ratios: shares of the channels removed; 0.1 to 0.9 if None.
        options: score, skip, only, exact_only, heads and head_dim are looked at.

    Raises:
        DataError: the data do not fit.
        NothingToPruneError: there is no group that may be cut.
        UsageError: a ratio outside (0, 1).
    """
    from onnxprune.methods.calibration import calibration
    from onnxprune.methods.sensitivity import RATIOS
    from onnxprune.methods.sensitivity import sensitivity as measure

    run, source = run or Run(), load(model)
    wanted = step("prune", **options).shared(run).options
    samples = calibration(source, data, run.samples, run.images)
    with hired(run.cluster):
        return measure(source, samples, wanted, ratios=ratios or RATIOS, runtime=run, progress=progress or _quiet)


def collect_statistics(
    model: Source,
    data: DataSource,
    *,
    run: Run | None = None,
    progress: Progress | None = None,
    shard: int = 512,
    patches: bool = False,
) -> KeptSums:
    """Return statistics of what the layers of a model read; `to_bytes` is the file that the option `stats` reads.

    Args:
        model, run, progress: see `prune`. All the data are used.
        shard: samples whose sums are one term of the whole.
        patches: also of what convolutions multiply, channels times taps.

    Raises:
        DataError: the data do not fit.
        UsageError: samples take different branches of the model.
    """
    from onnxprune.methods.gather import gather
    from onnxprune.statistics.data import read
    from onnxprune.statistics.feeds import input_specs

    run, source = run or Run(), load(model)
    samples = read(data, input_specs(source.proto), samples=run.samples, images=run.images)
    with hired(run.cluster):
        return gather(source, samples, shard=shard, patches=patches, runtime=run, progress=progress or _quiet)


def merge_statistics(parts: Sequence[KeptSums | str | Path]) -> KeptSums:
    """Return the sum of statistics, or files of them, added in their order.

    Raises:
        DataError: a file is none of statistics.
        UsageError: they are of different models, options or versions, or share samples.
    """
    from onnxprune.statistics.kept_sums import KeptSums, merged_sums, read_sums

    found = [part if isinstance(part, KeptSums) else read_sums(Path(part)) for part in parts]
    return merged_sums(found, ["" if isinstance(part, KeptSums) else str(part) for part in parts])


def analyse(
    model: Source,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    heads: bool | None = None,
    head_dim: bool | None = None,
) -> Channels:
    """Return the channel groups of a model and the locks that say why the rest stays.

    Args:
        model: path, bytes, `onnx.ModelProto`, `onnx_graphsurgeon.Graph` or `Model`.
        input_shapes: graph input -> full shape, where dynamic sizes need to be fixed.
        heads, head_dim: make attention heads, or positions inside of them, prunable.

    Raises:
        ModelError: the model cannot be read.
        UsageError: an input shape does not fit.
    """
    return find_channels(load(model), dict(input_shapes or {}), heads, head_dim)


def run_recipe(
    recipe: Job | str | Path, model: Source | None = None, data: object = None, *, progress: Progress | None = None
) -> JobResult:
    """Carry out a job of several steps and return the result; nothing is written.

    Args:
        recipe: a `Job`, or the file of one.
        model, data: instead of those of the recipe.

    Raises:
        GateError: a limit is not kept; `last_good` of the error is the model of the step before, or None.
        UsageError: the recipe makes no sense, or has no model.
        OnnxpruneError: what the steps raise.
    """
    job = recipe if isinstance(recipe, Job) else read_recipe(recipe)
    job = job if model is None else replace(job, model=model)
    job = job if data is None else replace(job, data=data)
    return carry_out(replace(job, outputs=replace(job.outputs, intermediates=None)), stage=told(progress))


def _one(
    name: str,
    model: Source,
    data: Any,
    run: Run | None,
    gates: Gates | None,
    progress: Progress | None,
    options: Mapping[str, Any],
) -> Any:
    """Carry out a job of one step; the result has its report with it, and says where it comes from when it is saved."""
    job = Job((step(name, **options),), model, data, run or Run(), gates or Gates(), name=name)
    done = carry_out(job, stage=told(progress))
    result = done.steps[-1].result
    if hasattr(result, "result"):
        inner = replace(result.result, model=done.model, report=done.report)
        return replace(result, result=inner, report=done.report)
    return replace(result, model=done.model, report=done.report)


def _quiet(text: str) -> None:
    pass
