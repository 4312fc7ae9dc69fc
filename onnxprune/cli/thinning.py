"""What sparsify and factorize say about their layers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from onnxprune.cli.evidence import finite_or_none
from onnxprune.report import Report

if TYPE_CHECKING:
    from onnxprune.graph.model import Model
    from onnxprune.methods.factorize import FactorizeResult
    from onnxprune.methods.sparsify import SparsifyResult


def note_sparsity(record: Report, source: Model, result: SparsifyResult) -> None:
    """Put zeros, compressed sizes and every layer into the report."""
    from onnxprune.methods.sparsity.storage import compressed_bytes

    layers = [
        {**asdict(layer), "error": _finite(layer.error), "magnitude_error": _finite(layer.magnitude_error)}
        for layer in result.layers
    ]
    taking = [layer for layer in result.layers if layer.reason is None]
    record.details["sparsity"] = {
        **result.settings,
        "weights": sum(layer.weights for layer in taking),
        "zeros": sum(layer.zeros for layer in taking),
        "compressed_bytes": {"input": compressed_bytes(source), "output": compressed_bytes(result.model)},
        "layers": layers,
    }
    for warning in result.warnings:
        record.warn(warning)


def _finite(value: float | None) -> float | None:
    return None if value is None else finite_or_none(value)


def note_factors(record: Report, result: FactorizeResult) -> None:
    """Put form, rank and error of every layer into the report."""
    layers = [
        {**asdict(layer), "ranks": list(layer.ranks), "error": finite_or_none(layer.error)} for layer in result.layers
    ]
    record.details["factors"] = {**result.settings, "layers": layers}
    for warning in result.warnings:
        record.warn(warning)
