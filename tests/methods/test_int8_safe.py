"""Static int8 by default: what stays float by the flow of data, what a guard and a clock keep float."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import NothingToPruneError
from onnxprune.evidence.latency import timing
from onnxprune.methods.quantization import between, guard, measure, race
from onnxprune.methods.quantization.integer import STATIC_OPERATORS
from onnxprune.methods.quantization.modes import static
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from tests import networks

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)
node = helper.make_node


def graph(nodes: list[onnx.NodeProto], last: str = "y", **stored: np.ndarray) -> onnx.ModelProto:
    """Return a model x (batch, 8, 16) -> `last`; nodes are named by their outputs."""
    for item in nodes:
        item.name = item.output[0]
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in stored.items()]
    x = helper.make_tensor_value_info("x", FLOAT, ["batch", 8, 16])
    return networks.model(nodes, [x], [helper.make_tensor_value_info(last, FLOAT, ["a", "b", "c"])], tensors)


def matrix(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape) / np.sqrt(shape[0])


def norm(x: str, y: str, form: str) -> list[onnx.NodeProto]:
    """Return a written-out normalisation over the last axis."""
    mean = [node("ReduceMean", [x], [f"{y}.m"], axes=[-1]), node("Sub", [x, f"{y}.m"], [f"{y}.c"])]
    square = {"mul": node("Mul", [f"{y}.c", f"{y}.c"], [f"{y}.q"]), "pow": node("Pow", [f"{y}.c", "two"], [f"{y}.q"])}
    rest = [
        square["mul" if form == "reciprocal" else form],
        node("ReduceMean", [f"{y}.q"], [f"{y}.v"], axes=[-1]),
        node("Add", [f"{y}.v", "eps"], [f"{y}.e"]),
        node("Sqrt", [f"{y}.e"], [f"{y}.s"]),
    ]
    if form == "reciprocal":
        last = [node("Reciprocal", [f"{y}.s"], [f"{y}.r"]), node("Mul", [f"{y}.c", f"{y}.r"], [f"{y}.n"])]
    else:
        last = [node("Div", [f"{y}.c", f"{y}.s"], [f"{y}.n"])]
    return [*mean, *rest, *last, node("Mul", [f"{y}.n", "gain"], [f"{y}.g"]), node("Add", [f"{y}.g", "shift"], [y])]


CONSTANTS = {"two": np.array(2.0), "eps": np.array(1e-5), "gain": np.ones(16), "shift": np.zeros(16)}


@pytest.mark.parametrize("form", ["mul", "pow", "reciprocal"])
def test_a_written_out_normalisation_stays_float_and_the_products_around_it_do_not(form: str) -> None:
    nodes = [node("MatMul", ["x", "w1"], ["a"]), *norm("a", "b", form), node("MatMul", ["b", "w2"], ["y"])]
    proto = graph(nodes, w1=matrix(16, 16), w2=matrix(16, 16), **CONSTANTS)
    left = between.kept_float(proto.graph, STATIC_OPERATORS, ())
    assert left == {item.name for item in nodes} - {"a", "y"}


@pytest.mark.parametrize("form", ["squares", "powers", "norm"])
def test_a_transform_whose_squares_are_rooted_or_logged_stays_float(form: str) -> None:
    spectrum = {
        "squares": [
            node("Split", ["a"], ["re", "im"], axis=2),
            node("Mul", ["re", "re"], ["re2"]),
            node("Mul", ["im", "im"], ["im2"]),
            node("Add", ["re2", "im2"], ["power"]),
            node("Sqrt", ["power"], ["b"]),
        ],
        "powers": [node("Pow", ["a", "two"], ["p"]), node("MatMul", ["p", "bank"], ["f"]), node("Log", ["f"], ["b"])],
        "norm": [node("ReduceL2", ["a"], ["b"], axes=[1], keepdims=1)],
    }[form]
    width = 8 if form == "squares" else 16
    nodes = [node("MatMul", ["x", "w1"], ["a"]), *spectrum, node("MatMul", ["b", "w2"], ["y"])]
    stored = {"w1": matrix(16, 16), "w2": matrix(width, 4), "bank": np.abs(matrix(16, 16)), "two": np.array(2.0)}
    left = between.kept_float(graph(nodes, **stored).graph, STATIC_OPERATORS, ())
    assert left == {item.name for item in nodes} - {"y"}


def test_what_lies_between_two_layers_is_quantized_and_what_only_leads_out_is_not() -> None:
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "w2"], ["b"]),
        node("Add", ["b", "r"], ["sum"]),
        node("MatMul", ["sum", "w3"], ["c"]),
        node("Softmax", ["c"], ["p"]),
        node("Mul", ["p", "p"], ["y"]),
    ]
    proto = graph(nodes, w1=matrix(16, 16), w2=matrix(16, 16), w3=matrix(16, 16))
    assert between.kept_float(proto.graph, STATIC_OPERATORS, ()) == {"p", "y"}
    assert "sum" in between.kept_float(proto.graph, STATIC_OPERATORS, {"b"})


def test_a_relu_that_became_a_range_still_holds_for_who_stays_float() -> None:
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "w2"], ["b"]),
        node("Sqrt", ["r"], ["root"]),
        node("Add", ["b", "root"], ["y"]),
    ]
    source = graph(nodes, w1=matrix(16, 16), w2=matrix(16, 16))
    feeds = [{"x": RNG.standard_normal((4, 8, 16)).astype(np.float32)}]
    made = quantize(source, QuantizeOptions(mode="static"), feeds=feeds, threads=1).model.proto
    outputs = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds[0])[0]
        for m in (source, made)
    ]
    assert np.isfinite(outputs[1]).all()
    assert np.square(outputs[0] - outputs[1]).sum() < 1e-2 * np.square(outputs[0]).sum()


def test_one_sample_in_four_is_held_out_and_few_are_not_divided() -> None:
    proto = networks.convnet()
    feeds = [{"x": np.arange(n * 432, dtype=np.float32).reshape(n, 3, 12, 12)} for n in (9, 11, 16)]
    fit, held = guard.split(proto, feeds)
    together = np.sort(np.concatenate([feed["x"][:, 0, 0, 0] for feed in (*fit, *held)]))
    assert sum(len(feed["x"]) for feed in held) == 9 and len(together) == 36
    assert np.array_equal(together, np.sort(np.concatenate([feed["x"][:, 0, 0, 0] for feed in feeds])))
    assert guard.split(proto, feeds[:2]) == (feeds[:2], [])


def test_expected_agreement_counts_narrow_margins_and_forgives_one_change() -> None:
    rows = RNG.standard_normal((400, 10))
    assert guard.agreement([(rows, rows)], -1) == pytest.approx(1, abs=1e-3)
    noisy = rows + 0.5 * RNG.standard_normal(rows.shape)
    share = guard.agreement([(rows, noisy)], -1)
    counted = float(np.mean(rows.argmax(axis=1) == noisy.argmax(axis=1)))
    assert share == pytest.approx(counted, abs=0.08) and share < 0.9


@pytest.mark.parametrize(("last", "good"), [("Sigmoid", True), ("Softmax", False), ("Identity", False)])
def test_a_sigmoid_of_its_own_is_no_class_among_others(last: str, good: bool) -> None:
    """Entries of a mask are near to each other: which is the largest is chance, where scores would be unsafe."""
    from onnxprune.graph.model import Model

    rng = np.random.default_rng(3)
    tail = [node("Gemm", ["h", "w", "b"], ["z"]), node(last, ["z"], ["y"])]
    head = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w0"], ["h"])]
    proto = graph(
        [*head, *tail], w=rng.standard_normal((8, 12)) / 3, b=np.zeros(12), w0=rng.standard_normal((128, 8)) / 11
    )
    del proto.graph.output[0].type.tensor_type.shape.dim[2]
    feeds = [{"x": rng.standard_normal((4, 8, 16)).astype(np.float32)} for _ in range(64)]
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    stored = next(tensor for tensor in other.graph.initializer if tensor.name == "w")
    noisy = numpy_helper.to_array(stored) + 0.02 * rng.standard_normal((8, 12))
    stored.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), "w"))
    watch = guard.Guard(Model(proto), feeds, threads=1)
    assert (not watch.failures(Model(other))) == good


def streaming() -> onnx.ModelProto:
    """y = state' summed, state' = 0.99 state + x: what a step gets wrong adds up."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "layer"),
        node("Mul", ["state", "keep"], ["kept"], "decay"),
        node("Add", ["kept", "a"], ["stateN"], "next"),
        node("ReduceMean", ["stateN"], ["y"], "out", axes=[-1]),
    ]
    ports = [helper.make_tensor_value_info(n, FLOAT, [1, 16]) for n in ("x", "state")]
    outs = [helper.make_tensor_value_info(n, FLOAT, shape) for n, shape in (("y", [1, 1]), ("stateN", [1, 16]))]
    stored = {"w": matrix(16, 16), "keep": np.array(0.99)}
    tensors = [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in stored.items()]
    return networks.model(nodes, ports, outs, tensors)


def test_a_state_is_fed_back_for_several_steps_and_its_error_grows() -> None:
    from onnxprune.graph.model import Model

    source = streaming()
    feeds = [{"x": np.ones((1, 16), np.float32), "state": np.zeros((1, 16), np.float32)} for _ in range(guard.STEPS)]
    watch = guard.Guard(Model(source), feeds, threads=1)
    assert watch._traced[2] == {"state": "stateN"}
    outputs = [row["y"].item() for row in watch._wanted]
    total, expected = 0.0, []
    step = float((np.ones(16) @ numpy_helper.to_array(source.graph.initializer[0])).mean())
    for _ in feeds:
        total = 0.99 * total + step
        expected.append(total)
    assert outputs == pytest.approx(expected, rel=1e-4)


def fragile() -> onnx.ModelProto:
    """The convnet, whose second layer has large weights for a channel that is always zero."""
    proto = networks.convnet()
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "embedding"
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    arrays = {name: numpy_helper.to_array(stored[name]).copy() for name in ("w1", "b1", "w2")}
    arrays["w1"][5], arrays["b1"][5], arrays["w2"][:, 5] = 0, -1, 1000
    for name, array in arrays.items():
        stored[name].CopyFrom(numpy_helper.from_array(array, name))
    return proto


FEEDS = [{"x": RNG.standard_normal((8, 3, 12, 12)).astype(np.float32)} for _ in range(8)]


def test_without_a_gate_layers_stay_float_until_held_out_samples_agree() -> None:
    source, options = fragile(), QuantizeOptions(mode="static", rounding="nearest", per_channel=False)
    free = quantize(source, QuantizeOptions(**{**options.to_dict(), "guard": False}), feeds=FEEDS, threads=1)
    kept = quantize(source, options, feeds=FEEDS, threads=1)
    from onnxprune.graph.model import Model

    _, held = guard.split(source, FEEDS)
    watch = guard.Guard(Model(source), held, threads=1)
    assert watch.failures(free.model) and not watch.failures(kept.model)
    computing = [layer for layer in kept.layers if layer.operator in ("Conv", "Gemm")]
    assert any(layer.quantized for layer in computing) and any(not layer.quantized for layer in computing)


def two_parts(last: str = "w2") -> onnx.ModelProto:
    """Two products with a softmax between them, which stays float; the second one reads `last`."""
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("Softmax", ["a"], ["p"], axis=-1),
        node("MatMul", ["p", last], ["y"]),
    ]
    return graph(nodes, w1=matrix(16, 16), w2=matrix(16, 16), wide=matrix(16, 32))


TOKENS = [{"x": RNG.standard_normal((4, 8, 16)).astype(np.float32)} for _ in range(8)]
MEASURED = QuantizeOptions(mode="static", measure=True, guard=False)


def paced(monkeypatch: pytest.MonkeyPatch, *shares: float) -> list[list[set[str]]]:
    """Let races end with these shares, one after the other; return the operators of the models that were run."""
    ran: list[list[set[str]]] = []
    ends = iter(shares)

    def run(*given: object, **_: object) -> race.RacePace:
        models = [item for item in given if isinstance(item, onnx.ModelProto)]
        ran.append([{item.op_type for item in model.graph.node} for model in models])
        share, once = next(ends), timing([1.0, 1.0, 1.0])
        return race.RacePace(once, timing([share] * 3), share, share, share, 0.97)

    monkeypatch.setattr(race, "run", run)
    return ran


def test_a_part_that_is_slower_stays_float(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = paced(monkeypatch, 1.1, 0.5, 0.8)
    made = quantize(two_parts("wide"), MEASURED, feeds=TOKENS, threads=1)
    assert [layer.quantized for layer in made.layers if layer.operator == "MatMul"].count(True) == 1
    assert len(ran) == 3 and ran[0][0] == {"MatMul"} and ran[0][1] == {"MatMul", "QuantizeLinear", "DequantizeLinear"}
    assert made.timings is not None and made.timings[1].median_ms == 0.8
    assert any("1 of 2 layers stay float" in text for text in made.warnings)


def test_a_whole_that_is_not_faster_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for ends in ((0.5, 0.5, 0.99), (1.1, 1.1)):
        paced(monkeypatch, *ends)
        with pytest.raises(NothingToPruneError, match="not faster than float"):
            quantize(two_parts("wide"), MEASURED, feeds=TOKENS, threads=1)


def test_parts_that_are_alike_are_measured_once_and_a_single_part_with_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alike = paced(monkeypatch, 0.5, 0.5)
    quantize(two_parts(), MEASURED, feeds=TOKENS, threads=1)
    single = paced(monkeypatch, 0.5)
    quantize(networks.convnet(), MEASURED, feeds=FEEDS, threads=1)
    assert len(alike) == 2 and len(single) == 1


def test_measuring_is_off_where_builds_must_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in measure.OFF:
        monkeypatch.delenv(name, raising=False)
    assert measure.wanted(None) and not measure.wanted(False)
    monkeypatch.setenv("CI", "true")
    assert not measure.wanted(None) and measure.wanted(True)


class Machine:
    """A clock, and two models that take what `costs` says, turn after turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: list[float], second: list[float]) -> None:
        self.now, self.costs, self.runs = 0.0, (first, second), [0, 0]
        opened = iter((0, 1))
        monkeypatch.setattr(race, "open_session", lambda *_, **__: Opened(self, next(opened)))
        monkeypatch.setattr(race.time, "thread_time", lambda: self.now)
        monkeypatch.setattr(race.time, "perf_counter", lambda: self.now)

    def spend(self, number: int) -> None:
        costs = self.costs[number]
        self.now += 1e-3 * costs[self.runs[number] % len(costs)]
        self.runs[number] += 1

    def race(self, longer: int = 1) -> race.RacePace:
        return race.run(onnx.ModelProto(), onnx.ModelProto(), {}, 1, longer=longer)


class Opened:
    """A session of that machine."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.native, self.machine, self.number = self, machine, number

    def run(self, *_: object) -> None:
        self.machine.spend(self.number)

    def fit(self, feed: object) -> object:
        return feed

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        return


def test_a_machine_that_changes_its_speed_makes_no_model_look_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models cost the same; every second round is run at half the speed, and one round of one is lucky."""
    speeds = [1.0, 1.0, 1.0, 2.0]
    lucky = [1.0, 1.0, 1.0, 2.0, 0.4, 1.0, 1.0, 2.0]
    pace = Machine(monkeypatch, speeds, lucky).race()
    assert pace.share == pytest.approx(1.0) and not pace.is_faster


def test_what_is_clear_is_decided_soon_and_what_is_not_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = Machine(monkeypatch, [1.0], [0.5, 0.6, 0.55])
    assert clear.race().is_faster and clear.now < race.SHORT + 0.01
    slower = Machine(monkeypatch, [1.0], [1.2, 1.3])
    assert slower.race().is_slower and slower.now < race.SHORT + 0.01
    noise = np.random.default_rng(1).permutation(np.linspace(0.85, 1.09, 12)).tolist()  # better by less than its spread
    unclear = Machine(monkeypatch, [1.0], noise)
    assert not unclear.race().is_faster and unclear.now >= race.LONG


def test_a_whole_is_not_given_up_after_some_bad_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    moody = Machine(monkeypatch, [1.0], [1.4] * 60 + [0.6] * 1000)
    assert moody.race(longer=2).is_faster and moody.now > 2 * race.SHORT


def test_models_of_microseconds_are_run_for_longer_than_a_mood_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    moody = Machine(monkeypatch, [0.1], [0.15] * 40 + [0.05] * 4000)
    assert moody.race(longer=2).is_faster and moody.now >= 2 * race.SHORT


def test_outliers_move_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    hit = [0.7, 0.7, 9.0, 0.7, 0.7]
    assert Machine(monkeypatch, [1.0], hit).race().is_faster
    assert not Machine(monkeypatch, [1.0, 1.0, 30.0, 1.0], [1.05]).race().is_faster


def test_a_model_that_takes_hardly_any_time_is_written_and_its_slow_parts_stay_float(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(static, "LEAST_MS", 5.0)
    paced(monkeypatch, 1.3, 0.5, 1.2)
    made = quantize(two_parts("wide"), MEASURED, feeds=TOKENS, threads=1)
    assert [layer.quantized for layer in made.layers if layer.operator == "MatMul"].count(True) == 1
