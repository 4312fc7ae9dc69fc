"""The one place that runs models: opening one in onnxruntime, and saying in one line why it cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnx

from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.files.scratch import scratch_folder
from onnxprune.graph.bodies import reads
from onnxprune.graph.mapped import is_vast, is_vast_file
from onnxprune.graph.source_file import is_packed, read_bytes
from onnxprune.processes import engine
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.graph.model import Model

    Source = Path | bytes | Model | onnx.ModelProto

Feeds = Mapping[str, Array]

LEVELS = ("none", "basic", "extended", "all")
"""Names of onnxruntime's graph optimisation levels, from the literal graph to everything."""

_EXTERNAL = "session.model_external_initializers_file_folder_path"
_PREPACKING = "session.disable_prepacking"
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "CANNExecutionProvider": "cann"}
"""Provider -> device that arrays are kept on; memory of the CPU for the others."""
_PREFIX = re.compile(r"^\s*\[ONNXRuntimeError\]\s*:\s*\d+\s*:\s*\w+\s*:\s*")


@dataclass(frozen=True)
class Port:
    """One input or output of a session: `dtype` is None for what numpy cannot hold (strings, sequences, bfloat16)."""

    name: str
    kind: str
    dtype: np.dtype[Any] | None
    dims: tuple[int | str | None, ...]


class Session:
    """A model that onnxruntime has accepted. Use it as a context manager, or let it go."""

    def __init__(self, native: object, label: str, stack: ExitStack, source: Source) -> None:
        self.native: Any = native
        self.source: Path | bytes | Model = b"" if isinstance(source, onnx.ModelProto) else source
        self._stack = stack
        self.label = label

    @cached_property
    def inputs(self) -> tuple[Port, ...]:
        """What the model takes."""
        return tuple(_port(item) for item in self.native.get_inputs())

    @cached_property
    def outputs(self) -> tuple[Port, ...]:
        """What the model gives."""
        return tuple(_port(item) for item in self.native.get_outputs())

    @property
    def threads(self) -> int:
        """Threads inside an operator; 0 is onnxruntime's choice."""
        return int(self.native.get_session_options().intra_op_num_threads)

    @property
    def provider(self) -> str:
        """The execution provider that comes first."""
        return str(self.native.get_providers()[0])

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Return every tensor output by name; the tensors of a sequence are called `name[0]`, `name[1]`, ..

        Raises:
            DataError: onnxruntime cannot run the model on these inputs.
        """
        try:
            values = self.native.run(None, dict(feeds))
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            raise DataError(
                f"onnxruntime cannot run {self.label} on the inputs {shapes}: {reason(error)}. "
                "Give sizes with --input-shape, or inputs of your own with --data."
            ) from error
        return dict(_tensors(self.outputs, values))

    def values(self, names: Sequence[str], feeds: Feeds) -> list[Array]:
        """Return the named outputs, in that order.

        Raises:
            ModelError: the run fails.
        """
        try:
            if all(isinstance(value, np.ndarray) for value in feeds.values()):
                return list(self.native.run(list(names), dict(feeds)))
            held = {**feeds, **self._held({n: a for n, a in feeds.items() if isinstance(a, np.ndarray)})}
            return [value.numpy() for value in self.native.run_with_ort_values(list(names), held)]
        except Exception as error:
            raise ModelError(f"onnxruntime failed while the model ran on the data: {reason(error)}") from error

    def placed(self, arrays: Feeds) -> Feeds:
        """Return arrays as `values` takes them in many runs: on the device of the provider, where it has one.

        On a CPU they stay what they are: onnxruntime reads them where they stand.
        """
        return arrays if self.provider == "CPUExecutionProvider" else self._held(arrays)

    def _held(self, arrays: Feeds) -> Feeds:
        device = _DEVICES.get(self.provider, "cpu")
        make = engine.onnxruntime().OrtValue.ortvalue_from_numpy
        return {name: make(np.asarray(array, order="C"), device, 0) for name, array in arrays.items()}

    def fit(self, feeds: Feeds) -> dict[str, Array]:
        """Return the feeds that this model takes, in its data types.

        Raises:
            DataError: an input is missing, or has a rank, a fixed size or a type that does not fit.
        """
        missing = [port.name for port in self.inputs if port.name not in feeds]
        if missing:
            raise DataError(
                f"the data have no array for the input '{missing[0]}' of {self.label} (they have {', '.join(feeds)}); "
                "name the arrays like the inputs of the model."
            )
        return {port.name: _fit(port, np.asarray(feeds[port.name]), self.label) for port in self.inputs}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model, and of the memory that it takes."""
        self.native = None
        self._stack.close()


def open_session(
    source: Source,
    *,
    threads: int | None = 0,
    level: str = "all",
    spinning: bool = False,
    provider: str | None = None,
    label: str | None = None,
    arena: bool = True,
    folder: Path | None = None,
    literal_rounding: bool = False,
    written: Path | None = None,
) -> Session:
    """Return a session for a file, for serialised bytes, or for a model in memory.

    A model with more than a gigabyte of external weights is run where these lie in their mapped file: as the graph
    says, nothing folded, put in another order or kept between runs; with `spinning`, to be timed, as any other.

    Args:
        threads: threads inside an operator; 0 or None leaves the choice to onnxruntime.
        level: one of LEVELS.
        spinning: let threads wait actively, as onnxruntime does by itself: faster, but bad for its neighbours.
        arena: keep memory between runs, which is faster; a session that runs once or twice takes less without.
        folder: where the external weights of a graph are.
        literal_rounding: leave QuantizeLinear and DequantizeLinear where they are, and what is between them in float.
        written: file that the optimized graph is written to.
        provider: execution provider such as "CUDA" or "CUDAExecutionProvider"; the CPU is always the last resort.

    Raises:
        ModelError: onnxruntime refuses the model, or does not have an operator or a version that it needs.
        UsageError: the provider is not part of this onnxruntime.
    """
    onnxruntime = engine.onnxruntime()
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not spinning and _is_vast(source):
        options.add_session_config_entry(_PREPACKING, "1")
        level, arena = "none" if level == "all" else level, False
    options.intra_op_num_threads = engine.bounded(threads)
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.graph_optimization_level = _levels(onnxruntime)[LEVELS.index(level)]
    if written is not None:
        options.optimized_model_filepath = str(written)
    if literal_rounding:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if folder is not None:
        options.add_session_config_entry(_EXTERNAL, str(folder.resolve()))
    stack = ExitStack()
    label = label or _label(source)
    providers = engine.providers(provider, onnxruntime.get_available_providers())
    try:
        native = onnxruntime.InferenceSession(_load(source, options, stack), options, providers=providers)
    except (ModelError, UsageError):
        stack.close()
        raise
    except Exception as error:
        stack.close()
        raise ModelError(f"onnxruntime {onnxruntime.__version__} refuses {label}: {reason(error)}.") from error
    return Session(native, label, stack, source)


def file_of(source: object) -> Path | None:
    """Return the file that a source is, so that onnxruntime can read it by itself; None for models in memory."""
    return Path(source) if isinstance(source, str | Path) else None


def reason(error: Exception) -> str:
    """Return onnxruntime's message as one line without its codes and source positions."""
    text = _PREFIX.sub("", " ".join(str(error).split()))
    text = re.sub(r"^(Load model from .*? failed:|Exception during (?:initialization|loading):)\s*", "", text)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ \S+(?: [^\[]*?\))? ", "", text)
    return (text[:400] + " ..." if len(text) > 400 else text).rstrip(". ")


def _levels(onnxruntime: Any) -> list[Any]:
    kinds = onnxruntime.GraphOptimizationLevel
    return [kinds.ORT_DISABLE_ALL, kinds.ORT_ENABLE_BASIC, kinds.ORT_ENABLE_EXTENDED, kinds.ORT_ENABLE_ALL]


def _load(source: Source, options: Any, stack: ExitStack) -> str | bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, onnx.ModelProto):
        return _serialised(source)
    if isinstance(source, Path):
        return read_bytes(source) if source.is_file() and is_packed(source) else str(source)
    if source.pending or source.proto.ByteSize() > 2**31 - 2**20:
        from onnxprune.graph.save import save

        folder = Path(stack.enter_context(scratch_folder()))
        save(source, folder / "model.onnx")
        return str(folder / "model.onnx")
    if source.path is not None:
        options.add_session_config_entry(_EXTERNAL, str(source.path.parent.resolve()))
    return _serialised(source.proto)


def _is_vast(source: Source) -> bool:
    if isinstance(source, bytes):
        return False
    if isinstance(source, Path):
        return is_vast_file(source)
    return is_vast(source if isinstance(source, onnx.ModelProto) else source.proto)


def _serialised(proto: onnx.ModelProto) -> bytes:
    """Return the bytes to open, without what nothing reads: onnxruntime takes quadratic time to throw that away."""
    given = proto.graph.initializer
    wanted = {name for node in proto.graph.node for name in reads(node)}
    wanted |= {value.name for value in (*proto.graph.input, *proto.graph.output)}
    if any(tensor.name not in wanted for tensor in given):
        used = onnx.ModelProto()
        used.CopyFrom(proto)
        del used.graph.initializer[:]
        used.graph.initializer.extend(tensor for tensor in given if tensor.name in wanted)
        proto = used
    serialised: bytes = proto.SerializeToString()
    return serialised


def _label(source: Source) -> str:
    path = source if isinstance(source, Path) else getattr(source, "path", None)
    return f"'{path}'" if path else "the model"


def _port(item: Any) -> Port:
    match = re.fullmatch(r"tensor\((\w+)\)", item.type)
    name = _DTYPES.get(match[1]) if match else None
    return Port(item.name, item.type, np.dtype(name) if name else None, tuple(item.shape or ()))


def _tensors(ports: Sequence[Port], values: Sequence[object]) -> list[tuple[str, Array]]:
    found: list[tuple[str, Array]] = []
    for port, value in zip(ports, values, strict=True):
        if isinstance(value, np.ndarray):
            found.append((port.name, value))
        elif isinstance(value, list):
            found += [(f"{port.name}[{i}]", item) for i, item in enumerate(value) if isinstance(item, np.ndarray)]
    return found


def _fit(port: Port, array: Array, label: str) -> Array:
    fixed = [(size, dim) for size, dim in zip(array.shape, port.dims, strict=False) if isinstance(dim, int)]
    if port.dims and (len(array.shape) != len(port.dims) or any(size != dim for size, dim in fixed)):
        raise DataError(
            f"the data for the input '{port.name}' have shape {list(array.shape)}, but {label} takes "
            f"{[dim if dim is not None else '?' for dim in port.dims]}; give arrays of that shape."
        )
    if port.dtype is None or array.dtype == port.dtype:
        return array
    if not np.can_cast(array.dtype, port.dtype, "same_kind"):
        raise DataError(
            f"the data for the input '{port.name}' are {array.dtype}, but {label} takes {port.dtype}; convert them."
        )
    return array.astype(port.dtype)
