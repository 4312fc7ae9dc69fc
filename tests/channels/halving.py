"""Remove a random half of every active group of a drawn graph and compare with the zeroed original."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.evidence.oracle import masked_model
from onnxprune.graph.model import Model
from tests.micro.build import Net
from tests.oracle import is_dynamic, parity, random_inputs, relative_error, run, share_left


@dataclass(frozen=True)
class Halved:
    """A graph, what was found in it, and what is left of it."""

    original: onnx.ModelProto
    channels: Channels
    pruned: onnx.ModelProto
    keep: Keep

    @property
    def kinds(self) -> set[str]:
        """Kinds of the groups that were halved."""
        return {group.kind for group in self.channels.groups if group.active}

    @property
    def share(self) -> float:
        """Share of the parameters left."""
        return share_left(self.original, self.pruned)

    def node(self, op_type: str) -> onnx.NodeProto:
        """Return the pruned node of a type."""
        return next(node for node in self.pruned.graph.node if node.op_type == op_type)

    def shape(self, op_type: str, index: int) -> list[int]:
        """Return the pruned shape of a parameter of a node."""
        name = self.node(op_type).input[index]
        return next(list(tensor.dims) for tensor in self.pruned.graph.initializer if tensor.name == name)

    def reasons(self) -> str:
        """Return the reasons of all locks."""
        return " ".join(lock.reason for lock in self.channels.locks)


def halve(net: Net, heads: bool | None = None, head_dim: bool | None = None, tolerance: float = 1e-4) -> Halved:
    """Halve a drawn graph; every rule must have followed it, and the outputs must be those of the zeroed original."""
    original = net.model()
    channels = analyse(Model(original), heads=heads, head_dim=head_dim)
    assert not channels.state.defects
    assert not channels.state.unknown
    assert not channels.trace.first.failures
    rng = np.random.default_rng(0)
    keep: Keep = {}
    for group in channels.groups:
        if group.active:
            keep[group.name] = np.ones(group.size, dtype=bool)
            keep[group.name][rng.permutation(group.size)[: group.size // 2]] = False
    pruned = rewrite(channels, keep).proto
    exact = {group.name: keep[group.name] for group in channels.groups if group.active and group.exact}
    if exact:
        error = parity(original, rewrite(channels, exact).proto, channels.plan(exact).removed)
        assert error < tolerance
    masked = masked_model(channels, keep).proto
    feeds = random_inputs(original, np.random.default_rng(1), 2 if is_dynamic(original) else 1)
    for reference, found in zip(run(masked, feeds), run(pruned, feeds), strict=True):
        assert relative_error(reference, found) < tolerance
    return Halved(original, channels, pruned, keep)


def attribute(node: onnx.NodeProto, name: str) -> object:
    """Return an attribute of a node, None where it is absent."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
