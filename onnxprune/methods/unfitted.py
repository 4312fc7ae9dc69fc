"""Groups that the refit cannot make up for: nothing of them is cut by default where there are data to refit to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import ChannelGroup, Keep
from onnxprune.compensate.readers import find_readers
from onnxprune.compensate.recurrent_pair import find_recurrent
from onnxprune.compensate.shared import find_shared
from onnxprune.compensate.weights import Weights
from onnxprune.graph import count
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from onnxprune.methods.seen import Seen

CURE = "cut_unfitted (--cut-unfitted) cuts them all the same; look at the outputs then."
SHOWN = 3


@dataclass(frozen=True)
class Unfitted:
    """Groups that nothing can make up for.

    reasons: group name -> why.
    parameters, macs: shares of the model that their layers hold.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    parameters: float = 0.0
    macs: float = 0.0

    @property
    def note(self) -> str:
        """What was left alone, what it costs and what to do about it; "" if nothing was."""
        if not self.reasons:
            return ""
        kinds = Counter(reason.split(" '")[0] for reason in self.reasons.values())
        why = "; ".join(f"{kind} ({number})" if len(kinds) > 1 else kind for kind, number in kinds.most_common())
        names = ", ".join(list(self.reasons)[:SHOWN]) + (", .." if len(self.reasons) > SHOWN else "")
        return (
            f"{len(self.reasons)} groups ({names}), whose layers hold {self.parameters:.1%} of the parameters and "
            f"{self.macs:.1%} of the MACs, are left alone, because no refit makes up for them: {why}. {CURE}"
        )

    def cut(self, keep: Keep) -> list[str]:
        """Name every group that is cut all the same, as a warning; nothing if there is none."""
        named = [f"{name} ({why})" for name, why in self.reasons.items() if name in keep and not keep[name].all()]
        if not named:
            return []
        return [f"no refit makes up for what is cut of {', '.join(named)}; look at the outputs."]


def unfitted(channels: Channels, seen: Seen) -> Unfitted:
    """Return the groups whose channels would go without anything making up for them.

    A group is refitted where every weight that reads its channels is one of a layer that the refit changes. Channels
    that no weight reads (those between two activations that are multiplied) change what later layers read, and these
    are refitted. Nothing is known of a branch that no sample takes.
    """
    known, here = fitted_weights(seen.model), seen.weights
    for part in seen.parts:
        known |= fitted_weights(part.model)
    groups = [group for group in channels.groups if group.active]
    reasons = {group.name: reason for group in groups if (reason := _reason(channels, group, known, here))}
    held = {site.tensor for group in groups if group.name in reasons for site in group.sites if site.role == "writes"}
    return Unfitted(reasons, *_shares(channels.view, channels.trace.shapes, held)) if reasons else Unfitted()


def fitted_weights(model: Model) -> set[str]:
    """Return the stored tensors that the refit gives new values."""
    weights = Weights(model)
    names = {reader.node.input[reader.weight_index] for reader in find_readers(weights)}
    names |= {name for layer in find_recurrent(weights, weights, lambda *_: None) for name in layer.node.input[1:3]}
    names |= {m.node.input[m.weight_index] for shared in find_shared(weights) for m in shared.members}
    return {source for name in names for source in weights.sources(name)}


def _reason(channels: Channels, group: ChannelGroup, known: set[str], here: set[str]) -> str:
    sites = [site for site in group.sites if site.use is None]
    if any(site.tensor not in here for site in sites):
        return "in a branch that no sample takes"
    strange = [site.tensor for site in sites if site.role == "reads" and site.tensor not in known]
    if not strange:
        return ""
    return f"read by {_reader(channels.view, strange[0])}"


def _reader(view: View, tensor: str) -> str:
    node = next((node for node, _ in view.readers.get(tensor, []) if node.op_type != "Identity"), None)
    return node.label if node is not None else f"'{tensor}'"


def _shares(view: View, shapes: count.Shapes, tensors: set[str]) -> tuple[float, float]:
    """Return the shares of the parameters and of the multiply-adds that stored tensors stand for."""
    elements = {name: parameter.elements for name, parameter in view.parameters.items()}
    macs = count.macs(view, shapes)
    nodes = {count.node_key(node) for name in tensors for node, _ in view.readers.get(name, [])}
    return (
        sum(elements[name] for name in tensors) / max(1, sum(elements.values())),
        sum(macs.get(name, 0) for name in nodes) / max(1, sum(macs.values())),
    )
