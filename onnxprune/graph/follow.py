"""A model with the branches that its data take written into the main graph, to look at and to fit; never to be written.

Tensors get the keys of the original's `View`, so what is known of those holds here. What a refit changes in this form
is carried back by `unfollow`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx

from onnxprune.errors import ModelError
from onnxprune.graph.bodies import bodies_of, free_names, named_bodies, value_of
from onnxprune.graph.initializers import free_name
from onnxprune.graph.model import Model
from onnxprune.graph.view import Path, View
from onnxprune.operators.fused import default_opset, unfused

UNSEEN = "onnxprune.unseen"
"""Stem of the outputs of nodes that stand for what a branch that is not followed reads."""

Taken = Mapping[str, str]
"""Key of the first output of an If -> name of the attribute that holds the branch to follow."""
Place = tuple[Path, int]
"""A graph and the number of a node or an initializer in it."""


@dataclass(frozen=True, eq=False)
class Followed(Model):
    """A followed form.

    taken: what was followed.
    nodes: (place in the source, or None for what the form itself adds) of every node of the main graph.
    tensors: initializer -> its place in the source. constants: initializer -> the Constant node that it was.
    conditions: key of the first output of an If that is not followed -> its condition, for those in the main graph.
    wires: number of a node that is part of a fused one -> the inputs of that one that its own are.
    twins: as in `Unfused`.
    """

    source: Model | None = None
    taken: Taken = field(default_factory=dict)
    nodes: tuple[Place | None, ...] = ()
    tensors: Mapping[str, Place] = field(default_factory=dict)
    constants: Mapping[str, Place] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    wires: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    twins: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """Identity of the source and of the branches."""
        source = self.source.sha256 if self.source is not None else ""
        return hashlib.sha256(repr((source, sorted(self.taken.items()))).encode()).hexdigest()


def placed(form: Model) -> list[tuple[onnx.NodeProto, Place]]:
    """Return the nodes of a form that stand in its source, with their places."""
    places = form.nodes if isinstance(form, Followed) else ()
    return [(n, place) for n, place in zip(form.proto.graph.node, places, strict=True) if place is not None]


def shared_names(form: onnx.ModelProto) -> frozenset[str]:
    """Return the tensors of a followed form that a branch which is not followed reads too."""
    return frozenset(n.input[0] for n in form.graph.node if n.output and n.output[0].startswith(UNSEEN))


def follow(
    model: Model,
    taken: Taken,
    keys: Mapping[Path, Mapping[str, str]] | None = None,
    *,
    always: bool = False,
    unfuse: bool = False,
) -> Model:
    """Return the followed form of a model; the model itself if there is nothing to follow, unless `always`.

    Args:
        keys: scopes of the view whose keys name the tensors; None: of the model's own view. Give those of the
            original for a model that was made from it.
        unfuse: write fused layers as what they are made of.

    Raises:
        ModelError: an output of the model shares its name with a tensor of a branch.
    """
    return form_of(model, taken, keys, unfuse) if taken or always else model


def form_of(
    model: Model, taken: Taken, keys: Mapping[Path, Mapping[str, str]] | None = None, unfuse: bool = False
) -> Followed:
    """Return the followed form of a model, of one without anything to follow too."""
    return _Form(model, taken, keys or View(model).scopes, unfuse).run()


class _Form:
    """Writes all scopes that are followed into one graph."""

    def __init__(self, model: Model, taken: Taken, keys: Mapping[Path, Mapping[str, str]], unfuse: bool) -> None:
        self._model, self._taken, self._keys = model, taken, keys
        self._used = {key for names in keys.values() for key in names.values()}
        self._graph = onnx.GraphProto(name=model.proto.graph.name)
        self._nodes: list[Place | None] = []
        self._tensors: dict[str, Place] = {}
        self._constants: dict[str, Place] = {}
        self._conditions: dict[str, str] = {}
        self._wires: dict[int, tuple[int, ...]] = {}
        self._twins: dict[str, tuple[str, int | None]] = {}
        self._stored: dict[str, tuple[int, ...]] = {}
        self._opset = default_opset(model.proto) if unfuse else 0

    def run(self) -> Followed:
        """Return the form."""
        source = self._model.proto
        proto = onnx.ModelProto(ir_version=source.ir_version)
        proto.opset_import.extend(source.opset_import)
        proto.functions.extend(source.functions)
        graph, names = self._graph, dict[str, str]()
        for value in source.graph.input:
            names[value.name] = value.name
            graph.input.append(value)
        graph.output.extend(source.graph.output)
        self._open(source.graph, (), names, {})
        wrong = [value.name for value in source.graph.output if names.get(value.name) != value.name]
        if wrong:
            raise ModelError(f"output '{wrong[0]}' has the name of a tensor in a branch, so no branch can be followed.")
        graph.value_info.extend(v for v in source.graph.value_info if names.get(v.name) == v.name)
        proto.graph.CopyFrom(graph)
        return Followed(
            proto,
            self._model.path,
            self._model.pending,
            source=self._model,
            taken=dict(self._taken),
            nodes=tuple(self._nodes),
            tensors=self._tensors,
            constants=self._constants,
            conditions=self._conditions,
            wires=self._wires,
            twins=self._twins,
        )

    def _open(self, graph: onnx.GraphProto, path: Path, names: dict[str, str], wanted: Mapping[str, str]) -> None:
        """Add the nodes of a scope.

        Args:
            names: what its tensors are called here; those from outside are there already.
            wanted: names that its outputs should get.
        """
        for number, tensor in enumerate(graph.initializer):
            self._store(tensor, self._define(path, tensor.name, names))
            self._tensors[names[tensor.name]] = (path, number)
        for sparse in graph.sparse_initializer:
            self._graph.sparse_initializer.add().CopyFrom(sparse)
            self._graph.sparse_initializer[-1].values.name = self._define(path, sparse.values.name, names)
        for number, node in enumerate(graph.node):
            inner = {} if node.op_type == "Constant" else {n: wanted[n] for n in node.output if n in wanted}
            outputs = [inner.get(n) or (self._key(path, n, names) if n else "") for n in node.output]
            attribute = self._taken.get(self._plain(path, node), "") if node.op_type == "If" else ""
            if attribute in dict(named_bodies(node)):
                self._follow(node, attribute, path, names, outputs)
            else:
                self._copy(node, (path, number), names, outputs)
                if node.op_type == "If" and not node.domain:
                    self._conditions[self._plain(path, node)] = names.get(node.input[0], node.input[0])
            names.update((name, key) for name, key in zip(node.output, outputs, strict=True) if name)

    def _plain(self, path: Path, node: onnx.NodeProto) -> str:
        """Return the key that the view gives the first output of a node."""
        return self._keys.get(path, {}).get(node.output[0], node.output[0]) if node.output else ""

    def _follow(
        self, node: onnx.NodeProto, attribute: str, path: Path, names: Mapping[str, str], outputs: list[str]
    ) -> None:
        for other, body in named_bodies(node):
            if other != attribute:
                for name in dict.fromkeys(free_names(body)):
                    self._add("Identity", names.get(name, name), f"{UNSEEN}{len(self._nodes)}")
        body = dict(named_bodies(node))[attribute]
        made = {name for inner in body.node if inner.op_type != "Constant" for name in inner.output}
        wanted: dict[str, str] = {}
        for value, key in zip(body.output, outputs, strict=True):
            if value.name in made and key:
                wanted.setdefault(value.name, key)
        inside = dict(names)
        self._open(body, (*path, (node.output[0], attribute)), inside, wanted)
        for value, key in zip(body.output, outputs, strict=True):
            if key and inside[value.name] != key:
                self._add("Identity", inside[value.name], key)

    def _add(self, op_type: str, read: str, made: str) -> None:
        self._graph.node.append(onnx.helper.make_node(op_type, [read], [made]))
        self._nodes.append(None)

    def _copy(self, node: onnx.NodeProto, place: Place, names: Mapping[str, str], outputs: list[str]) -> None:
        copy = self._graph.node.add()
        copy.CopyFrom(node)
        self._nodes.append(place)
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = outputs
        if self._unfuse(copy, place):
            return
        for attribute, body in named_bodies(copy):
            if node.op_type == "If" and not node.domain:
                self._lift(body, (*place[0], (node.output[0], attribute)), names)
            else:
                _rename(body, names)

    def _unfuse(self, copy: onnx.NodeProto, place: Place) -> bool:
        """Put the parts of a fused node in the place of its copy, the last node; tell whether it has any."""
        found = unfused(copy, self._stored.get, self._opset)
        if found is None:
            if copy.op_type == "Constant" and any(a.name == "value" for a in copy.attribute):
                self._stored[copy.output[0]] = tuple(value_of(copy).dims)
            return False
        del self._graph.node[-1], self._nodes[-1]
        for part in found.parts:
            if part.wires:
                self._wires[len(self._nodes)] = part.wires
            self._graph.node.append(part.node)
            self._nodes.append(place if part.wires else None)
        self._twins.update(found.twins)
        return True

    def _store(self, tensor: onnx.TensorProto, key: str) -> None:
        self._stored[key] = tuple(tensor.dims)
        self._graph.initializer.add().CopyFrom(tensor)
        self._graph.initializer[-1].name = key

    def _lift(self, body: onnx.GraphProto, path: Path, outside: Mapping[str, str]) -> None:
        """Put what a branch stores into the main graph, so that it can be read and replaced; the nodes stay."""
        names = dict(outside)
        for number, tensor in enumerate(body.initializer):
            self._store(tensor, self._define(path, tensor.name, names))
            self._tensors[names[tensor.name]] = (path, number)
        del body.initializer[:], body.value_info[:]
        kept: list[onnx.NodeProto] = []
        for number, node in enumerate(body.node):
            inner = dict(names)
            for name in node.output:
                self._define(path, name, names)
            if node.op_type == "Constant" and not node.domain and any(a.name == "value" for a in node.attribute):
                self._store(value_of(node), names[node.output[0]])
                self._constants[names[node.output[0]]] = (path, number)
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [inner.get(name, name) for name in node.input]
            copy.output[:] = [names[name] if name else "" for name in node.output]
            for attribute, within in named_bodies(copy):
                if node.op_type == "If" and not node.domain:
                    self._lift(within, (*path, (node.output[0], attribute)), inner)
                else:
                    _rename(within, inner)
            kept.append(copy)
        made = {name for node in kept for name in node.output}
        for value in body.output:
            key = names.get(value.name, value.name)
            if key not in made:
                kept.append(onnx.helper.make_node("Identity", [key], [free_name(key, self._used)]))
            value.name = key if key in made else kept[-1].output[0]
        del body.node[:]
        body.node.extend(kept)

    def _define(self, path: Path, name: str, names: dict[str, str]) -> str:
        names[name] = self._key(path, name, names)
        return names[name]

    def _key(self, path: Path, name: str, names: Mapping[str, str]) -> str:
        known = self._keys.get(path, {}).get(name)
        if known is not None:
            return known
        if not path:
            self._used.add(name)
            return name
        return free_name("/".join((*(output for output, _ in path), name)), self._used)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Call what a body reads from outside by its new name."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        node.input[:] = [name if name in own else names.get(name, name) for name in node.input]
        for body in bodies_of(node):
            _rename(body, {name: key for name, key in names.items() if name not in own})
        own.update(node.output)
    for value in graph.output:
        if value.name not in own:
            value.name = names.get(value.name, value.name)
