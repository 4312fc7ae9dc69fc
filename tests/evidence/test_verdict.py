"""Figures become a verdict that says first what decided, and what helps."""

from __future__ import annotations

import pytest

from onnxprune.evidence.limits import GateLimits
from onnxprune.evidence.parity import Parity
from onnxprune.evidence.verdict import HELP, Samples, Verdict, advice, judge

HELD_OUT = Samples("held-out", 32)


def figures(cosine: float = 0.999, agreement: float | None = None, **more: object) -> Parity:
    return Parity(cosine, 30.0, 0.1, agreement, **more)  # type: ignore[arg-type]


def test_a_model_that_is_near_on_held_out_samples_is_good() -> None:
    found = judge({"logits": figures(agreement=0.98)}, HELD_OUT)
    assert found.status == "good" and "32 held-out samples" in found.sentence and "98.0%" in found.sentence


@pytest.mark.parametrize(
    ("far", "said"),
    [
        (figures(agreement=0.77), "77.0%"),
        (figures(cosine=0.94), "0.9400"),
        (figures(centred_cosine=0.6), "0.6000"),
        (figures(kind="labels", agreement=0.5), "50.0%"),
    ],
)
def test_a_model_that_is_far_is_poor_whatever_was_asked(far: Parity, said: str) -> None:
    for samples in (HELD_OUT, Samples("all", 32), Samples("fitted", 32)):
        found = judge({"other": figures(), "y": far}, samples)
        assert found.status == "poor" and said in found.reasons[0] and "'y'" in found.reasons[0]


def test_of_ids_only_the_agreement_counts() -> None:
    ids = figures(cosine=0.6, kind="labels", agreement=0.97)
    found = judge({"ids": ids}, HELD_OUT)
    assert found.status == "good" and "97.0% agree" in found.sentence and "cosine" not in found.sentence
    limits = GateLimits(min_cosine=0.9, min_sqnr=25)
    assert not limits.failures({"ids": ids, "y": figures()}, None)
    assert limits.failures({"ids": ids}, None), "where there is nothing else, the user's limit is about the ids"
    assert GateLimits(min_agreement=0.98).failures({"ids": ids, "y": figures()}, None)


@pytest.mark.parametrize("share", [(0.0, 0.2), (0.2, 0.0), (0.2, 0.2)])
def test_values_that_are_not_finite_fail_on_whatever_inputs(share: tuple[float, float]) -> None:
    for samples in (HELD_OUT, Samples("made-up", 3)):
        found = judge({"y": figures(not_finite=share)}, samples)
        assert found.status == "failed" and "NaN" in found.reasons[0]


def test_gates_that_were_not_kept_fail() -> None:
    found = judge({"y": figures()}, HELD_OUT, failures=["output 'y': SQNR 30.0 dB, below the limit 40"])
    assert found.status == "failed" and "SQNR" in found.sentence


def test_made_up_and_fitted_samples_judge_nothing_good() -> None:
    for samples in (Samples("made-up", 3), Samples("fitted", 64)):
        assert judge({"y": figures()}, samples).status == "not judged"
    assert judge({}, HELD_OUT).status == judge({"y": None}, HELD_OUT).status == "not judged"
    assert judge({"y": figures()}, HELD_OUT, unjudged=["'boxes' behind a sort"]).status == "not judged"


def test_what_the_original_gives_no_more_exactly_itself_is_not_called_far() -> None:
    far = {"y": Parity(0.9, 8.0, 0.1, None)}
    assert judge(far, HELD_OUT, noise={"y": Parity(0.9, 9.0, 0.1, None)}).status == "not judged"
    assert judge(far, HELD_OUT, noise={"y": Parity(1.0, 90.0, 0.0, None)}).status == "poor"
    assert judge({**far, "z": far["y"]}, HELD_OUT, noise={"y": far["y"]}).status == "poor"


def test_few_samples_are_said() -> None:
    assert "few samples" in judge({"y": figures()}, Samples("held-out", 15)).sentence
    assert "few samples" not in judge({"y": figures()}, Samples("held-out", 16)).sentence
    assert "1 held-out sample:" in judge({"y": figures()}, Samples("held-out", 1)).sentence


def test_states_are_told_and_do_not_decide() -> None:
    state = figures(cosine=0.5, kind="state")
    found = judge({"speech": figures(), "state": state}, HELD_OUT)
    assert found.status == "good" and "'state' cosine 0.5000" in found.sentence
    assert judge({"state": state}, HELD_OUT).status == "poor"


@pytest.mark.parametrize("command", HELP)
def test_advice_fits_the_command_and_never_says_train(command: str) -> None:
    said = advice(command, ["/a", "/b", "/c", "/d"])
    assert "train" not in said and "{" not in said and "/d" not in said
    assert ("/a" in said) == ("{layers}" in HELP[command])


def test_a_verdict_is_data() -> None:
    assert Verdict("poor", ("Far.",)).to_json() == {"status": "poor", "reasons": ["Far."]}
