"""Which branches go, and how much is left for widths to save: whole choices are fitted and compared.

Each branch alone is dropped and what is left refitted in closed form; the error of the outputs for each share of the
target that it saves puts branches in order. Then the first none, one, two, .. of that order go, widths save the rest,
everything is refitted, and the choice whose outputs are nearest on samples that nothing was fitted to stays.
Source: blocks instead of widths, judged by what a linear repair recovers: Wang and Wu, CVPR 2023, Practical Network
Acceleration with Tiny Sets (PRACTISE).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

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
from onnxprune.methods.latency_target import TOLERANCE, time_both
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.refit_parts import refit
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import look
from onnxprune.methods.substitutes import goal_left, likely_substitutes
from onnxprune.methods.unfitted import unfitted
from onnxprune.statistics.data import Data

FALLBACKS = 2
"""So many choices with more branches follow the best one."""
WORSE_IN_A_ROW = 2
"""So many choices in a row that are worse than the best end the search."""


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

    def run(self) -> tuple[list[tuple[str, ...]], list[str]]:
        """Return the names of the branches that go, and what is to be said of it.

        Behind the best choice stand those with more branches: what is predicted for widths may not hold when measured.

        Raises:
            NothingToPruneError: no choice reaches the target.
        """
        order = self.order()
        best: tuple[float, tuple[str, ...]] | None = None
        refused: NothingToPruneError | None = None
        worse = 0
        for count in range(len(order) + 1):
            names = tuple(order[:count])
            if count and self.share(names) < self.goal * (1 - TOLERANCE) and best is not None:
                break
            self.progress(f"trying {count} of {len(order)} branches")
            try:
                error = self._error(names)
            except NothingToPruneError as given:
                refused = given
                continue
            self.errors[names] = error
            worse = 0 if best is None or error < best[0] else worse + 1
            best = (error, names) if not worse or best is None else best
            if worse == WORSE_IN_A_ROW:
                break
        if best is None:
            raise refused or NothingToPruneError("no choice of branches and widths reaches the target.")
        more = [tuple(order[:count]) for count in range(len(best[1]) + 1, len(order) + 1)]
        return [best[1], *more[:FALLBACKS]], [self._note(order, best[1])]

    @property
    def target(self) -> str:
        """What is to be saved."""
        return self.options.target[0] if self.options.target else "macs"

    @property
    def goal(self) -> float:
        """The share of it that is to be left."""
        return self.options.target[1] if self.options.target else 1.0

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
        return parts(self.model, self.data, len(self.free))

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

    def order(self) -> list[str]:
        """Return names of branches, first those that lose least for what they save."""
        prices = {}
        for number, name in enumerate(self.free, 1):
            self.progress(f"measuring branch {number} of {len(self.free)}")
            saved = 1 - self._predicted((name,))
            if saved > 0:
                prices[name] = self._fitted((name,), thin=False) / saved
        return sorted(prices, key=lambda name: prices[name])

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

    def _note(self, order: Sequence[str], names: tuple[str, ...]) -> str:
        tried = ", ".join(f"{len(n)}: {error:.3g}" for n, error in sorted(self.errors.items(), key=lambda i: len(i[0])))
        what = f"{len(names)} of {len(order)} branches that may go were dropped" if names else "no branch was dropped"
        return f"{what}; error of the outputs at the target, by branches dropped: {tried}"


def _named(node: Node, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (node.name, *node.outputs) if name)
