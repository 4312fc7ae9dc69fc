"""From figures to a verdict that a user understands: good, poor, failed, or not judged, with reasons and what helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnxprune.evidence.kinds import LABELS, STATE
from onnxprune.evidence.parity import Parity

LEAST_AGREEMENT = 0.9
"""Share of equal top-1 classes (or labels) below which a model is far from the original, whatever was asked."""
LEAST_COSINE = 0.95
"""The same for the cosine of what varies."""
MARGIN_DB = 3.0
"""Noise of the original itself within so much of a difference explains it."""
FEW_SAMPLES = 16
"""With fewer, a verdict says so: one sample is more than six points of agreement."""

Status = Literal["good", "poor", "failed", "not judged"]
Where = Literal["held-out", "all", "fitted", "made-up"]

WORDS: dict[str, str] = {
    "held-out": "held-out samples",
    "all": "samples",
    "fitted": "samples that the model was fitted to",
    "made-up": "made-up inputs",
}

HELP: dict[str, str] = {
    "prune": "remove a smaller share, give more data{layers}",
    "tune": "set a closer bound, give more data{layers}",
    "sparsify": "set fewer weights to zero, give more data{layers}",
    "factorize": "keep more parameters or more energy, give more data{layers}",
    "quantize": "set a gate, so that the layers that cost most stay float, try another calibration{layers}",
    "finetune": "give more data or more effort, start from a model that lost less",
    "apply": "apply the plan with data, or make a plan that removes less",
    "run": "ask less of the step that costs most, give more data{layers}",
    "validate": "compare the layers to see where the models part",
}


@dataclass(frozen=True)
class Verdict:
    """What is thought of a compressed model.

    reasons: sentences; the first one says what decided.
    """

    status: Status
    reasons: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        return f"Verdict: {self.status}. {' '.join(self.reasons)}".rstrip()

    def to_json(self) -> dict[str, object]:
        """Return the fields of the report."""
        return {"status": self.status, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Samples:
    """What figures were measured on.

    where: "held-out": the user's, and nothing was fitted to them. "all": the user's, where nothing was fitted at all.
        "fitted": the user's, that ranges, weights or scores were fitted to. "made-up": random.
    """

    where: Where
    count: int

    @property
    def words(self) -> str:
        """How a sentence names them."""
        words = WORDS[self.where]
        return f"{self.count} {words[:-1] if self.count == 1 and words.endswith('samples') else words}"


def judge(
    parity: Mapping[str, Parity | None],
    samples: Samples,
    *,
    command: str = "prune",
    worst_layers: Sequence[str] = (),
    failures: Sequence[str] = (),
    unjudged: Sequence[str] = (),
    noise: Mapping[str, Parity | None] | None = None,
) -> Verdict:
    """Return the verdict on the outputs of a compressed model.

    Args:
        parity: output -> figures against the original, None where the output could not be compared.
        command: what made the model, for the advice.
        worst_layers: layers with the largest error, worst first, which the advice names.
        failures: gates that were not kept, as phrases.
        unjudged: what could not be judged elsewhere (masked parity behind a step), as phrases.
        noise: output -> figures of the original against itself at another optimisation level: what differs from the
            original by no more than that is not called far from it.

    Returns:
        failed: an output holds NaN or infinities, or a gate was not kept. poor: agreement below 0.9 or cosine below
        0.95 on the user's samples. not judged: made-up or fitted samples, or outputs that cannot be compared.
    """
    broken = [_not_finite(name, figures) for name, figures in parity.items() if figures and not figures.is_finite]
    if broken or failures:
        return Verdict("failed", (*broken, *(f"{_capital(text).rstrip('.')}." for text in failures)))
    if not parity:
        return Verdict("not judged", ("No output was compared.",))
    if samples.where == "made-up":
        return Verdict("not judged", (_made_up(parity, samples),))
    own = _explained(parity, noise or {})
    unjudged = [*unjudged, *(f"'{name}', which the original itself gives no more exactly" for name in own)]
    notes = (*_few(samples), *_states(parity), *(f"Not judged: {text}." for text in unjudged))
    compared = {name: figures for name, figures in judged(parity).items() if figures is not None and name not in own}
    poor = [text for name, figures in compared.items() for text in shortfalls(name, figures)]
    if poor:
        found = f"Far from the original on {samples.words}: {'; '.join(poor)}."
        return Verdict("poor", (found, advice(command, worst_layers), *notes))
    missing = [name for name, figures in parity.items() if figures is None]
    if missing:
        return Verdict("not judged", (f"{_quoted(missing)} could not be compared.", *notes))
    said = f"Close to the original on {samples.words}: {_summary(judged(parity))}."
    if samples.where == "fitted":
        why = "Nothing was held out, so it may be further from the original on other inputs."
        return Verdict("not judged", (why, said, *notes))
    return Verdict("not judged" if unjudged else "good", (said, *notes))


def judged(parity: Mapping[str, Parity | None]) -> dict[str, Parity | None]:
    """Return the outputs that a verdict looks at: all but states that are fed back, unless there are only such."""
    kept = {name: figures for name, figures in parity.items() if figures is None or figures.kind != STATE}
    return kept or dict(parity)


def _explained(parity: Mapping[str, Parity | None], noise: Mapping[str, Parity | None]) -> list[str]:
    """Return the outputs that are far from the original, but no further than the original is from itself."""
    return [
        name
        for name, figures in judged(parity).items()
        if figures is not None
        and shortfalls(name, figures)
        and (own := noise.get(name)) is not None
        and own.sqnr_db <= figures.sqnr_db + MARGIN_DB
    ]


def shortfalls(name: str, figures: Parity) -> list[str]:
    """Return a phrase for each figure of an output that is far from the original."""
    found = []
    if figures.agreement is not None and figures.agreement < LEAST_AGREEMENT:
        found.append(f"'{name}' agrees in {figures.agreement:.1%} (at least {LEAST_AGREEMENT:.0%} is wanted)")
    value, words = varying(figures)
    if value < LEAST_COSINE and not _are_labels(figures):
        found.append(f"'{name}' has {words} {value:.4f} (at least {LEAST_COSINE:g} is wanted)")
    return found


def varying(figures: Parity) -> tuple[float, str]:
    """Return the cosine that counts, and its name: of what varies between samples, where there is such a thing."""
    if figures.centred_cosine is None:
        return figures.cosine, "cosine"
    if figures.cosine < figures.centred_cosine:
        return figures.cosine, "cosine"
    return figures.centred_cosine, "cosine about the mean"


def advice(command: str, worst_layers: Sequence[str] = ()) -> str:
    """Return what helps, as one sentence that fits the command."""
    layers = ", ".join(f"'{name}'" for name in list(worst_layers)[:3])
    return f"What helps: {HELP.get(command, HELP['run']).format(layers=f', skip {layers}' if layers else '')}."


def _not_finite(name: str, figures: Parity) -> str:
    before, after = figures.not_finite
    if before and after:
        return f"Output '{name}' has NaN or infinite values in both models, so they cannot be called equal."
    if after:
        return (
            f"Output '{name}' has NaN or infinite values ({after:.1%}) where the original has numbers: "
            "what overflows must stay in float32."
        )
    return f"Output '{name}' of the original has NaN or infinite values ({before:.1%}); nothing can be compared there."


def _made_up(parity: Mapping[str, Parity | None], samples: Samples) -> str:
    return (
        f"{_capital(samples.words)} show defects, not accuracy ({_summary(judged(parity))}); give data, a gate, "
        "or a function that evaluates."
    )


def _few(samples: Samples) -> tuple[str, ...]:
    return ("These are few samples: figures are rough.",) if samples.count < FEW_SAMPLES else ()


def _states(parity: Mapping[str, Parity | None]) -> tuple[str, ...]:
    states = {name: figures for name, figures in parity.items() if figures is not None and figures.kind == STATE}
    if not states or len(states) == len(parity):
        return ()
    name = min(states, key=lambda key: varying(states[key])[0])
    return (f"States that are fed back: {_words(name, states[name])} at worst.",)


def _summary(parity: Mapping[str, Parity | None]) -> str:
    known = {name: figures for name, figures in parity.items() if figures is not None}
    if not known:
        return "no output could be compared"
    agreeing = {name: figures.agreement for name, figures in known.items() if figures.agreement is not None}
    name = min(agreeing or known, key=lambda key: (agreeing.get(key, 1.0), varying(known[key])[0]))
    return _words(name, known[name])


def _are_labels(figures: Parity) -> bool:
    """Tell whether values are ids, of which only the agreement says something."""
    return figures.kind == LABELS and figures.agreement is not None


def _words(name: str, figures: Parity) -> str:
    if _are_labels(figures):
        return f"'{name}' {figures.agreement:.1%} agree"
    value, words = varying(figures)
    agreement = f", {figures.agreement:.1%} agree" if figures.agreement is not None else ""
    return f"'{name}' {words} {value:.4f}{agreement}"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
