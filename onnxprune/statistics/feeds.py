"""What a model wants to be fed, and whether a feed fits: names, types, shapes, finite values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.errors import DataError
from onnxprune.types import Array

Feed = dict[str, Array]


@dataclass(frozen=True)
class InputSpec:
    """One input of a model; None in `shape` is a dynamic size, `shape` None an unknown rank."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"'{self.name}' {self.dtype}[{sizes}]"


def input_specs(proto: onnx.ModelProto) -> list[InputSpec]:
    """Return what must be fed to a model: its graph inputs but for those that have an initializer."""
    given = {tensor.name for tensor in proto.graph.initializer}
    return [_spec(value) for value in proto.graph.input if value.name not in given]


def _spec(value: onnx.ValueInfoProto) -> InputSpec:
    if not value.type.HasField("tensor_type"):
        raise DataError(
            f"input '{value.name}' is not a tensor (a sequence, map or optional); such models cannot be fed."
        )
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim
        )
    return InputSpec(value.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)


def fixed_batch(specs: Sequence[InputSpec]) -> int | None:
    """Return the size of the first axis when it is fixed and the same for every input, else None."""
    first = {spec.shape[0] if spec.shape else None for spec in specs}
    return first.pop() if len(first) == 1 else None


def can_stack(specs: Sequence[InputSpec]) -> bool:
    """Tell whether axis 0 of every input can be the batch: dynamic everywhere, or fixed to one size everywhere."""
    if any(not spec.shape for spec in specs):
        return False
    first = {spec.shape[0] for spec in specs if spec.shape}
    return len(first) == 1


def match_names(arrays: Mapping[str, Array], specs: Sequence[InputSpec], origin: str) -> tuple[Feed, list[str]]:
    """Return the arrays by input name, and warnings. A lone array feeds a lone input whatever its name.

    Raises:
        DataError: an input has no array.
    """
    named = {
        name: array for name, array in arrays.items() if not name.startswith("_") or name in {s.name for s in specs}
    }
    missing = [spec.name for spec in specs if spec.name not in named]
    if missing and len(specs) == len(named) == 1:
        (name,) = named
        note = [] if name == "arr_0" else [f"{origin}: '{name}' is used for the only input '{specs[0].name}'."]
        return {specs[0].name: named[name]}, note
    if missing:
        raise DataError(
            f"{origin}: no array for the input{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, named)) or 'none'}. Name the arrays like the inputs: {', '.join(map(str, specs))}."
        )
    extra = [name for name in named if name not in {spec.name for spec in specs}]
    notes = [f"{origin}: ignored {', '.join(map(repr, extra))}, not an input of the model."] if extra else []
    return {spec.name: named[spec.name] for spec in specs}, notes


def fit(array: Array, spec: InputSpec, origin: str, *, batch_axis: bool) -> Array:
    """Return the array in the type of the input.

    Args:
        batch_axis: axis 0 counts samples and is not compared (batches are cut later).

    Raises:
        DataError: rank or sizes differ, values do not survive the change of type, or are NaN or infinite.
    """
    _check_shape(array.shape, spec, origin, 1 if batch_axis else 0)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.argwhere(~np.isfinite(array))[0][0]) if array.ndim else 0
        raise DataError(
            f"{origin}: '{spec.name}' has NaN or infinite values (first at index {bad} of axis 0); clean the data."
        )
    return _cast(array, spec, origin)


def _check_shape(shape: tuple[int, ...], spec: InputSpec, origin: str, skipped: int) -> None:
    if spec.shape is None:
        return
    fits = len(shape) == len(spec.shape) and all(
        wanted is None or have == wanted for have, wanted in zip(shape[skipped:], spec.shape[skipped:], strict=True)
    )
    if not fits:
        raise DataError(f"{origin}: '{spec.name}' has shape {list(shape)}, the model wants {spec}.")


def _cast(array: Array, spec: InputSpec, origin: str) -> Array:
    if array.dtype == spec.dtype:
        return array
    if array.dtype.kind in "US" and spec.dtype.kind in "OUS":
        return array.astype(object)
    if array.dtype.kind in "fiub" and spec.dtype.kind in "fiub":
        with np.errstate(over="ignore", invalid="ignore"):
            result = array.astype(spec.dtype)
        both_float = array.dtype.kind == spec.dtype.kind == "f"
        if np.isfinite(result).all() if both_float else _survives(array, result):
            return result
    raise DataError(
        f"{origin}: '{spec.name}' is {array.dtype}, the model wants {spec.dtype} and the values would not survive."
    )


def _survives(before: Array, after: Array) -> bool:
    if before.dtype.kind == "f":
        return False
    return np.can_cast(before.dtype, after.dtype, "safe") or bool((after.astype(before.dtype) == before).all())
