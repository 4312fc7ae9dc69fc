"""One network on its way from block to block: what every feed has come to there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.compensate.joints import Chain, Joint, block_model
from onnxprune.compensate.shelf import Parcel, Shelf
from onnxprune.graph.bodies import reads
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics.feeds import Feed


@dataclass(eq=False)
class BlockStream:
    """A network, and tensors of its feeds where it has come to."""

    model: Model
    chain: Chain
    shelf: Shelf
    feeds: list[dict[str, Parcel]]

    @staticmethod
    def of(model: Model, feeds: Sequence[Feed], shelf: Shelf) -> BlockStream:
        """Return a network before its first block."""
        given = [{name: Parcel(array) for name, array in feed.items()} for feed in feeds]
        return BlockStream(model, Chain(model.proto.graph), shelf, given)

    def put(self, model: Model) -> None:
        """Go on with other weights in blocks that have not run."""
        self.model, self.chain = model, Chain(model.proto.graph)

    def known(self, number: int, names: Sequence[str]) -> Feed:
        """Return tensors of one feed."""
        return {name: self.feeds[number][name].open() for name in names}

    def advance(self, start: Joint, stop: Joint) -> None:
        """Run a block on all feeds, and keep what is read behind it."""
        nodes = self.chain.between(start, stop.nodes)
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in reads(node)}
        inputs, outputs = [n for n in start.names if n in read], [n for n in stop.names if n in made]
        session = None
        for number, feed in enumerate(self.feeds):
            given = self.known(number, inputs)
            session = session or open_session(block_model(self.model, nodes, given, outputs).proto, threads=1)
            values = session.values(outputs, given)
            found = {name: self.shelf.put(array) for name, array in zip(outputs, values, strict=True)}
            self.feeds[number] = {name: feed[name] for name in stop.names if name not in made} | found
