"""Known-wrong rules must be caught by the micro cases: an oracle that accepts them would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.channels.context import Context
from onnxprune.channels.registry import MICROSOFT, RULES, Rule
from onnxprune.errors import DataError, ModelError, NothingToPruneError
from onnxprune.evidence.compare import open_reference
from onnxprune.evidence.masked import masked_parity
from onnxprune.evidence.oracle import masked_model
from onnxprune.graph.model import load
from tests import plain
from tests.micro import CASES
from tests.oracle import parity

Change = Callable[..., Any]


def altered(key: tuple[str, str], **changes: Change) -> Rule:
    """Return the rule of an operator with methods of its context replaced: change(method, *arguments)."""
    original = RULES[key]

    def mutant(ctx: Context) -> None:
        for name, change in changes.items():
            method = getattr(ctx, name)
            setattr(ctx, name, lambda *args, _m=method, _c=change, **more: _c(_m, *args, **more))
        original(ctx)

    return mutant


def backwards(method, axes, *rest, **more):
    return method([ids[::-1] for ids in axes], *rest, **more)


def shifted(method, axes, *rest, **more):
    return method([np.roll(ids, 1) for ids in axes], *rest, **more)


def swapped(method, flat, factors):
    return method(flat, factors[::-1])


def nothing(method, *_, **__):
    return None


def reshape_by_position(ctx: Context) -> None:
    """Reshape as if it were elementwise: axes of equal size at equal places are the same, the rest is free."""
    data, shape = ctx.axes(0), ctx.output_shape()
    ctx.set([data[i] if i < len(data) and len(data[i]) == size else ctx.fresh(size) for i, size in enumerate(shape)])


def gather_in_order(ctx: Context) -> None:
    """Gather as if its indices were 0, 1, 2, .."""
    ctx.set(ctx.axes(0))


MUTANTS: dict[str, tuple[tuple[str, str], Callable[[], Rule], str]] = {
    "Concat in the wrong order": (("", "Concat"), lambda: altered(("", "Concat"), set=backwards), "branches/"),
    "Split with wrong offsets": (("", "Split"), lambda: altered(("", "Split"), set=shifted), "branches/split"),
    "Slice with wrong offsets": (("", "Slice"), lambda: altered(("", "Slice"), set=shifted), "branches/c2f_by_slice"),
    "Reshape by columns": (("", "Reshape"), lambda: altered(("", "Reshape"), product=swapped), "flatten/conv_reshape"),
    "Flatten by columns": (("", "Flatten"), lambda: altered(("", "Flatten"), product=swapped), "flatten/conv_flatten"),
    "Reshape as elementwise": (("", "Reshape"), lambda: reshape_by_position, "grouped/shuffle"),
    "Gather without its indices": (("", "Gather"), lambda: gather_in_order, "grouped/shuffle_by_gather"),
    "depthwise multiplier": (("", "Conv"), lambda: altered(("", "Conv"), product=swapped), "grouped/depthwise_mult"),
    "Conv without groups": (("", "Conv"), lambda: altered(("", "Conv"), product=nothing), "grouped/grouped_conv"),
    "Conv that does not contract": (("", "Conv"), lambda: altered(("", "Conv"), tie=nothing), "flatten/conv_flatten"),
    "MatMul that does not contract": (("", "MatMul"), lambda: altered(("", "MatMul"), tie=nothing), "flatten/mlp"),
    "Add without ties": (("", "Add"), lambda: altered(("", "Add"), tie=nothing), "branches/add_of"),
    "DepthToSpace in the other mode": (
        ("", "DepthToSpace"),
        lambda: altered(("", "DepthToSpace"), product=swapped),
        "pixels/pixel_shuffle",
    ),
    "LSTM with hidden units outside": (("", "LSTM"), lambda: altered(("", "LSTM"), product=swapped), "recurrent/lstm"),
    "LayerNormalization called exact": (
        ("", "LayerNormalization"),
        lambda: altered(("", "LayerNormalization"), normalise=nothing),
        "residual/vit",
    ),
    "unknown operator as elementwise": ((MICROSOFT, "Inverse"), lambda: RULES["", "Relu"], "storage/operator_without"),
    "ConvTranspose without groups": (
        ("", "ConvTranspose"),
        lambda: altered(("", "ConvTranspose"), product=swapped),
        "grouped/grouped_conv_transpose",
    ),
}


def noticed(channels: onnxprune.Channels) -> bool:
    """Tell whether the record of the rules shows an axis that nothing was said about, which is pinned then."""
    defects = channels.state.defects
    assert all("says nothing about" in text for text in defects), "a mutant must be wrong, not crash: a crash only pins"
    return bool(defects)


def caught(name: str) -> bool:
    """Tell whether a case fails: it does not run, or computes something else than the zeroed original."""
    original = CASES[name].model()
    try:
        result = plain.prune(original, ratio=0.5, align=1, exact_only=True, score="random", seed=3)
    except NothingToPruneError:
        return noticed(onnxprune.analyse(original))
    if noticed(result.channels):
        return True
    try:
        return not parity(original, result.model.proto, result.plan.removed, ["disabled"]) < CASES[name].tolerance
    except Exception:
        return True


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, make, prefix = MUTANTS[name]
    cases = [case for case in CASES if case.startswith(prefix) and CASES[case].exact and CASES[case].runs]
    assert cases
    assert not any(caught(case) for case in cases), "the right rule passes"
    monkeypatch.setitem(RULES, key, make())
    assert any(caught(case) for case in cases)


def refused(name: str) -> bool:
    """Tell whether the package's own masked parity finds a case wrong, or the case does not run."""
    model = load(CASES[name].model())
    try:
        result = plain.prune(model, ratio=0.5, align=1, exact_only=True, score="random", seed=3)
    except NothingToPruneError:
        return noticed(onnxprune.analyse(model))
    if noticed(result.channels):
        return True
    try:
        masked = masked_model(result.channels, result.keep)
        reference = open_reference(model, threads=1, samples=2)
        found = masked_parity(reference, masked, result.model, result.channels.view, threads=1)
    except (DataError, ModelError):
        return True
    assert not found.unsure
    return bool(found.failed)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_rule_is_refused_by_the_verification_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, make, prefix = MUTANTS[name]
    cases = [case for case in CASES if case.startswith(prefix) and CASES[case].exact and CASES[case].runs]
    assert not any(refused(case) for case in cases), "the right rule passes"
    monkeypatch.setitem(RULES, key, make())
    assert any(refused(case) for case in cases)
