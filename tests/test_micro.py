"""Every micro case: what must go goes, and what is left computes what the zeroed original computes."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import NothingToPruneError
from onnxprune.evidence.oracle import masked_model
from tests import plain
from tests.micro import CASES, Case
from tests.micro.build import Net
from tests.oracle import is_dynamic, parity, random_inputs, relative_error, run, share_left

PRUNABLE = [case for case in CASES.values() if case.prunable]
EXACT = [case for case in PRUNABLE if case.exact]
ATTENTIONS = [case for case in EXACT if case.runs and case.name.startswith(("attention/", "fused/", "residual/"))]
LOCKED = [case for case in CASES.values() if case.reason]


def named(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def prune(proto: onnx.ModelProto, **options):
    return plain.prune(proto, ratio=0.5, align=1, **options)


@named(PRUNABLE)
def test_prunes_to_its_share_and_equals_the_original_with_norms_taken_over_what_stays(case: Case) -> None:
    original = case.model()
    before = original.SerializeToString(deterministic=True)
    result = prune(original)
    pruned = result.model.proto
    assert original.SerializeToString(deterministic=True) == before, "the given model was changed"
    assert result.plan.removed, "nothing was removed"
    assert share_left(original, pruned) <= case.share
    if not case.runs:
        return
    onnx.checker.check_model(pruned, full_check=True)
    masked = masked_model(result.channels, result.keep).proto
    for batch in (2, 3) if is_dynamic(original) else (1,):
        feeds = random_inputs(original, np.random.default_rng(batch), batch)
        pairs = zip(run(masked, feeds), run(pruned, feeds), strict=True)
        assert max(relative_error(a, b) for a, b in pairs) < case.tolerance


@named(EXACT)
def test_an_exact_prune_equals_the_original_with_zeroed_slices(case: Case) -> None:
    original = case.model()
    result = prune(original, exact_only=True)
    assert result.plan.removed, "nothing was removed"
    if case.runs:
        assert parity(original, result.model.proto, result.plan.removed) < case.tolerance


@named([case for case in PRUNABLE if not case.exact])
def test_what_normalises_over_its_channels_is_not_pruned_as_exact(case: Case) -> None:
    with pytest.raises(NothingToPruneError):
        prune(case.model(), exact_only=True)


@named([case for case in CASES.values() if not case.prunable])
def test_what_cannot_be_pruned_says_so(case: Case) -> None:
    with pytest.raises(NothingToPruneError):
        prune(case.model())


@pytest.mark.parametrize(
    "options", [{"heads": False, "head_dim": True}, {"heads": True, "head_dim": True}], ids=["dim", "both"]
)
@named(ATTENTIONS)
def test_positions_inside_heads_can_go_as_well(case: Case, options: dict[str, bool]) -> None:
    original = case.model()
    result = prune(original, exact_only=True, score="random", seed=1, **options)
    kinds = {group.kind for group in result.channels.groups if group.name in result.keep}
    assert result.plan.removed
    assert "head" not in kinds or options["heads"]
    assert parity(original, result.model.proto, result.plan.removed) < case.tolerance


@named(LOCKED)
def test_a_lock_gives_its_reason(case: Case) -> None:
    reasons = [lock.reason for lock in onnxprune.analyse(case.model()).locks]
    assert any(case.reason in reason for reason in reasons), reasons


@pytest.mark.parametrize(
    "name", ["flatten/conv_flatten_gemm", "residual/vit", "recurrent/lstm", "branches/c2f_by_split"]
)
def test_the_newest_opset_that_onnx_knows_is_pruned_though_onnxruntime_may_not_run_it(name: str) -> None:
    def draw(net: Net) -> None:
        CASES[name].draw(net)
        net.outputs = dict.fromkeys(net.outputs, ("any",) * 2 if "c2f" not in name else ("any",) * 4)

    newest = {"opset": onnx.defs.onnx_opset_version()}
    original = replace(CASES[name], draw=draw, options=newest, runs=False).model()
    assert share_left(original, prune(original).model.proto) <= CASES[name].share


def test_every_pattern_has_several_cases() -> None:
    counts: dict[str, int] = {}
    for name in CASES:
        pattern = name.split("/")[0]
        counts[pattern] = counts.get(pattern, 0) + 1
    assert len(counts) == 16
    assert min(counts.values()) >= 5, counts
