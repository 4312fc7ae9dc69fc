"""What a description of an operator says, and the table of all descriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from onnx import NodeProto

from onnxprune.operators.call import Attributes, Call, Shape
from onnxprune.operators.layouts import Layout

ONNX, MICROSOFT = "", "com.microsoft"

Way = Literal["convolution", "transposed convolution", "product", "recurrence", "attention", "einsum"]
"""Ways in which onnxruntime computes; each has a formula of what it costs."""

Dims = Callable[[str], Shape | None]
"""Name of a stored tensor -> its shape; None for any other tensor."""


@dataclass(frozen=True)
class Contraction:
    """Position p of one axis of an activation meets position p of one axis of a weight.

    data, data_axis: input that is the activation, and its axis; input -1: the node's own first output, one step before.
    weight, reads, writes: input that is the weight, its axis that meets the activation, its axis that the output has.
    output_axis: axis of the first output with the positions of `writes`.
    groups: into how many parts the channels of the activation are cut; `reads` counts within one of them.
    """

    data: int
    data_axis: int
    weight: int
    reads: int
    writes: int
    output_axis: int
    groups: int = 1


@dataclass(frozen=True)
class Part:
    """A node of the written-out layer.

    wires: for each input the number of the fused node's input that it is, -1: none. Empty: it reads nothing stored.
    """

    node: NodeProto
    wires: tuple[int, ...] = ()


@dataclass(frozen=True)
class Unfused:
    """The parts of a fused node.

    twins: tensor between the parts -> (tensor whose positions it has, its axis that is the last one here; None: all).
    """

    parts: tuple[Part, ...]
    twins: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Packed:
    """A weight stored as integers: w = (q - zero point) * scale.

    weight, scale, zero_point: inputs; without a scale the numbers are taken as they are.
    axis: of the weight along which scale and zero point run; None: the attribute `axis` says so.
    """

    weight: int
    scale: int | None
    zero_point: int | None
    axis: int | None


@dataclass(frozen=True)
class Operator:
    """An operator that computes with weights. What is left out, the operator does not have.

    macs: multiply-adds of one call; elementwise work is not counted.
    shapes: of the outputs, where onnx has no schema of the operator.
    way: how it runs, for the prediction of its time.
    contracts: attributes -> which axes meet, one for each input that may be a weight, the usual one first.
    layout: (attributes, shape of the weight, input of the weight) -> the weight as matrix and the activations as rows;
        None if it cannot be refitted.
    bias: input with one value for each output. factor: attribute that multiplies it.
    learned: inputs that are weights and biases. underivable: those of them that onnx-ad has no derivative by.
    gates: blocks that the gates of a recurrent operator make of its weights; 0: it is not recurrent.
    quantized: onnxruntime's quantizer may store its weights as integers.
    static: it runs on integers in onnxruntime where ranges are calibrated.
    dynamic: inputs that have to be stored for it to be quantized without calibration.
    packed: how a weight that is stored as integers is read.
    parts: (node, shapes of what is stored, opset) -> the node written as what it contains; None if that is not known.
    """

    op_type: str
    domain: str = ONNX
    macs: Callable[[Call], int] | None = None
    shapes: Callable[[Call], list[Shape]] | None = None
    way: Way | None = None
    contracts: Callable[[Attributes], tuple[Contraction, ...]] | None = None
    layout: Callable[[Attributes, Shape, int], Layout | None] | None = None
    bias: int | None = None
    factor: str = ""
    learned: tuple[int, ...] = ()
    underivable: frozenset[int] = frozenset()
    gates: int = 0
    quantized: bool = False
    static: bool = False
    dynamic: tuple[int, ...] = ()
    packed: Packed | None = None
    parts: Callable[[NodeProto, Dims, int], Unfused | None] | None = None

    def contractions(self, attributes: Attributes) -> tuple[Contraction, ...]:
        """Return which axes meet in a node with these attributes."""
        return self.contracts(attributes) if self.contracts is not None else ()

    @property
    def trained(self) -> tuple[int, ...]:
        """Inputs that gradient steps may change."""
        return tuple(index for index in self.learned if index not in self.underivable)


class Named(Protocol):
    """A node, of the file or of a view."""

    @property
    def op_type(self) -> str:
        """Name of the operator."""
        ...

    @property
    def domain(self) -> str:
        """Where the name is defined."""
        ...


_TABLE: dict[tuple[str, str], Operator] = {}


def describe(operators: Iterable[Operator]) -> None:
    """Add descriptions to the table.

    Raises:
        ValueError: an operator is described already.
    """
    for operator in operators:
        key = operator.domain, operator.op_type
        if key in _TABLE:
            raise ValueError(f"operator {operator.domain}:{operator.op_type} is described twice")
        _TABLE[key] = operator


def operator_of(node: Named) -> Operator | None:
    """Return the description of a node's operator, None if it computes with no weights."""
    domain = ONNX if node.domain == "ai.onnx" else node.domain
    return _TABLE.get((domain, node.op_type))


def operators() -> Iterator[Operator]:
    """Yield all descriptions."""
    yield from _TABLE.values()


def named(wanted: Callable[[Operator], bool], domain: str = ONNX) -> tuple[str, ...]:
    """Return the names of the operators of a domain for which something holds."""
    return tuple(o.op_type for o in _TABLE.values() if o.domain == domain and wanted(o))
