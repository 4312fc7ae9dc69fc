"""A language model writes the text that it is refitted to, where nobody gives any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.channels.analyse import analyse
from onnxprune.errors import DataError
from onnxprune.evidence.inputs import random_inputs
from onnxprune.graph.model import Model
from onnxprune.graph.session import Session, open_session
from onnxprune.graph.trace import trace
from onnxprune.methods import own_text as room
from onnxprune.methods import synthetic as made_up_room
from onnxprune.methods.own_text import Writer, own_text, writer_of
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.synthetic import OWN_TEXT, WEAKER, synthetic
from onnxprune.statistics.feeds import Feed
from tests import decoders, plain

WORDS, LENGTH = 12, 20
SURE = 9.0
"""Score of the word that follows: e^9 times as likely as any other."""


def counting(length: int | str = LENGTH, *, looks_ahead: bool = False, extra: str = "") -> onnx.ModelProto:
    """A model of words that mostly count upwards: scores are a row of a table, passed through a layer.

    looks_ahead: a little of the last word is in all scores.
    """
    table = SURE * np.roll(np.eye(WORDS, dtype=np.float32), 1, axis=1)
    stored = {"table": table, "up": np.eye(WORDS, 24, dtype=np.float32), "down": np.eye(24, WORDS, dtype=np.float32)}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "up"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "down"], ["s"]),
    ]
    last = "s"
    if looks_ahead:
        nodes += [
            helper.make_node("ReduceMean", ["s"], ["m"], axes=[1]),
            helper.make_node("Add", ["s", "m"], ["a"]),
        ]
        last = "a"
    if extra:
        nodes += [helper.make_node("Mul", [last, extra], ["e"])]
        last = "e"
    nodes.append(helper.make_node("Identity", [last], ["scores"]))
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", length])]
    if extra:
        inputs.append(helper.make_tensor_value_info(extra, TensorProto.FLOAT, [1]))
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", length, WORDS])
    graph = helper.make_graph(
        nodes, "g", inputs, [output], [numpy_helper.from_array(array, name) for name, array in stored.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def opened(proto: onnx.ModelProto) -> tuple[Writer | None, Session, list[Feed] | None]:
    """Return how a model writes, and what."""
    view = analyse(onnxprune.load(proto)).view
    traced, session = trace(view, {}), open_session(Model(proto), threads=1)
    drawn = random_inputs(view, traced, session, seed=0)
    found = own_text(view, traced, session, drawn, {}, 16, 4)
    return writer_of(view, traced, session, drawn, {}), session, found


def written(proto: onnx.ModelProto) -> list[Feed]:
    """Return what a model writes."""
    found = opened(proto)[2]
    assert found is not None
    return found


@pytest.mark.parametrize("length", [LENGTH, "length"])
def test_text_follows_what_the_model_learned_and_begins_anywhere(length: int | str) -> None:
    (feed,) = written(counting(length))
    ids = feed["ids"]
    assert ids.shape == (16, LENGTH if length == LENGTH else room.LENGTH)
    follows = (ids[:, 1:] - ids[:, :-1]) % WORDS == 1
    assert follows[:, : room.CERTAIN].all() and follows.mean() > 0.98
    assert len(set(ids[:, 0])) > 4


@pytest.mark.parametrize("make", [decoders.packed, decoders.fused, decoders.written_out])
def test_a_decoder_with_caches_writes_with_them_what_it_would_write_without(make: object) -> None:
    """What is fed back belongs to the words before: step by step or all at once, the scores are the same."""
    proto = make()  # type: ignore[operator]
    writer, session, feeds = opened(proto)
    assert writer is not None and feeds is not None and writer.states
    assert set(writer.states) == {port.name for port in writer.past}
    if writer.by_steps:
        tokens = np.concatenate([feed["input_ids"] for feed in feeds], axis=1)
        assert len(feeds) == room.LENGTH - 1 and tokens.shape[1] == room.LENGTH - 1
        assert [feed[writer.past[0].name].shape[2] for feed in feeds] == list(range(room.LENGTH - 1))
        return
    (feed,) = feeds
    alone = replace(writer, states={})
    again = next(room._written(alone, session, np.random.default_rng([0, room.CERTAIN]), 16, room.LENGTH))
    assert np.array_equal(feed["input_ids"], again["input_ids"])
    assert all(feed[port.name].shape[2] == 0 for port in writer.past)


def test_text_is_the_same_every_time_and_other_for_another_seed() -> None:
    channels = analyse(onnxprune.load(counting()))
    one, two, other = (synthetic(channels, {}, seed, Runtime(1)) for seed in (0, 0, 1))
    assert one.synthetic and one.written
    assert one.sha256 == two.sha256 != other.sha256


@pytest.mark.parametrize(
    "proto",
    [
        pytest.param(counting(looks_ahead=True), id="scores know what follows"),
        pytest.param(counting(extra="gain"), id="another input that no text tells"),
    ],
)
def test_what_does_not_write_gets_random_inputs_as_ever(proto: onnx.ModelProto) -> None:
    assert opened(proto)[2] is None
    found = synthetic(analyse(onnxprune.load(proto)), {}, 0, Runtime(1))
    assert found.synthetic and not found.written


def test_what_would_take_too_long_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_MACS", 0)
    assert opened(counting())[2] is None


def test_a_length_that_the_user_gives_is_kept() -> None:
    found = synthetic(analyse(onnxprune.load(counting("length"))), {"ids": (2, 7)}, 0, Runtime(1))
    assert found.written and next(iter(found.batches(2)))["ids"].shape[1] == 7


@pytest.mark.parametrize(("looks_ahead", "said"), [(False, OWN_TEXT), (True, WEAKER)])
def test_a_prune_says_what_it_was_refitted_to(looks_ahead: bool, said: str) -> None:
    options = {"ratio": 0.25, "align": 1, "compensate": "lstsq"}
    result = plain.prune(counting(looks_ahead=looks_ahead), **options)
    assert said in result.warnings
    assert result.samples is not None and result.samples.written == (said == OWN_TEXT)


def test_there_are_fewer_samples_where_a_refit_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    channels = analyse(onnxprune.load(counting()))
    seconds = {256: 40.0, 128: 20.0, 64: 10.0, 32: 5.0, 16: 2.5}
    monkeypatch.setattr(made_up_room, "closed_form_seconds", lambda model, feed, samples: seconds[samples])
    assert synthetic(channels, {}, 0, Runtime(1)).samples == 256
    assert synthetic(channels, {}, 0, Runtime(1), seconds=12.0).samples == 64
    with pytest.raises(DataError, match="would take about 2 CPU seconds; give --data"):
        synthetic(channels, {}, 0, Runtime(1), seconds=1.0)


def test_a_refit_that_nobody_asked_for_is_left_out_where_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_up_room, "closed_form_seconds", lambda model, feed, samples: 99.0)
    model, options = onnxprune.load(counting()), PruneOptions(ratio=0.25, align=1)
    result = onnxprune.methods.prune.prune(model, options, synthetic=True)
    assert result.compensation is None
    assert any(w.startswith("not refitted: that would take about 99 CPU seconds") for w in result.warnings)
