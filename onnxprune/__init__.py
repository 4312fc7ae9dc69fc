"""Prune, compress and prove ONNX models after export.

    import onnxprune

    result = onnxprune.prune("model.onnx", ratio=0.4)
    onnxprune.save(result.model, "model-pruned.onnx")
    onnxprune.validate("model.onnx", "model-pruned.onnx").parity

Names are imported when they are used, so that `import onnxprune` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onnxprune.processes.engine import silence as _silence

if TYPE_CHECKING:
    from onnxprune.channels.analyse import Channels
    from onnxprune.channels.groups import ChannelGroup, Lock, Site
    from onnxprune.channels.plan import Plan
    from onnxprune.errors import (
        DataError,
        GateError,
        ModelError,
        NothingToPruneError,
        OnnxpruneError,
        OutputError,
        UsageError,
    )
    from onnxprune.graph.model import Model, Source, load, save
    from onnxprune.methods.apply import apply
    from onnxprune.methods.factorize import FactorizeResult
    from onnxprune.methods.factors.options import FactorizeOptions
    from onnxprune.methods.options import PruneOptions
    from onnxprune.methods.result import PruneResult
    from onnxprune.methods.sensitivity import sensitivity
    from onnxprune.methods.sparsify import SparsifyResult
    from onnxprune.methods.sparsity.options import SparsifyOptions
    from onnxprune.methods.tune import tune
    from onnxprune.recipe import Recipe, RecipeResult, read_recipe, run_recipe, step
    from onnxprune.statistics.collect import Statistics
    from onnxprune.validate.api import validate
    from onnxprune.validate.bench import bench
    from onnxprune.validate.gates import Gates

_silence()  # before anything of ours imports onnxruntime, and for every process that we start

_HOMES = {
    "Channels": "channels.analyse",
    "ChannelGroup": "channels.groups",
    "Lock": "channels.groups",
    "Site": "channels.groups",
    "Plan": "channels.plan",
    "DataError": "errors",
    "GateError": "errors",
    "ModelError": "errors",
    "NothingToPruneError": "errors",
    "OnnxpruneError": "errors",
    "OutputError": "errors",
    "UsageError": "errors",
    "Model": "graph.model",
    "load": "graph.model",
    "save": "graph.model",
    "apply": "methods.apply",
    "FactorizeOptions": "methods.factors.options",
    "FactorizeResult": "methods.factorize",
    "PruneOptions": "methods.options",
    "PruneResult": "methods.result",
    "SparsifyOptions": "methods.sparsity.options",
    "SparsifyResult": "methods.sparsify",
    "sensitivity": "methods.sensitivity",
    "tune": "methods.tune",
    "Gates": "validate.gates",
    "Statistics": "statistics.collect",
    "bench": "validate.bench",
    "Recipe": "recipe",
    "RecipeResult": "recipe",
    "read_recipe": "recipe",
    "run_recipe": "recipe",
    "step": "recipe",
}

__all__ = [
    "ChannelGroup",
    "Channels",
    "DataError",
    "FactorizeOptions",
    "FactorizeResult",
    "GateError",
    "Gates",
    "Lock",
    "Model",
    "ModelError",
    "NothingToPruneError",
    "OnnxpruneError",
    "OutputError",
    "Plan",
    "PruneOptions",
    "PruneResult",
    "Recipe",
    "RecipeResult",
    "Site",
    "SparsifyOptions",
    "SparsifyResult",
    "Statistics",
    "UsageError",
    "analyse",
    "apply",
    "bench",
    "factorize",
    "load",
    "prune",
    "read_recipe",
    "run_recipe",
    "save",
    "sensitivity",
    "sparsify",
    "step",
    "tune",
    "validate",
]


def prune(model: Source, data: Any = None, **options: Any) -> PruneResult:
    """Return a model without the channels that matter least.

    Args:
        model: path, bytes, `onnx.ModelProto`, `onnx_graphsurgeon.Graph` or `Model`; it is not changed.
        data: inputs of the kind that the model is used on, without labels: what stays is refitted to them. A path,
            feeds, or what `onnxprune.statistics.data.read` takes.
        options: fields of `PruneOptions`, such as `ratio=0.4`, `macs=0.5`, `score="l2"`, `skip=("head*",)`.

    Returns:
        A `PruneResult`: `model.proto` is the pruned ModelProto, `plan` says what was removed.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read, or has no weights.
        NothingToPruneError: nothing can be removed as asked, or a target cannot be reached.
        UsageError: an option that makes no sense.
    """
    from onnxprune.methods.options import PruneOptions
    from onnxprune.methods.prune import prune as run

    return run(model, PruneOptions.of(**options), data)


def sparsify(model: Source, data: Any = None, **options: Any) -> SparsifyResult:
    """Return a model with zeros in its weights; `result.model.proto` is the ModelProto.

    Args:
        model: path, bytes, `onnx.ModelProto`, `onnx_graphsurgeon.Graph` or `Model`; it is not changed.
        data: inputs without labels: which weights go, and what the others become, follow them.
        options: fields of `SparsifyOptions`, such as `sparsity=0.7`, `pattern="2:4"`, `scope="erk"`.

    Raises:
        DataError: the data do not fit the model.
        NothingToPruneError: no layer can have the zeros that are asked for.
        UsageError: an option that makes no sense.
    """
    from onnxprune.methods.sparsify import sparsify as run
    from onnxprune.methods.sparsity.options import SparsifyOptions

    return run(model, SparsifyOptions.of(**options), data)


def factorize(model: Source, data: Any = None, **options: Any) -> FactorizeResult:
    """Return a model whose layers are chains of smaller ones; `result.model.proto` is the ModelProto.

    Args:
        model: path, bytes, `onnx.ModelProto`, `onnx_graphsurgeon.Graph` or `Model`; it is not changed.
        data: inputs without labels: factors are near to the layers on them, not as matrices.
        options: fields of `FactorizeOptions`, such as `params=0.5`, `macs=0.6`, `energy=0.99`.

    Raises:
        DataError: the data do not fit the model.
        NothingToPruneError: nothing can be replaced, or a target cannot be reached.
        UsageError: an option that makes no sense.
    """
    from onnxprune.methods.factorize import factorize as run
    from onnxprune.methods.factors.options import FactorizeOptions

    return run(model, FactorizeOptions.of(**options), data)


def analyse(model: Source, **options: Any) -> Channels:
    """Return the channel groups of a model and the locks that say why the rest stays.

    Args:
        model: path, bytes, `onnx.ModelProto`, `onnx_graphsurgeon.Graph` or `Model`.
        options: `input_shapes`, `heads`, `head_dim`.

    Raises:
        ModelError: the model cannot be read.
        UsageError: an input shape does not fit.
    """
    from onnxprune.channels.analyse import analyse as run
    from onnxprune.graph.model import load

    return run(load(model), **options)


def __getattr__(name: str) -> Any:
    if name == "validate":
        return importlib.import_module("onnxprune.validate")
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxprune' has no attribute '{name}'")
    return getattr(importlib.import_module(f"onnxprune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
