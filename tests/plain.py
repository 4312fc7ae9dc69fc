"""The methods alone, without the job around them that verifies, and makes up inputs."""

from typing import Any

from onnxprune.methods import apply as apply_method
from onnxprune.methods import factorize as factorize_method
from onnxprune.methods import prune as prune_method
from onnxprune.methods import sparsify as sparsify_method
from onnxprune.methods.apply_options import ApplyOptions
from onnxprune.methods.factorize import FactorizeResult
from onnxprune.methods.factorize_options import FactorizeOptions
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.result import PruneResult
from onnxprune.methods.sparsify import SparsifyResult
from onnxprune.methods.sparsify_options import SparsifyOptions


def prune(model: Any, data: Any = None, **options: Any) -> PruneResult:
    """Prune; without data nothing is refitted unless that is asked for."""
    return prune_method.prune(model, PruneOptions.of(**options), data)


def apply(model: Any, plan: Any, data: Any = None, **options: Any) -> PruneResult:
    """Carry out a plan."""
    return apply_method.apply(model, ApplyOptions.of(plan=plan, **options), data)


def sparsify(model: Any, data: Any = None, **options: Any) -> SparsifyResult:
    """Sparsify."""
    return sparsify_method.sparsify(model, SparsifyOptions.of(**options), data)


def factorize(model: Any, data: Any = None, **options: Any) -> FactorizeResult:
    """Factorize."""
    return factorize_method.factorize(model, FactorizeOptions.of(**options), data)
