"""Weights and activations in 8 bits, ranges from data: what stays float is found by a clock, a guard or limits."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import onnx

from onnxprune.errors import NothingToPruneError
from onnxprune.evidence.latency import Timing
from onnxprune.graph.embedded import embedded
from onnxprune.graph.model import Model
from onnxprune.methods.quantization import between, bias, guard, layers, measure, race
from onnxprune.methods.quantization.search import guarded
from onnxprune.methods.quantization.static_work import StaticWork
from onnxprune.methods.quantization.work import Feeds, Found

NOT_FASTER = (
    "static int8 is not faster than float on this machine, so there is nothing to gain but a smaller file; take "
    "--no-measure for that, or --mode weight-only or fp16."
)
FEW = (
    "no layer goes back to float by itself: ranges come from {} samples; from {} on a quarter of them is held out to "
    "tell; give more, or a gate"
)
ALL_FLOAT = (
    "no layer can be quantized without changing what the model gives on held-out samples; take --mode fp16, or "
    "--no-guard to have int8 in spite of that."
)


LEAST_MS = 0.02
"""Models that run in less are written whatever the clock says: nobody waits for them."""
WHOLE = 2
"""The whole model may be run so much longer than a part: it decides whether anything is written."""


class Static(StaticWork):
    """Keeps parts float that gain no time, then the layers that a guard or limits need."""

    def take(self, feeds: list[Feeds]) -> None:
        """Keep the inputs, apart from those that the guard judges on.

        Raises:
            DataError: there are none.
        """
        super().take(feeds)
        self.held: list[Feeds] = []
        if not self.options.guard or not self.fits or self.task.judge is not None:
            return
        self.feeds, self.held = guard.split(self.source.proto, feeds)
        if not self.held:
            number = guard.samples(self.source.proto, feeds)
            self.warnings.append(FEW.format(number, guard.LEAST_SAMPLES))

    def find(self) -> Found:
        """Build the model.

        Raises:
            NothingToPruneError: it would be no faster, or no layer may change.
        """
        measured = self.fits and measure.wanted(self.options.measure)
        if measured:
            self._leave_slow_parts()
        found = self._kept()
        return replace(found, timings=self._faster(found.proto)) if measured else found

    def _kept(self) -> Found:
        """Return the model that keeps the limits, or does what the original does on held-out samples."""
        judge = self.task.judge
        limits = judge or (self._guard if self.held else None)
        if limits is None or not limits.failures(Model(self.build(self.fixed))):
            return self.found(frozenset())
        if self.fit(needed=True) and not limits.failures(Model(self.build(self.fixed))):
            return self.found(frozenset())
        return self._guarded() if judge is None else self.searched(judge)

    def _leave_slow_parts(self) -> None:
        """Leave parts in float that are not faster in int8 on this machine."""
        quantized = self.build(self.fixed) if self.options.format == "qdq" else self.as_qdq(self.proto, ())
        slow = measure.slow_layers(self.proto, quantized, self.fixed, self._sample, self.threads)
        names = [layer.name for layer in self.layers if layer.operator in layers.COMPUTE]
        if slow >= {*names}:
            raise NothingToPruneError(NOT_FASTER)
        self.stays = frozenset(name for name in names if name in slow)
        self.fixed |= slow
        if slow:
            self.fixed |= between.kept_float(self.proto.graph, self.operators(), self.fixed)
        if self.stays:
            self.warnings.append(
                f"{len(self.stays)} of {len(names)} layers stay float: measured on this machine, their parts of the "
                "network are no faster in 8 bits (--no-measure quantizes them)"
            )

    def _faster(self, proto: onnx.ModelProto) -> tuple[Timing, Timing]:
        """Return how long the source and a quantized model take.

        Raises:
            NothingToPruneError: it is not clear that the quantized one takes less.
        """
        pace = race.run(embedded(self.source), proto, self._sample, self.threads, longer=WHOLE)
        if not pace.is_faster and pace.before.median_ms >= LEAST_MS:
            raise NothingToPruneError(f"{NOT_FASTER} It took {pace.share:.2f} of the float model's time.")
        return pace.before, pace.after

    @property
    def _sample(self) -> Feeds:
        return guard.one_sample(self.source.proto, self.feeds[0])

    @cached_property
    def _guard(self) -> guard.Guard:
        return guard.Guard(self.source, self.held, self.threads)

    def _guarded(self) -> Found:
        """Keep layers float until held-out samples agree with the original."""
        names = {layer.name for layer in self.layers if layer.operator in layers.COMPUTE} - self.fixed

        def ranking() -> list[str]:
            few = layers.watched_feeds(self.feeds)
            quantized = self.as_qdq(self.fitted.put(self.proto, ()), ())
            noise = bias.own_noise(self.proto, quantized, few, self.threads)
            return sorted(names, key=lambda name: (-noise.get(name, 0.0), name))

        outcome = guarded(self.build, ranking, self.fixed, self._guard)
        if outcome.left >= names:
            raise NothingToPruneError(ALL_FLOAT)
        if outcome.left:
            self.warnings.append(
                f"{len(outcome.left)} of {len(names)} layers stay float: in 8 bits they change what the model gives on "
                "held-out samples"
            )
        return self.found(outcome.left)
