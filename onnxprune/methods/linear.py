"""The layers of a model that multiply by a stored matrix: where it is stored, and how it is read and replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.allocate.name_patterns import Names
from onnxprune.compensate.weights import FLOATS
from onnxprune.errors import UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external, set_array
from onnxprune.graph.view import Node, Parameter, Stored, View
from onnxprune.operators.layouts import Layout, Recurrent
from onnxprune.operators.operator import operator_of
from onnxprune.types import Array

ROLES = {1: "input", 2: "recurrence"}


@dataclass(frozen=True, eq=False)
class Linear:
    """A layer and its stored weight.

    index: input of the node that reads the weight.
    perms: transposes between the stored tensor and the reader, in the order in which they are done.
    dims: shape of the weight as the reader sees it.
    """

    name: str
    node: Node
    index: int
    parameter: Parameter
    perms: tuple[tuple[int, ...], ...]
    dims: tuple[int, ...]
    layout: Layout

    @property
    def is_recurrent(self) -> bool:
        """Tell whether the node hands its state from step to step."""
        return isinstance(self.layout, Recurrent)

    @property
    def key(self) -> str:
        """Key of the stored tensor."""
        return self.parameter.key

    def seen(self, stored: Array) -> Array:
        """Return the stored tensor as the reader sees it."""
        for perm in self.perms:
            stored = stored.transpose(perm)
        return stored

    def stored(self, seen: Array) -> Array:
        """Return what to store so that the reader sees an array."""
        for perm in reversed(self.perms):
            seen = seen.transpose(np.argsort(perm))
        return seen

    def matrix(self, model: Model) -> Array:
        """Return the weights as (groups, outs, features)."""
        return self.layout.matrix(self.seen(model.content(self.key, self.parameter.tensor)))


def linear_layers(view: View) -> list[Linear]:
    """Return the layers of a model in order, branches of If included; a weight with several readers comes once."""
    found: dict[str, Linear] = {}
    names = Counter(node.name for node in view.nodes)
    for node in view.nodes:
        operator = operator_of(node)
        for met in operator.contractions(node.attributes) if operator is not None else ():
            layer = _linear(view, node, met.weight, names[node.name] == 1)
            if layer is not None:
                found.setdefault(layer.key, layer)
    return list(found.values())


def twins(layers: Sequence[Linear], form: View) -> dict[str, Linear]:
    """Return layer name -> the same layer in a followed form; those that are not followed have none."""
    there = {layer.key: layer for layer in linear_layers(form)}
    return {layer.name: there[layer.key] for layer in layers if layer.key in there}


def put(pending: dict[str, Callable[[], Array]], parameter: Parameter, make: Callable[[], Array]) -> None:
    """Give a stored tensor of an edited copy new values of the same type; external ones are made when written."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(parameter.data_type)
    if is_external(parameter.tensor):
        pending[parameter.key] = lambda: np.asarray(make(), dtype, order="C")
    else:
        set_array(parameter.tensor, make().astype(dtype))


def chosen_layers(
    view: View, layers: Sequence[Linear], skip: Sequence[str], only: Sequence[str]
) -> tuple[list[Linear], dict[str, str]]:
    """Return the layers that may change, and why the others may not (layer name -> reason).

    Raises:
        UsageError: a pattern matches no node or tensor.
    """
    from fnmatch import fnmatchcase

    names = Names(view)
    for option, patterns in (("skip", skip), ("only", only)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names.all):
                raise UsageError(f"--{option} '{pattern}' matches no node or tensor; 'onnxprune inspect' shows names.")

    def named(layer: Linear, patterns: Sequence[str]) -> bool:
        labels = names.of_tensor(layer.key)
        return any(fnmatchcase(label, pattern) for label in labels for pattern in patterns)

    left, reasons = [], {}
    for layer in layers:
        if named(layer, skip):
            reasons[layer.name] = "named by skip"
        elif only and not named(layer, only):
            reasons[layer.name] = "not named by only"
        else:
            left.append(layer)
    return left, reasons


def _linear(view: View, node: Node, index: int, own_name: bool) -> Linear | None:
    operator = operator_of(node)
    if operator is None or operator.layout is None or not node.has_input(index):
        return None
    stored = resolve(view, node.inputs[index])
    layout = operator.layout(node.attributes, stored.dims, index) if stored is not None else None
    if stored is None or layout is None or not stored.parameter.elements:
        return None
    name = node.name if node.name and own_name else next(output for output in node.outputs if output)
    if operator.gates:
        name = f"{name}:{ROLES[index]}"
    return Linear(name, node, index, stored.parameter, stored.perms, stored.dims, layout)


def resolve(view: View, key: str) -> Stored | None:
    """Return the stored floating-point tensor behind a tensor, Identity and Transpose looked through."""
    stored = view.stored(key)
    return stored if stored is not None and stored.parameter.data_type in FLOATS else None
