"""Small networks in which the removed channels are mixtures of the kept ones, so that a refit can undo the damage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.compensate.compensate import LayerError, RefitOptions, compensate, kept_positions
from onnxprune.compensate.problem import LstsqOptions
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics.feeds import Feed

Weights = dict[str, np.ndarray]


def network(nodes: list[onnx.NodeProto], weights: Weights, x: list, y: list, data_type: int = 1) -> Model:
    """Return a model with input x and output y."""
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    ends = [helper.make_tensor_value_info(name, data_type, shape) for name, shape in (("x", x), ("y", y))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def run(model: Model, feeds: list[Feed], *names: str) -> list[np.ndarray]:
    """Return tensors of the whole model (its outputs by default), batches joined."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    wanted = list(names) or [value.name for value in model.proto.graph.output]
    session = open_session(proto, threads=1)
    results = [session.values(wanted, feed) for feed in feeds]
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


@dataclass(frozen=True)
class Pruned:
    """A model cut and compensated."""

    channels: Channels
    keep: Keep
    cut: Model
    refitted: Model
    errors: list[LayerError]


def prune(model: Model, keep: dict[int, list[int]], feeds: list[Feed], mode: str = "lstsq", **options) -> Pruned:
    """Cut group number -> removed channels, and compensate."""
    channels = analyse(model)
    masks: Keep = {}
    for number, removed in keep.items():
        group = channels.groups[number]
        masks[group.name] = ~np.isin(np.arange(group.size), removed)
    cut = rewrite(channels, masks)
    settings = RefitOptions(LstsqOptions(**options), threads=1)
    result = compensate(model, cut, kept_positions(channels, masks), feeds, mode, settings)
    return Pruned(channels, masks, cut, result.model, result.layers)
