"""A flat, typed reading of a model: nodes in topological order, parameters, keys that are unique across scopes.

Nothing here changes the model. Nodes of If branches stand before their If node; bodies of Loop and Scan stay closed,
only the outer tensors that they capture are known, unless they are asked for: then they stand before their node too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import onnx

from onnxprune.errors import ModelError
from onnxprune.graph.bodies import free_names, named_bodies
from onnxprune.operators.call import attributes_of
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.graph.model import Model

SUBGRAPH_OPS_OPENED = frozenset({"If"})
SCAN_SINCE = 9

Path = tuple[tuple[str, str], ...]
"""A body: (first output of the node that has it, attribute) from the main graph inwards."""


@dataclass(frozen=True, eq=False)
class Body:
    """An opened body of a Loop or Scan: keys of what it takes, gives, and reads from outside."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    outside: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One node. `inputs` and `outputs` are keys of the view ("" for an omitted one).

    body: of a Loop or Scan, where it was opened. repeated: the node itself stands in such a body.
    """

    proto: onnx.NodeProto
    op_type: str
    domain: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    graph: onnx.GraphProto
    branches: tuple[tuple[str, ...], ...] = ()
    captured: tuple[str, ...] = ()
    body: Body | None = None
    repeated: bool = False

    @cached_property
    def attributes(self) -> dict[str, object]:
        """Attribute values by name; strings are decoded, graphs left out."""
        return attributes_of(self.proto)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return one attribute or the default."""
        return self.attributes.get(name, default)

    @property
    def label(self) -> str:
        """How messages name the node."""
        return f"{self.op_type} '{self.name or next((o for o in self.outputs if o), '?')}'"

    def has_input(self, index: int) -> bool:
        """Tell whether an optional input is there."""
        return index < len(self.inputs) and self.inputs[index] != ""


@dataclass(frozen=True, eq=False)
class Parameter:
    """A stored tensor: an initializer, or the `value` of a Constant node (then `node` is that node)."""

    key: str
    tensor: onnx.TensorProto
    graph: onnx.GraphProto
    node: onnx.NodeProto | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.tensor.dims)

    @property
    def data_type(self) -> int:
        """`onnx.TensorProto` data type."""
        return int(self.tensor.data_type)

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for dim in self.tensor.dims:
            count *= dim
        return count


@dataclass(frozen=True, eq=False)
class Stored:
    """A stored tensor and what stands between it and its reader.

    perms: the transposes, in the order in which they are done.
    """

    parameter: Parameter
    perms: tuple[tuple[int, ...], ...] = ()

    @property
    def order(self) -> tuple[int, ...]:
        """For each axis that the reader sees, which axis of the stored tensor it is."""
        order = tuple(range(len(self.parameter.dims)))
        for perm in self.perms:
            order = tuple(order[axis] for axis in perm)
        return order

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape that the reader sees."""
        return tuple(self.parameter.dims[axis] for axis in self.order)


@dataclass(eq=False)
class _Scope:
    """Names visible in one graph, mapped to keys."""

    prefix: str
    names: dict[str, str]
    path: Path = ()
    repeated: bool = False


@dataclass(eq=False)
class View:
    """The model as the analysis reads it.

    loops: open the bodies of Loop and Scan too.
    scopes: body -> name in it -> key.
    starts: number of a node -> the Loop and Scan nodes, outer ones first, whose opened bodies begin there.
    """

    model: Model
    loops: bool = False
    nodes: list[Node] = field(default_factory=list)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    inputs: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    closed: set[str] = field(default_factory=set)
    declarations: list[tuple[str, onnx.TypeProto]] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    scopes: dict[Path, dict[str, str]] = field(default_factory=dict)
    starts: dict[int, list[Node]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        proto = self.model.proto
        self.opsets = {_domain(o.domain): o.version for o in proto.opset_import}
        scope = _Scope("", {})
        self._open(proto.graph, scope)
        self.outputs = tuple(scope.names.get(o.name, o.name) for o in proto.graph.output)

    @cached_property
    def producers(self) -> dict[str, Node]:
        """Tensor key -> the node that makes it."""
        return {output: node for node in self.nodes for output in node.outputs if output}

    @cached_property
    def declared(self) -> dict[str, onnx.TypeProto]:
        """Tensor key -> the type that the file declares first; exporters repeat themselves."""
        return dict(reversed(self.declarations))

    @cached_property
    def readers(self) -> dict[str, list[tuple[Node, int]]]:
        """Tensor key -> the nodes and input numbers that read it."""
        table: dict[str, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.inputs):
                if name:
                    table.setdefault(name, []).append((node, index))
        return table

    def reader_numbers(self, key: str) -> list[int]:
        """Return which nodes read a tensor, in the order of nodes."""
        return [self._numbers[node] for node, _ in self.readers.get(key, ())]

    @cached_property
    def _numbers(self) -> dict[Node, int]:
        return {node: number for number, node in enumerate(self.nodes)}

    @cached_property
    def own_names(self) -> frozenset[str]:
        """Names that one node has, and no tensor of another."""
        counts = Counter(node.name for node in self.nodes)
        makers = self.producers
        return frozenset(
            node.name for node in self.nodes if counts[node.name] == 1 and makers.get(node.name, node) is node
        )

    def label(self, node: Node) -> str:
        """Return what tells a node from all others: its name, where no other has it, or its first output."""
        first = next((key for key in node.outputs if key), "")
        return node.name if node.name and node.name in self.own_names else first

    @cached_property
    def handed_out(self) -> frozenset[str]:
        """Outputs of the model and of opened bodies: tensors that are read by more than the nodes that list them."""
        bodies = [node.body.outputs for node in self.nodes if node.body is not None]
        branches = [branch for node in self.nodes for branch in node.branches]
        return frozenset(self.outputs).union(*bodies, *branches)

    @cached_property
    def captured(self) -> frozenset[str]:
        """Tensors that closed bodies take from outside."""
        return frozenset(key for node in self.nodes for key in node.captured)

    def root(self, key: str) -> str:
        """Follow Identity nodes back to where a tensor comes from."""
        return self._origins.get(key, key)

    @cached_property
    def _origins(self) -> dict[str, str]:
        """What an Identity node makes -> where it comes from; nodes stand before those that read them."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if node.op_type == "Identity" and not node.domain:
                found[node.outputs[0]] = found.get(node.inputs[0], node.inputs[0])
        return found

    def stored(self, key: str, through: Collection[str] = ("Identity", "Transpose")) -> Stored | None:
        """Return the stored tensor that a tensor is, up to operators that only hand it on; None if it is computed.

        Args:
            through: the operators that are followed, by their first input.
        """
        perms: list[tuple[int, ...]] = []
        while key not in self.parameters:
            node = self.producers.get(key)
            if node is None or node.domain or node.op_type not in through:
                return None
            if node.op_type == "Transpose":
                perm = node.attribute("perm")
                if perm is None:
                    return None
                perms.append(tuple(int(axis) for axis in perm))
            key = node.inputs[0]
        return Stored(self.parameters[key], tuple(reversed(perms)))

    def content(self, key: str) -> Array:
        """Return the values of a parameter, those still to be written included."""
        return self.model.content(key, self.parameters[key].tensor)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Tensors that are stored or made of stored ones alone, the same whatever the inputs are."""
        found = set(self.parameters)
        for node in self.nodes:
            closed = not node.captured and not node.branches and node.body is None
            if node.inputs and closed and found.issuperset(filter(None, node.inputs)):
                found.update(filter(None, node.outputs))
        return frozenset(found)

    def in_turn(self, enters: Callable[[Node], bool]) -> Iterator[Node]:
        """Yield the nodes in order, without those in bodies that are not entered.

        Args:
            enters: is called with a Loop or Scan before the nodes of its opened body.
        """
        waiting: Node | None = None
        for number, node in enumerate(self.nodes):
            for owner in self.starts.get(number, ()) if waiting is None else ():
                if waiting is None and not enters(owner):
                    waiting = owner
            if node is waiting:
                waiting = None
            if waiting is None:
                yield node

    def users(self, key: str) -> Iterator[Node]:
        """Yield the nodes that read a tensor, once per input, through Identity nodes."""
        waiting = [node for node, _ in reversed(self.readers.get(key, []))]
        while waiting:
            node = waiting.pop()
            if node.op_type == "Identity" and not node.domain:
                waiting += [reader for reader, _ in reversed(self.readers.get(node.outputs[0], []))]
            else:
                yield node

    def _define(self, scope: _Scope, name: str) -> str:
        key = name if name not in self.keys else f"{scope.prefix}{name}"
        while key in self.keys:
            key += "'"
        self.keys.add(key)
        scope.names[name] = key
        return key

    def _open(self, graph: onnx.GraphProto, scope: _Scope, given: bool = True) -> None:
        """Read a graph. given: its inputs are those of the model."""
        self.scopes[scope.path] = scope.names
        for tensor in graph.initializer:
            key = self._define(scope, tensor.name)
            self.parameters[key] = Parameter(key, tensor, graph)
        for sparse in graph.sparse_initializer:
            self.closed.add(self._define(scope, sparse.values.name))
        for value in graph.input:
            if value.name in scope.names and scope.names[value.name] in self.parameters:
                continue
            key = self._define(scope, value.name)
            if given:
                self.inputs[key] = value
        for proto in graph.node:
            self._add(proto, graph, scope)
        for value in (*(() if given else graph.input), *graph.value_info, *graph.output):
            if value.name in scope.names and value.HasField("type"):
                self.declarations.append((scope.names[value.name], value.type))

    def _add(self, proto: onnx.NodeProto, graph: onnx.GraphProto, scope: _Scope) -> None:
        inputs = tuple(self._resolve(scope, name, proto) if name else "" for name in proto.input)
        branches: list[tuple[str, ...]] = []
        captured: set[str] = set()
        loops, start, opened = self.loops and self._is_loop(proto), len(self.nodes), None
        for number, (attribute_name, body) in enumerate(named_bodies(proto)):
            opens = proto.op_type in SUBGRAPH_OPS_OPENED and not proto.domain
            outside = set() if opens else {scope.names[n] for n in free_names(body) if n in scope.names}
            if not opens and not loops:
                captured |= outside
                continue
            path = (*scope.path, (proto.output[0], attribute_name))
            stem = f"{scope.prefix}{proto.name or next(filter(None, proto.output))}/{number}/"
            inner = _Scope(stem, dict(scope.names), path, scope.repeated or loops)
            self._open(body, inner, given=False)
            results = tuple(self._resolve(inner, o.name, proto) for o in body.output)
            if loops:
                opened = Body(tuple(inner.names[v.name] for v in body.input), results, tuple(sorted(outside)))
            else:
                branches.append(results)
        outputs = tuple(self._define(scope, name) if name else "" for name in proto.output)
        if proto.op_type == "Constant" and not proto.domain and outputs:
            for attribute in proto.attribute:
                if attribute.name == "value":
                    self.parameters[outputs[0]] = Parameter(outputs[0], attribute.t, graph, proto)
                    return
        domain = _domain(proto.domain)
        node = Node(
            proto=proto,
            op_type=proto.op_type,
            domain=domain,
            version=self.opsets.get(domain, 0),
            name=proto.name,
            inputs=inputs,
            outputs=outputs,
            graph=graph,
            branches=tuple(branches),
            captured=tuple(sorted(captured)),
            body=opened,
            repeated=scope.repeated,
        )
        if opened is not None:
            self.starts.setdefault(start, []).insert(0, node)
        self.nodes.append(node)

    def _is_loop(self, proto: onnx.NodeProto) -> bool:
        """Tell whether a node has a body that is run again and again; earlier forms of Scan have an axis of batches."""
        known = proto.op_type == "Loop" or (proto.op_type == "Scan" and self.opsets.get("", 0) >= SCAN_SINCE)
        return known and not _domain(proto.domain) and any(proto.output)

    def _resolve(self, scope: _Scope, name: str, proto: onnx.NodeProto) -> str:
        try:
            return scope.names[name]
        except KeyError:
            raise ModelError(
                f"{proto.op_type} '{proto.name}': its input '{name}' is made by no node before it; the graph is not "
                "sorted or incomplete. Check the file with onnx.checker."
            ) from None


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
