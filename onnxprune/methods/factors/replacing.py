"""Puts factors in the place of layers: the last factor takes the node's name and output, the others stand before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper

from onnxprune.graph.editor import Editor
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from onnxprune.methods.factors.replaceable import Option
from onnxprune.methods.linear import Linear
from onnxprune.operators.layouts import Dense
from onnxprune.types import Array

SPATIAL = ("kernel_shape", "strides", "pads", "dilations", "auto_pad")


def rewrite(view: View, parts: Mapping[str, tuple[Linear, Option, list[Array]]]) -> Model:
    """Return the model with factors; weights that nobody reads any more are gone."""
    editor = Editor(view)
    for layer, option, matrices in parts.values():
        _Replacement(editor, layer, option, matrices).run()
    proto = editor.finish()
    _drop(proto, {layer.key for layer, _, _ in parts.values()})
    source = view.model
    pending = {key: make for key, make in source.pending.items() if key in View(Model(proto, source.path)).parameters}
    return Model(proto, source.path, pending)


class _Replacement:
    def __init__(self, editor: Editor, layer: Linear, option: Option, matrices: Sequence[Array]) -> None:
        self._editor, self._layer, self._option, self._matrices = editor, layer, option, matrices
        self._proto = editor.node_proto(layer.node)
        self._dtype = helper.tensor_dtype_to_np_dtype(layer.parameter.data_type)

    def run(self) -> None:
        """Replace one layer."""
        node = self._layer.node
        if node.op_type == "Gather":
            self._table()
        elif self._layer.is_recurrent:
            self._recurrent()
        elif node.op_type == "Conv":
            {"low rank": self._conv, "tucker": self._tucker, "spatial": self._spatial}[self._option.form]()
        else:
            self._matrix()

    def _matrix(self) -> None:
        first, last = self._matrices
        place = 1 - self._layer.index
        x = self._proto.input[place]
        made = self._tensor("reduce", first.T if place == 0 else first)
        self._proto.input[place] = self._before("MatMul", [x, made] if place == 0 else [made, x], "reduce")
        layout = self._layer.layout
        shape = last.shape if isinstance(layout, Dense) and layout.transposed else last.shape[::-1]
        turned = layout.weight(last[None], shape)
        self._proto.input[self._layer.index] = self._tensor("expand", turned)

    def _recurrent(self) -> None:
        first, last = self._matrices
        x = self._proto.input[0]
        self._proto.input[0] = self._before("MatMul", [x, self._tensor("reduce", first.T)], "reduce")
        directions = self._layer.dims[0]
        self._proto.input[1] = self._tensor("expand", last.reshape(directions, -1, last.shape[1]))

    def _table(self) -> None:
        width, rows = self._matrices
        output = self._proto.output[0]
        self._proto.input[0] = self._tensor("rows", rows)
        self._proto.output[0] = self._name("reduced")
        inputs = [self._proto.output[0], self._tensor("expand", width)]
        made = helper.make_node("MatMul", inputs, [output], f"{self._layer.name}/expand")
        self._editor.put_after(self._layer.node, [made])

    def _conv(self) -> None:
        first, last = self._matrices
        self._proto.input[0] = self._conv_before(
            self._proto.input[0], self._kernel(first), "reduce", self._spatial_of()
        )
        self._pointwise(last)

    def _tucker(self) -> None:
        first, core, last = self._matrices
        ones = [1] * len(self._window)
        x = self._conv_before(self._proto.input[0], first.reshape(*first.shape, *ones), "reduce", {})
        x = self._conv_before(x, self._kernel(core), "core", self._spatial_of())
        self._proto.input[0] = x
        self._pointwise(last)

    def _spatial(self) -> None:
        first, last = self._matrices
        height, width = self._window
        rank = len(first)
        down = first.reshape(rank, height, -1).transpose(0, 2, 1)[..., None]
        across = last.reshape(len(last), width, rank).transpose(0, 2, 1)[:, :, None]
        self._proto.input[0] = self._conv_before(self._proto.input[0], down, "down", self._spatial_of(0))
        self._set(self._spatial_of(1), (1, width))
        self._proto.input[1] = self._tensor("across", across)

    @property
    def _window(self) -> tuple[int, ...]:
        return self._layer.dims[2:]

    def _kernel(self, matrix: Array) -> Array:
        """(outs, taps * channels) as (outs, channels, *window)."""
        return matrix.reshape(len(matrix), *self._window, -1).transpose(0, -1, *range(1, len(self._window) + 1))

    def _spatial_of(self, axis: int | None = None) -> dict[str, object]:
        """Attributes of the convolution along its spatial axes, or along one with the other left alone."""
        node, axes = self._layer.node, len(self._window)
        values = {name: node.attribute(name) for name in SPATIAL[1:] if node.attribute(name) is not None}
        if axis is None:
            return values
        for name, neutral in (("strides", 1), ("dilations", 1), ("pads", 0)):
            if name in values:
                kept = [value if place % axes == axis else neutral for place, value in enumerate(values[name])]
                values[name] = kept
        return values

    def _pointwise(self, matrix: Array) -> None:
        self._set({}, (1,) * len(self._window))
        self._proto.input[1] = self._tensor("expand", matrix.reshape(*matrix.shape, *(1,) * len(self._window)))

    def _set(self, values: Mapping[str, object], kernel: Sequence[int]) -> None:
        kept = [a for a in self._proto.attribute if a.name not in SPATIAL]
        made = [helper.make_attribute(name, value) for name, value in values.items()]
        copies = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in kept]
        del self._proto.attribute[:]
        self._proto.attribute.extend([helper.make_attribute("kernel_shape", list(kernel)), *made, *copies])

    def _conv_before(self, x: str, weight: Array, word: str, attributes: Mapping[str, object]) -> str:
        values = {"kernel_shape": list(weight.shape[2:]), **attributes}
        return self._before("Conv", [x, self._tensor(word, weight)], word, values)

    def _before(
        self, operator: str, inputs: Sequence[str], word: str, attributes: Mapping[str, Any] | None = None
    ) -> str:
        output = self._name(word)
        made: NodeProto = helper.make_node(
            operator, inputs, [output], f"{self._layer.name}/{word}", **(attributes or {})
        )
        self._editor.put_before(self._layer.node, made)
        return output

    def _tensor(self, word: str, value: Array) -> str:
        array = np.asarray(value, dtype=self._dtype, order="C")
        data_type = self._layer.parameter.data_type
        return self._editor.add_initializer(f"{self._layer.name}.{word}.weight", array, data_type)

    def _name(self, word: str) -> str:
        return self._editor.new_name(f"{self._layer.name}.{word}")


def _drop(proto: onnx.ModelProto, keys: set[str]) -> None:
    """Remove stored tensors that nobody reads any more, with the Identity and Transpose nodes behind them."""
    while True:
        view = View(Model(proto))
        used = {name for node in view.nodes for name in (*node.inputs, *node.captured)} | set(view.outputs)
        used |= {name for node in view.nodes for branch in node.branches for name in branch}
        dead = [n for n in view.nodes if n.op_type in ("Identity", "Transpose") and set(n.inputs) & keys]
        dead = [n for n in dead if not set(n.outputs) & used]
        chains = [n for n in view.nodes if n.op_type in ("Identity", "Transpose") and set(n.inputs) & keys]
        keys = keys | {name for n in chains for name in n.outputs}
        gone = [view.parameters[key] for key in keys & view.parameters.keys() if key not in used]
        for node in dead:
            node.graph.node.remove(node.proto)
        for parameter in gone:
            _remove(parameter.graph, parameter.tensor.name, parameter.node)
        if not dead and not gone:
            return


def _remove(graph: onnx.GraphProto, name: str, node: NodeProto | None) -> None:
    if node is not None:
        graph.node.remove(node)
        return
    for values in (graph.initializer, graph.input):
        for index in reversed(range(len(values))):
            if values[index].name == name:
                del values[index]
