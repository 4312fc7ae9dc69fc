"""What is asked of a prune, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from onnxprune import score
from onnxprune.allocate import MEASURES, SCOPES
from onnxprune.allocate.ratios import checked_ratios
from onnxprune.compensate.effort import Effort
from onnxprune.errors import UsageError
from onnxprune.methods.layer_options import check_effort, choose, named

DEFAULT_RATIO = 0.4
TARGETS = (*MEASURES, "latency")
MODES = ("none", "bias", "lstsq", "distil")
"""Nothing; mean and variance of every output channel; all weights; all weights, then gradient steps."""


@dataclass(frozen=True)
class PruneOptions:
    """Options of `prune`. At most one target; without one and without `ratios` it is `ratio=0.4`.

    ratio: share of the channels removed, [0, 1): of every group, or with scope "global" of all together.
    macs, params, size: share left of the multiply-accumulates, the parameters or the bytes of the file, (0, 1].
    latency: share left of the time of one sample, measured with onnxruntime on this machine, (0, 1].
    scope: "uniform" (every group loses the same share), "global" (one threshold on the scores of all groups) or
        "sensitivity" (errors measured on data against what a width saves; for targets other than a ratio). None: the
        last one where it can be, else the first.
    tie_blocks: groups of the same shape, as repeated blocks have them, keep the same number.
    score: how much a channel matters, a name out of `onnxprune.score.names()`; None: "lstsq" with data, "l2" without.
    align: lengths of axes that are left are multiples of it; None: 8 from 32 positions, 16 from 128; 1: off.
    min_channels: every group keeps at least so many.
    ratios: globs over node, tensor or group names -> ratio of the groups that are written there.
    skip: globs; what they name keeps all its weights. only: globs; only groups that are written there are pruned.
    exact_only: prune only groups whose removal equals zeroing.
    drop: residual branches that give nothing: names of the nodes that add them, or of what these make. They go first;
        without a target or ratio, nothing else does.
    depth: with data and a target, branches go as well as widths, where that loses less; None: no.
    cut_unfitted: with data, prune groups too that no refit can make up for: those read by operators that it does not
        know, and those in branches that no sample takes.
    heads, head_dim: make attention heads, or positions inside of them, prunable (None: heads where recognised).
    resize_io: globs over inputs and outputs that may shrink with the channels inside; both sides of a state that is
        fed back shrink together. states: pairs "OUTPUT=INPUT" of such states that their names do not show.
    input_shapes: graph input -> full shape, where dynamic sizes need to be fixed.
    compensate: what is done about what is lost, out of `MODES`; None: with data "distil" where the network is small
        enough for gradient steps, else "lstsq"; without data "none".
    steps: number of gradient steps; None: up to 600, by the size of the network.
    effort: how long gradient steps go on: "quick" (none), "default" (a fixed budget), "thorough" (as long as samples
        that are held out get better) or a time of the clock such as "30m". None: default.
    memory: bytes that statistics of the data may take, None leaves it to them.
    seed: of the scores that draw.
    """

    ratio: float | None = None
    macs: float | None = None
    params: float | None = None
    size: float | None = None
    latency: float | None = None
    scope: str | None = None
    tie_blocks: bool = False
    score: str | None = None
    align: int | None = None
    min_channels: int = 1
    ratios: Mapping[str, float] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    exact_only: bool = False
    drop: tuple[str, ...] = ()
    depth: bool | None = None
    cut_unfitted: bool = False
    heads: bool | None = None
    head_dim: bool | None = None
    resize_io: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    compensate: str | None = None
    steps: int | None = None
    effort: str | None = None
    memory: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("skip", "only", "drop", "resize_io", "states"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value or ()))
        object.__setattr__(self, "ratios", checked_ratios(self.ratios or {}, "ratios"))
        object.__setattr__(self, "input_shapes", dict(self.input_shapes or {}))
        self._check_target()
        if self.latency is not None and (self.resize_io or self.states):
            raise UsageError("latency is measured on the original's inputs, which change here; give macs instead.")
        if self.depth and self.target is None:
            raise UsageError("depth spends a budget: give macs, params, size or latency instead of a ratio.")
        if self.depth and (self.resize_io or self.states):
            raise UsageError("depth compares outputs with the original's, which change here: leave one of them out.")
        if self.scope is not None:
            choose("scope", self.scope, SCOPES)
        if self.scope == "sensitivity" and self.target is None:
            raise UsageError(
                "scope 'sensitivity' spends a budget: give macs, params, size or latency instead of a ratio."
            )
        if self.score is not None:
            score.find(self.score)
        if self.compensate is not None:
            choose("compensate", self.compensate, MODES)
        check_effort(self.effort, self.compensate, self.steps)
        for name in ("align", "min_channels", "memory", "steps"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} {value!r}: give a whole number from 1.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise UsageError(f"seed {self.seed!r}: give a whole number from 0.")

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return options by name.

        Raises:
            UsageError: an unknown name, or a value that makes no sense.
        """
        return cls(**named(cls, values))

    @property
    def target(self) -> tuple[str, float] | None:
        """Name and share of what is to be left; None where a ratio is asked for."""
        return next(((name, getattr(self, name)) for name in TARGETS if getattr(self, name) is not None), None)

    @property
    def level(self) -> float:
        """The ratio of groups that have none of their own."""
        return self.ratio if self.ratio is not None else 0.0 if self.ratios or self.drop else DEFAULT_RATIO

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON data."""
        default = asdict(type(self)())
        values = {name: value for name, value in asdict(self).items() if value != default[name]}
        values.pop("memory", None)
        if self.target is None and not self.ratios:
            values["ratio"] = self.level
        return values

    @property
    def wanted_effort(self) -> Effort | None:
        """The effort, read."""
        return None if self.effort is None else Effort.of(self.effort)

    def _check_target(self) -> None:
        given = [name for name in ("ratio", *TARGETS) if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are given; a prune has one target, leave the others out.")
        for name in given:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"{name} {value!r} is no number.")
            if name == "ratio" and not 0 <= value < 1:
                raise UsageError(f"ratio {value:g} is outside [0, 1); it is the share of the channels removed.")
            if name != "ratio" and not 0 < value <= 1:
                raise UsageError(f"{name} {value:g} is outside (0, 1]; it is the share of the original that is left.")
