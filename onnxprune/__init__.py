"""Prune, compress and prove ONNX models after export.

    import onnxprune

    result = onnxprune.prune("model.onnx", ratio=0.4)
    onnxprune.save(result.model, "model-pruned.onnx")
    onnxprune.validate("model.onnx", "model-pruned.onnx").parity

Names are imported when they are used, so that `import onnxprune` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from onnxprune.processes.engine import silence as _silence

if TYPE_CHECKING:
    from onnxprune.api import analyse as analyse
    from onnxprune.api import apply as apply
    from onnxprune.api import collect_statistics as collect_statistics
    from onnxprune.api import factorize as factorize
    from onnxprune.api import finetune as finetune
    from onnxprune.api import merge_statistics as merge_statistics
    from onnxprune.api import prune as prune
    from onnxprune.api import quantize as quantize
    from onnxprune.api import run_recipe as run_recipe
    from onnxprune.api import sensitivity as sensitivity
    from onnxprune.api import sparsify as sparsify
    from onnxprune.api import trim as trim
    from onnxprune.api import tune as tune
    from onnxprune.channels.analyse import Channels as Channels
    from onnxprune.channels.groups import ChannelGroup as ChannelGroup
    from onnxprune.channels.groups import Lock as Lock
    from onnxprune.channels.groups import Site as Site
    from onnxprune.channels.plan import Plan as Plan
    from onnxprune.differences.difference import Difference as Difference
    from onnxprune.differences.difference import diff as diff
    from onnxprune.errors import ClusterError as ClusterError
    from onnxprune.errors import DataError as DataError
    from onnxprune.errors import DeviceError as DeviceError
    from onnxprune.errors import GateError as GateError
    from onnxprune.errors import ModelError as ModelError
    from onnxprune.errors import NothingToPruneError as NothingToPruneError
    from onnxprune.errors import OnnxpruneError as OnnxpruneError
    from onnxprune.errors import OutputError as OutputError
    from onnxprune.errors import UsageError as UsageError
    from onnxprune.evidence.bench import bench as bench
    from onnxprune.evidence.robust import robustness as robustness
    from onnxprune.evidence.validation import validate as validate
    from onnxprune.graph.model import Model as Model
    from onnxprune.graph.model import load as load
    from onnxprune.graph.signature import verify as verify
    from onnxprune.job.carry_out import JobResult as JobResult
    from onnxprune.job.gates import Gates as Gates
    from onnxprune.job.job import Job as Job
    from onnxprune.job.job import Step as Step
    from onnxprune.job.job import step as step
    from onnxprune.job.outputs import Outputs as Outputs
    from onnxprune.job.run import Run as Run
    from onnxprune.job.write import save as save
    from onnxprune.job.write import write_job as write_job
    from onnxprune.methods.apply_options import ApplyOptions as ApplyOptions
    from onnxprune.methods.factorize import FactorizeResult as FactorizeResult
    from onnxprune.methods.factorize_options import FactorizeOptions as FactorizeOptions
    from onnxprune.methods.finetune import FinetuneResult as FinetuneResult
    from onnxprune.methods.finetune_options import FinetuneOptions as FinetuneOptions
    from onnxprune.methods.prune_options import PruneOptions as PruneOptions
    from onnxprune.methods.quantize import QuantizeResult as QuantizeResult
    from onnxprune.methods.quantize_options import QuantizeOptions as QuantizeOptions
    from onnxprune.methods.result import PruneResult as PruneResult
    from onnxprune.methods.sensitivity import Sensitivity as Sensitivity
    from onnxprune.methods.sparsify import SparsifyResult as SparsifyResult
    from onnxprune.methods.sparsify_options import SparsifyOptions as SparsifyOptions
    from onnxprune.methods.trim import TrimResult as TrimResult
    from onnxprune.methods.trim_options import TrimOptions as TrimOptions
    from onnxprune.methods.tune import TuneResult as TuneResult
    from onnxprune.methods.tune_options import TuneOptions as TuneOptions
    from onnxprune.recipe import read_recipe as read_recipe
    from onnxprune.report import Report as Report
    from onnxprune.statistics.collect import Statistics as Statistics
    from onnxprune.statistics.image_options import ImageOptions as ImageOptions
    from onnxprune.statistics.kept_sums import KeptSums as KeptSums
    from onnxprune.version import __version__ as __version__

_silence()  # before anything of ours imports onnxruntime, and for every process that we start

_NAMES = {
    "api": (
        "analyse apply collect_statistics factorize finetune merge_statistics prune quantize run_recipe sensitivity "
        "sparsify trim tune"
    ),
    "channels.analyse": "Channels",
    "channels.groups": "ChannelGroup Lock Site",
    "channels.plan": "Plan",
    "differences.difference": "Difference diff",
    "errors": (
        "ClusterError DataError DeviceError GateError ModelError NothingToPruneError OnnxpruneError OutputError "
        "UsageError"
    ),
    "graph.model": "Model load",
    "graph.signature": "verify",
    "job.carry_out": "JobResult",
    "job.gates": "Gates",
    "job.job": "Job Step step",
    "job.outputs": "Outputs",
    "job.run": "Run",
    "job.write": "save write_job",
    "methods.apply_options": "ApplyOptions",
    "methods.factorize": "FactorizeResult",
    "methods.factorize_options": "FactorizeOptions",
    "methods.finetune": "FinetuneResult",
    "methods.finetune_options": "FinetuneOptions",
    "methods.prune_options": "PruneOptions",
    "methods.quantize_options": "QuantizeOptions",
    "methods.quantize": "QuantizeResult",
    "methods.result": "PruneResult",
    "methods.sensitivity": "Sensitivity",
    "methods.sparsify": "SparsifyResult",
    "methods.sparsify_options": "SparsifyOptions",
    "methods.trim": "TrimResult",
    "methods.trim_options": "TrimOptions",
    "methods.tune": "TuneResult",
    "methods.tune_options": "TuneOptions",
    "recipe": "read_recipe",
    "report": "Report",
    "statistics.collect": "Statistics",
    "statistics.image_options": "ImageOptions",
    "statistics.kept_sums": "KeptSums",
    "evidence.robust": "robustness",
    "evidence.validation": "validate",
    "evidence.bench": "bench",
    "version": "__version__",
}
"""Home -> what it gives to the package. All there is to say about a public name."""

_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxprune' has no attribute '{name}'")
    return getattr(importlib.import_module(f"onnxprune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
