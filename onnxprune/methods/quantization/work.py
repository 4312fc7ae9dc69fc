"""One model on its way to fewer bits: what all modes have in common. Each mode derives its own from this."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import onnx

from onnxprune.errors import DataError, NothingToPruneError
from onnxprune.graph.model import Model
from onnxprune.methods.quantization import inside, layers, native, normal_form, restore
from onnxprune.methods.quantization.layers import Layer
from onnxprune.methods.quantization.lift import captured_nodes, opset_of
from onnxprune.methods.quantization.modes.table import Mode
from onnxprune.methods.quantization.prepare import prepare
from onnxprune.methods.quantize_options import QuantizeOptions, weight_bits
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.evidence.latency import Timing
    from onnxprune.methods.quantization.search import Judge

Feeds = dict[str, Array]

NO_DATA = "{} mode takes ranges from inputs; give --data, or take --mode dynamic."


@dataclass(frozen=True, eq=False)
class Task:
    """What is quantized, and with what.

    feeds: inputs, or a function that draws them once it is known that there is something to quantize.
    synthetic: they are made up.
    judge: limits to keep.
    """

    source: Model
    mode: Mode
    options: QuantizeOptions
    feeds: Sequence[Feeds] | Callable[[], Sequence[Feeds]] = ()
    judge: Judge | None = None
    threads: int = 0
    synthetic: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """A quantized model.

    layers: every node that could be quantized, and whether it is.
    timings: of the source and of the model, run in turns; None where nobody looked.
    """

    proto: onnx.ModelProto
    layers: tuple[Layer, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    timings: tuple[Timing, Timing] | None = None


class Work(ABC):
    """A model that is prepared once, and built as often as a search asks.

    stored_only: layers are the nodes that read a stored tensor, not all nodes of the operators.
    bodies: layers inside the bodies of If, Loop and Scan are quantized too.
    """

    stored_only = False
    bodies = False

    def __init__(self, task: Task) -> None:
        self.task, self.source, self.options, self.threads = task, task.source, task.options, task.threads
        self.warnings: list[str] = []
        self.feeds: list[Feeds] = []
        self.prepared = prepare(task.source, task.mode.opset)
        self.proto = self.prepared.proto
        graph = self.proto.graph
        self.fixed = self._formed() | captured_nodes(graph) | normal_form.foreign_nodes(graph)
        self.fixed |= self.kept_float()
        self.layers = self._layers()
        if not self.layers and not task.mode.without_layers:
            raise NothingToPruneError(layers.why_nothing(task.mode.name, self.proto))
        self.take(list(task.feeds() if callable(task.feeds) else task.feeds))
        self.observe()

    @property
    def fits(self) -> bool:
        """Whether the feeds are inputs of the model, which something can be fitted to."""
        return bool(self.feeds) and not self.task.synthetic

    @abstractmethod
    def operators(self) -> list[str]:
        """Return the operators that the mode quantizes."""

    @abstractmethod
    def make(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the working copy in fewer bits, with these nodes in float."""

    def form(self, wanted: Callable[[str], bool], blocked: Collection[str]) -> None:
        """Bring the working copy into the form that the mode wants.

        Args:
            wanted: tells whether the node of a name may be changed; `blocked` are those that may not.
        """
        return

    def kept_float(self) -> set[str]:
        """Return the names of the nodes that stay float besides those that the user named."""
        return set()

    def observe(self) -> None:
        """Look at what the model computes, once, before anything is built."""
        self.stays: frozenset[str] = frozenset()

    def take(self, feeds: list[Feeds]) -> None:
        """Keep the inputs.

        Raises:
            DataError: there are none, and the mode needs some.
        """
        if self.task.mode.needs_data and not feeds:
            raise DataError(NO_DATA.format(self.task.mode.name))
        self.feeds = feeds

    def build(self, left: Collection[str]) -> onnx.ModelProto:
        """Return the quantized model as the source describes itself, with these nodes in float."""
        made = self.make(left)
        restore.restore(made, self.source.proto, self.prepared, ports=self.same_ports)
        return made

    @property
    def same_ports(self) -> bool:
        """Whether inputs and outputs have the types of the source."""
        return True

    def find(self) -> Found:
        """Build the model; with limits, with as few layers in float as they need."""
        judge = self.task.judge
        if judge is None or not judge.failures(Model(self.build(self.fixed))):
            return self.found(frozenset())
        return self.searched(judge)

    def searched(self, judge: Judge) -> Found:
        """Return the model with as few layers in float as limits need that do not hold without.

        Raises:
            GateError: they do not hold with every layer in float.
        """
        from onnxprune.methods.quantization.search import search

        names = [layer.name for layer in self.layers if layer.operator not in layers.MOVES]
        outcome = search(self.build, [name for name in names if name not in self.fixed], self.fixed, judge)
        outcome.require()
        return self.found(outcome.left, outcome.alone)

    def found(self, left: Collection[str], alone: dict[str, float] | None = None) -> Found:
        """Return what was found: the model with these nodes in float besides the fixed ones."""
        proto = self.build({*self.fixed, *left})
        stays = {*left, *self.stays}
        shown = tuple(
            replace(layer, quantized=layer.name not in stays, cost_db=(alone or {}).get(layer.name))
            for layer in self.layers
        )
        return Found(proto, shown, self.settings(), tuple(self.warnings))

    def settings(self) -> dict[str, object]:
        """Return the choices that were made for this machine and model."""
        return {"mode": self.task.mode.name, "bits": weight_bits(self.options, self.task.mode.name)}

    def watched(self, found: Found) -> tuple[Layer, ...]:
        """Return the layers with the noise at the output of each."""
        if not self.feeds:
            return found.layers
        few = layers.watched_feeds(self.feeds)
        noise = layers.noise(self.proto, self.readable(found), list(found.layers), few, self.threads)
        native.release()
        return tuple(replace(layer, sqnr_db=noise.get(layer.name)) for layer in found.layers)

    def readable(self, found: Found) -> onnx.ModelProto:
        """Return a model with the same values as the one found, in which they can be looked at."""
        return found.proto

    def _formed(self) -> set[str]:
        """Bring the working copy into the form of the mode; return the nodes that stay float by wish."""
        proto, source, options = self.proto, self.source.proto, self.options
        if opset_of(proto) > opset_of(source):
            self.warnings.append(f"the opset was raised from {opset_of(source)} to {opset_of(proto)}")
        if self.bodies:
            self.prepared.names.update(inside.name_bodies(proto.graph))
        blocked = layers.chosen_by_name(proto, options.skip, options.only, options.op_block_list)

        def wanted(name: str) -> bool:
            return name not in blocked

        self.form(wanted, blocked)
        if self.bodies:
            inside.prepare_bodies(proto.graph, wanted)
        native.declare_types(proto)
        native.release()
        return blocked

    def _layers(self) -> list[Layer]:
        """Return the layers that the mode would quantize."""
        found = layers.candidates(self.proto, self.operators(), self.stored_only)
        inner, float_inside = inside.layers_inside(self.proto.graph)
        if not self.task.mode.without_layers:
            self.warnings += inside.told(self.task.mode.name, [] if self.bodies else inner, float_inside)
        return [layer for layer in (*found, *(inner if self.bodies else ())) if layer.name not in self.fixed]


def work_of(mode: Mode) -> type[Work]:
    """Return the class that does the work of a mode."""
    file, name = mode.home
    return cast("type[Work]", getattr(importlib.import_module(f"onnxprune.methods.quantization.modes.{file}"), name))
