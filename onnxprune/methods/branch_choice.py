"""Which branches go, and how much is left for widths to save: choices that are worth a trial.

Branches go one by one, always the one whose loss, with everything that is left refitted in closed form, adds least to
the error of the outputs for each share of the target that it saves: what one branch costs depends on those that went
before. Three choices come out: widths alone, branches alone, and of those in between, where widths save the rest, the
one that is nearest in the closed form on samples that nothing was fitted to.
Source: blocks instead of widths, judged by what a linear repair recovers: Wang and Wu, CVPR 2023, Practical Network
Acceleration with Tiny Sets (PRACTISE). A price that was found with fewer branches gone is taken for a lower bound:
Minoux, 1978, Accelerated greedy algorithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from onnxprune.allocate.measures import MEASURES
from onnxprune.channels.analyse import analyse
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import NothingToPruneError
from onnxprune.graph.branches import Branch, find_branches
from onnxprune.graph.cost import cost
from onnxprune.graph.drop import Shortened, without
from onnxprune.graph.functions import inlined
from onnxprune.graph.model import Model
from onnxprune.graph.trace import Trace, trace
from onnxprune.graph.view import Node, View
from onnxprune.methods.choice import choose
from onnxprune.methods.depth import Whole, border_left, plan_of, sizes_left, whole_of
from onnxprune.methods.distances import Distance, parts
from onnxprune.methods.finalists import Choices
from onnxprune.methods.latency_target import CLOSE_ENOUGH, time_both
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.refit_parts import refit
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import look
from onnxprune.methods.substitutes import goal_left, likely_substitutes
from onnxprune.methods.unfitted import unfitted
from onnxprune.statistics.data import Data

REFITS = 3
"""About so many refits are needed for each branch on the way."""


@dataclass(eq=False)
class BranchChoice:
    """A search over branches and widths for one target.

    data: of the user, with which everything is fitted and compared.
    """

    model: Model
    options: PruneOptions
    data: Data
    runtime: Runtime
    progress: Callable[[str], None]
    errors: dict[tuple[str, ...], float] = field(default_factory=dict)

    def run(self) -> Choices:
        """Return the choices that are worth a trial: widths alone, branches alone, and the nearest in between."""
        path = self.path()
        counts = [*range(len(path) + 1)]
        for count in counts[1:-1]:
            self.progress(f"trying widths with {count} of {len(path)} branches")
            with suppress(NothingToPruneError):
                self.errors[path[:count]] = self._error(path[:count])
        between = sorted(self.errors, key=lambda names: self.errors[names])
        contenders = [(), *between[:1], *([path] if path else [])]
        more = [path[:count] for count in reversed(counts) if path[:count] not in contenders]
        return Choices(contenders, more, (self._note(path),) if path else ())

    @property
    def target(self) -> str:
        """What is to be saved."""
        return self.options.budget[0] if self.options.budget else "macs"

    @property
    def goal(self) -> float:
        """The share of it that is to be left."""
        return self.options.budget[1] if self.options.budget else 1.0

    @cached_property
    def view(self) -> View:
        """The model."""
        return View(inlined(self.model))

    @cached_property
    def trace(self) -> Trace:
        """Its sizes."""
        return trace(self.view, dict(self.options.input_shapes))

    @cached_property
    def free(self) -> dict[str, Branch]:
        """Branches that may go by themselves: inputs and outputs of the model stay unless they are named."""
        found = find_branches(self.view, self.trace)
        return {b.name: b for b in found if b.reason is None and not (b.inputs or b.outputs) and self._may_go(b)}

    def _may_go(self, branch: Branch) -> bool:
        if any(_named(node, self.options.skip) for node in branch.nodes):
            return False
        stored = [n for n in branch.nodes if any(k in self.view.parameters and k in n.inputs[1:] for k in n.inputs)]
        return not self.options.only or all(_named(node, self.options.only) for node in stored)

    @cached_property
    def parts(self) -> tuple[Data, Data]:
        """Samples to fit to, and samples to compare on."""
        return parts(self.model, self.data, REFITS * len(self.free))

    @cached_property
    def distance(self) -> Distance:
        """Tells how near outputs are to the original's."""
        return Distance(self.model, self.parts[1], self.runtime)

    def _short(self, names: Sequence[str]) -> Shortened | None:
        named = (*self.options.drop, *names)
        if not named:
            return None
        every = {branch.name: branch for branch in find_branches(self.view, self.trace)}
        every |= {branch.end.outputs[0]: branch for branch in every.values()}
        return without(self.view, self.trace, [every[name] for name in dict.fromkeys(named)])

    def path(self) -> tuple[str, ...]:
        """Return names of branches in the order in which they go, so many that the target is reached if any do."""
        prices: dict[str, float] = dict.fromkeys(self.free, 0.0)
        gone: tuple[str, ...] = ()
        error = 0.0
        while prices and self.share(gone) > self.goal + CLOSE_ENOUGH:
            name, error = self._cheapest(gone, error, prices)
            if not np.isfinite(prices.pop(name)):
                break
            gone = (*gone, name)
        return gone

    def _cheapest(self, gone: tuple[str, ...], error: float, prices: dict[str, float]) -> tuple[str, float]:
        """Return the branch that costs least for what it saves, and the error without it; prices become those of now.

        Args:
            error: of the outputs without the branches that are gone.
        """
        known: dict[str, float] = {}
        left = self._predicted(gone)
        while True:
            name = min(prices, key=lambda name: prices[name])
            if name in known or not np.isfinite(prices[name]):
                return name, known.get(name, error)
            self.progress(f"measuring branch {name}, {len(gone)} are gone")
            saved = left - self._predicted((*gone, name))
            known[name] = self._fitted((*gone, name), thin=False) if saved > 0 else error
            prices[name] = max(known[name] - error, 0.0) / saved if saved > 0 else np.inf

    def _predicted(self, names: Sequence[str]) -> float:
        """Return the share of the target that is left without branches; of a latency as predicted."""
        short = self._short(names)
        if short is None:
            return 1.0
        view = View(short.model)
        traced = trace(view, sizes_left(short, self.options.input_shapes))
        if self.target == "latency":
            return cost(view, traced.shapes).seconds / cost(self.view, self.trace.shapes).seconds
        return MEASURES[self.target](Whole(view, traced), whole_of(short))({})

    def share(self, names: Sequence[str]) -> float:
        """Return the share of the target that is left without branches; of a latency as measured."""
        short = self._short(names)
        if short is None or self.target != "latency":
            return self._predicted(names)
        return time_both(self.model, short.model, self.goal, self.parts[0], self.runtime).share

    def _error(self, names: Sequence[str]) -> float:
        return self._fitted(names, thin=True)

    def _fitted(self, names: Sequence[str], *, thin: bool) -> float:
        """Return how far the outputs are without branches, everything refitted; `thin`: widths save the rest."""
        fit, _ = self.parts
        short = self._short(names)
        options = replace(self.options, drop=(), depth=None)
        shapes = sizes_left(short, options.input_shapes)
        channels = analyse(short.model if short else self.model, shapes, options.heads, options.head_dim)
        keep: Keep = {}
        instead = likely_substitutes(short, fit, options.substitute, self.runtime)
        if thin:
            options = goal_left(options, short, instead)
            seen = look(channels.view, fit, self.runtime)
            left = unfitted(channels, seen).reasons if not options.cut_unfitted else {}
            activity = seen.activity(self.runtime)
            keep, _, _ = choose(
                channels, options, None, activity, self.runtime, lambda text: None, left, whole_of(short), quick=True
            )
        plan, border = plan_of(short, channels, keep), border_left(short, channels, keep)
        cut = rewrite(channels, keep)
        result = PruneResult(cut, plan, channels, keep, border=border, short=short, substitutes=instead)
        return self.distance.of(refit(result, fit, "lstsq", self.runtime).model)

    def _note(self, path: Sequence[str]) -> str:
        tried = ", ".join(f"{len(names)}: {error:.3g}" for names, error in self.errors.items())
        found = f"; error of the outputs with widths at the target, by branches dropped: {tried}" if tried else ""
        return f"{len(path)} of {len(self.free)} branches that may go were looked at{found}"


def _named(node: Node, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (node.name, *node.outputs) if name)
