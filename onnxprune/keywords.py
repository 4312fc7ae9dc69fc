"""The options of every method as keywords of the functions in `onnxprune.api`, so that editors complete them.

Written by `python -m tests.job.spelled` from the option classes, which say what they mean and check them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import onnx

from onnxprune.methods.trimming.spellings import Spec, Value
from onnxprune.types import Array


class CandidateKwargs(TypedDict, total=False):
    """See `CandidateOptions`."""

    score: str | None
    randomize: float | None
    align: int | None
    target: str | None
    precision: str | None
    min_channels: int
    tie_blocks: bool
    skip: str | tuple[str, ...] | list[str]
    only: str | tuple[str, ...] | list[str]
    drop: str | tuple[str, ...] | list[str]
    exact_only: bool
    stats: str | Path | None
    cut_unfitted: bool
    heads: bool | None
    head_dim: bool | None
    input_shapes: Mapping[str, tuple[int, ...]]
    compensate: str | None
    steps: int | None
    effort: str | None
    memory: int | None
    seed: int
    select: int | None


class ApplyKwargs(TypedDict, total=False):
    """See `ApplyOptions`."""

    same_structure: bool
    force: bool
    stats: str | Path | None
    substitute: str | None
    heads: bool | None
    head_dim: bool | None
    input_shapes: Mapping[str, tuple[int, ...]]
    compensate: str | None
    steps: int | None
    effort: str | None
    memory: int | None
    seed: int
    select: int | None


class FactorizeKwargs(TypedDict, total=False):
    """See `FactorizeOptions`."""

    params: float | None
    macs: float | None
    energy: float | None
    align: int | None
    target: str | None
    whiten: bool | None
    refit: bool | None
    effort: str | None
    skip: str | tuple[str, ...] | list[str]
    only: str | tuple[str, ...] | list[str]
    stats: str | Path | None
    input_shapes: Mapping[str, tuple[int, ...]]
    seed: int


class FinetuneKwargs(TypedDict, total=False):
    """See `FinetuneOptions`."""

    effort: str | None
    steps: int | None
    state: str | Path | None
    labels: str | Path | Array | None
    criterion: str | None
    label_weight: float
    label_output: str | None
    blank: int
    loss: str | Path | onnx.ModelProto | None
    augment: str
    rate: float
    input_shapes: Mapping[str, tuple[int, ...]]
    seed: int
    select: int | None


class PruneKwargs(CandidateKwargs, total=False):
    """See `PruneOptions`."""

    ratio: float | None
    macs: float | None
    params: float | None
    size: float | None
    latency: float | str | None
    peak_memory: str | float | None
    scope: str | None
    ratios: Mapping[str, float] | str | Path
    experts: str | int | float | None
    depth: bool | None
    substitute: str | None
    resize_io: str | tuple[str, ...] | list[str]
    states: str | tuple[str, ...] | list[str]


class QuantizeKwargs(TypedDict, total=False):
    """See `QuantizeOptions`."""

    mode: str | None
    bits: int | None
    calibration: str
    percentile: float
    activation_type: str | None
    weight_type: str | None
    per_channel: bool
    symmetric: bool | None
    block_size: int
    rounding: str | None
    keep_io_types: bool
    op_block_list: str | tuple[str, ...] | list[str]
    format: str
    smooth: bool
    equalize: bool
    correct_bias: bool
    pass_through: bool
    guard: bool
    measure: bool | None
    target: str | None
    stats: str | Path | None
    skip: str | tuple[str, ...] | list[str]
    only: str | tuple[str, ...] | list[str]
    input_shapes: Mapping[str, tuple[int, ...]]
    seed: int


class SparsifyKwargs(TypedDict, total=False):
    """See `SparsifyOptions`."""

    sparsity: float | None
    pattern: str | None
    scope: str
    score: str | None
    reconstruct: bool | None
    storage: str
    effort: str | None
    skip: str | tuple[str, ...] | list[str]
    only: str | tuple[str, ...] | list[str]
    stats: str | Path | None
    input_shapes: Mapping[str, tuple[int, ...]]
    seed: int


class TrimKwargs(TypedDict, total=False):
    """See `TrimOptions`."""

    outputs: str | tuple[str, ...] | list[str]
    keep: Mapping[str, Spec]
    labels: Spec | None
    labels_key: str | None
    tokens: Mapping[str, Spec]
    tokens_from: str | Path | None
    tokenizer: str | Path | None
    rare: str
    scatter: str | tuple[str, ...] | list[str]
    fix: Mapping[str, Value]
    dims: Mapping[str, int]
    input_channels: Mapping[str, Spec]
    gray: str | tuple[str, ...] | list[str]
    renumber: bool
    input_shapes: Mapping[str, tuple[int, ...]]
    vocabulary: int | None


class TuneKwargs(CandidateKwargs, total=False):
    """See `TuneOptions`."""

    step: float
    finest: float
    workers: int
    measure_latency: bool
    state: str | Path | None
