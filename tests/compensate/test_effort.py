"""How much is spent on gradient steps: words and times, walks that go on, stop, and resume after an interruption."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from onnxprune.compensate.effort import Effort
from onnxprune.compensate.long_walk import LongWalk, Pace, outlook
from onnxprune.compensate.slopes import Judged
from onnxprune.compensate.snapshot import Snapshot
from onnxprune.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("2h", 7200.0), ("1h30m", 5400.0), ("0.5m", 30.0)]
)
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert Effort.of(text) == Effort("time", seconds)


@pytest.mark.parametrize("text", ["", "fast", "30", "m", "-3m", "0s", "1000h", "2d", "30 m"])
def test_what_is_no_effort_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="effort"):
        Effort.of(text)


@dataclass
class Bowl:
    """|w - target|^2, with noise on the gradient; may go wrong for some weights."""

    weights: dict[str, np.ndarray] = field(
        default_factory=lambda: {"m": np.ones((4, 6), np.float32), "v": np.ones(5, np.float32)}
    )
    wrong: float = np.inf
    calls: int = 0
    dies_at: int = 0

    @property
    def matrices(self) -> dict[str, tuple[int, int, int]]:
        return {"m": (1, 4, 6)}

    def mean(
        self, weights: dict[str, np.ndarray], feeds: list[dict[str, np.ndarray]], share: float
    ) -> list[np.ndarray]:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        return [2 * (w - 3) + feeds[0]["noise"][: w.size].reshape(w.shape) for w in weights.values()]

    def held_out(self, weights: dict[str, np.ndarray]) -> Judged:
        value = float(sum(np.square(w - 3).sum() for w in weights.values()))
        value = float("nan") if value < self.wrong and np.isfinite(self.wrong) else value
        return Judged(value, value)


class Noise:
    def step(self, generator: np.random.Generator) -> list[dict[str, np.ndarray]]:
        return [{"noise": 0.1 * generator.standard_normal(24).astype(np.float32)}]

    def skip(self, steps: int) -> None:
        pass


def test_rounds_go_on_while_they_gain_and_the_best_is_kept() -> None:
    found = LongWalk(Bowl(), Noise(), Pace(steps=40, rounds=4, rate=0.05)).run()
    assert found.taken > 40 and found.after < 0.01 * found.before
    assert Bowl().held_out(found.weights).aim == pytest.approx(found.after)
    assert found.after == min(loss for _, loss in found.curve)


def test_the_clock_ends_a_walk() -> None:
    found = LongWalk(Bowl(), Noise(), Pace(seconds=0.3, rate=0.05)).run()
    assert found.after < found.before and found.taken > 3


def test_zeros_stay_zero() -> None:
    start = Bowl()
    start.weights["m"][:, ::2] = 0
    zeros = {"m": start.weights["m"] == 0}
    found = LongWalk(start, Noise(), Pace(steps=30, rounds=1, rate=0.05), zeros).run()
    assert not found.weights["m"][:, ::2].any() and found.weights["m"][:, 1::2].all()


def test_a_loss_that_is_no_number_lowers_the_rate_and_then_gives_up_with_the_best_so_far() -> None:
    found = LongWalk(Bowl(wrong=20.0), Noise(), Pace(steps=40, rounds=4, rate=0.2)).run()
    assert found.notes[0].endswith("a rate of 0.05") and "given up" in found.notes[-1]
    assert 20 <= found.after < found.before


@pytest.mark.parametrize("dies_at", [1, 33, 61])
def test_an_interrupted_walk_goes_on_to_the_same_end(
    tmp_path: Path, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.compensate.long_walk.WRITTEN", 0.0)
    monkeypatch.setattr("onnxprune.compensate.long_walk.COST", 0.0)
    monkeypatch.setattr("onnxprune.compensate.long_walk.GAIN", 0.0)
    pace, snapshot = Pace(steps=20, rounds=3, rate=0.02), Snapshot(tmp_path / "run.state", ("a", "b"))
    whole = LongWalk(Bowl(), Noise(), pace).run()
    assert whole.taken == 260
    with pytest.raises(KeyboardInterrupt):
        LongWalk(Bowl(dies_at=dies_at), Noise(), pace, snapshot=snapshot).run()
    rest = Bowl()
    again = LongWalk(rest, Noise(), pace, snapshot=snapshot).run()
    assert rest.calls == 260 - (dies_at - 1)
    assert again.curve == whole.curve and again.after == whole.after
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)


def test_a_state_of_another_run_or_no_state_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    Snapshot(path, ("a",)).write({}, {"w0": np.zeros(2)})
    with pytest.raises(UsageError, match="another run"):
        Snapshot(path, ("b",)).read()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UsageError, match="another run"):
        Snapshot(path, ("a",)).read()
    assert [item.name for item in tmp_path.iterdir()] == ["run.state"]


class Uphill(Bowl):
    """A loss that every step makes larger."""

    def held_out(self, weights: dict[str, np.ndarray]) -> Judged:
        value = 1.0 + float(
            sum(np.abs(w - w0).sum() for w, w0 in zip(weights.values(), self.weights.values(), strict=True))
        )
        return Judged(value, 1.0)


def test_a_time_that_brings_nothing_is_spent_more_and_more_slowly_and_to_its_end() -> None:
    start = time.monotonic()
    found = LongWalk(Uphill(), Noise(), Pace(seconds=0.6, rate=0.2)).run()
    assert found.after == found.before == 1.0 and found.steps == 0 and time.monotonic() - start >= 0.6
    assert [note.rpartition(" ")[2] for note in found.notes] == ["0.05", "0.013", "0.0031"]
    assert all("no gain on held-out samples" in note for note in found.notes)


@dataclass
class Moved(Bowl):
    """The bowl, so much lower; what is inside leads away all the time."""

    lower: float = 0.0
    inside: float = 0.0

    def held_out(self, weights: dict[str, np.ndarray]) -> Judged:
        aim = super().held_out(weights).aim - self.lower
        self.inside += 1000
        return Judged(aim, aim + self.inside)


@pytest.mark.parametrize("lower", [0.0, 10.0, 1e4])
def test_a_walk_whose_looks_get_better_is_not_astray_however_low_the_loss_is(lower: float) -> None:
    found = LongWalk(Moved(lower=lower), Noise(), Pace(steps=40, rounds=1, rate=0.05)).run()
    assert not found.notes and found.taken == 40 and found.steps == 40


def test_nothing_is_done_about_no_distance() -> None:
    class Same(Bowl):
        def held_out(self, weights: dict[str, np.ndarray]) -> Judged:
            return Judged(0.0, 0.0)

    found = LongWalk(Same(), Noise(), Pace(steps=40, rounds=2)).run()
    assert (found.taken, found.steps, found.notes) == (0, 0, ())


def test_what_is_inside_counts_less_once_it_has_shown_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.compensate.long_walk.HINTED", 5)
    shares: list[float] = []

    class Inside(Bowl):
        def mean(
            self, weights: dict[str, np.ndarray], feeds: list[dict[str, np.ndarray]], share: float
        ) -> list[np.ndarray]:
            shares.append(share)
            return super().mean(weights, feeds, share)

        def held_out(self, weights: dict[str, np.ndarray]) -> Judged:
            aim = super().held_out(weights).aim
            return Judged(aim, 101 * aim)

    LongWalk(Inside(), Noise(), Pace(steps=8, rounds=1, rate=0.05)).run()
    assert shares == pytest.approx([0.3] * 5 + [0.01] * 3)


@pytest.mark.parametrize(
    ("aim", "whole", "share"),
    [(1.0, 1.5, 1.0), (1.0, 3.0, 1.0), (1.0, 5.0, 0.5), (0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (float("nan"), 1.0, 1.0)],
)
def test_helpers_count_no_more_than_so_many_times_what_is_aimed_at(aim: float, whole: float, share: float) -> None:
    assert Judged(aim, whole).help(2.0) == share


def test_the_outlook_tells_gains_from_none() -> None:
    falling = [(n, 1.0 / n**0.5) for n in (25, 50, 100, 200, 400)]
    assert "from 0.05 to about 0.0354" in outlook(1.0, falling)
    assert "next to nothing" in outlook(1.0, [(n, 0.5) for n in (25, 50, 100, 200)])
    assert "no gain" in outlook(1.0, [(25, 1.5), (50, 2.0)])
