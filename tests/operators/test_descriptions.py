"""What the description of an operator says is what onnxruntime computes: axes, matrices, counts, roles, gradients."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import defs

from onnxprune.channels.analyse import analyse
from onnxprune.compensate.gradient import gradient_graph
from onnxprune.compensate.readers import find_readers
from onnxprune.compensate.recurrent_pair import find_recurrent
from onnxprune.compensate.weights import Weights
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.operators.call import Call
from onnxprune.operators.operator import MICROSOFT, Contraction, Operator, describe, operator_of, operators
from onnxprune.score.readings import find_readings
from tests.operators.nodes import CONVOLUTIONS, COUNTED, LAYERS, PRODUCTS, RECURRENT, Array, Case

TYPES = {(case.domain, case.op_type) for case in LAYERS}


def test_every_operator_that_is_refitted_is_tried_here() -> None:
    assert {(o.domain, o.op_type) for o in operators() if o.layout or o.contracts or o.trained or o.bias} == TYPES


def test_an_operator_is_described_once() -> None:
    with pytest.raises(ValueError, match="Conv is described twice"):
        describe([Operator("Conv")])


def permuted(array: Array, axis: int, order: Array) -> Array:
    return np.take(array, order, axis=axis)


@pytest.mark.parametrize("case", [c for c in LAYERS if not c.operator.gates], ids=str)
def test_positions_meet_and_are_given_along_the_described_axes(case: Case) -> None:
    """Reordering what meets changes nothing; reordering what is written reorders the output."""
    arrays = case.arrays()
    base = case.run(arrays)
    for met in case.operator.contractions(case.attributes):
        if met.weight not in case.stored:
            continue
        rng = np.random.default_rng(3)
        if met.groups == 1:
            order = rng.permutation(arrays[met.weight].shape[met.reads])
            turned = {
                **arrays,
                met.data: permuted(arrays[met.data], met.data_axis, order),
                met.weight: permuted(arrays[met.weight], met.reads, order),
            }
            np.testing.assert_allclose(case.run(turned), base, atol=1e-5)  # sums in another order
            order = rng.permutation(arrays[met.weight].shape[met.writes])
            turned = {**arrays, met.weight: permuted(arrays[met.weight], met.writes, order)}
            if case.operator.bias in arrays:
                turned[case.operator.bias] = permuted(arrays[case.operator.bias], 0, order)
            np.testing.assert_allclose(case.run(turned), permuted(base, met.output_axis, order), atol=1e-5)
        else:
            assert arrays[met.data].shape[met.data_axis] % met.groups == 0
            assert base.shape[met.output_axis] % met.groups == 0


@pytest.mark.parametrize("case", RECURRENT, ids=str)
def test_gates_state_and_input_of_a_recurrence_lie_where_they_are_described(case: Case) -> None:
    arrays, gates = case.arrays(), case.operator.gates
    fresh, state = case.operator.contractions(case.attributes)
    base = case.run(arrays)
    hidden = base.shape[fresh.output_axis]
    rng = np.random.default_rng(4)
    order = rng.permutation(arrays[fresh.weight].shape[fresh.reads])
    turned = {**arrays, 0: permuted(arrays[0], fresh.data_axis, order)}
    turned[fresh.weight] = permuted(arrays[fresh.weight], fresh.reads, order)
    np.testing.assert_allclose(case.run(turned), base, atol=1e-5)
    order = rng.permutation(hidden)
    rows = np.concatenate([order + gate * hidden for gate in range(gates)])
    turned = {**arrays, 1: permuted(arrays[1], fresh.writes, rows), 2: permuted(arrays[2], state.writes, rows)}
    turned[2] = permuted(turned[2], state.reads, order)
    turned[3] = permuted(arrays[3], 1, np.concatenate([rows, rows + gates * hidden]))
    assert (state.data, state.data_axis) == (-1, fresh.output_axis)
    np.testing.assert_allclose(case.run(turned), permuted(base, fresh.output_axis, order), atol=1e-5)


@pytest.mark.parametrize("case", (*CONVOLUTIONS, *PRODUCTS), ids=str)
def test_the_matrix_times_the_rows_is_the_output(case: Case) -> None:
    arrays = case.arrays()
    y = case.run(arrays)
    met = next(m for m in case.operator.contractions(case.attributes) if m.weight in case.stored)
    weight = arrays[met.weight]
    layout = case.operator.layout(case.attributes, weight.shape, met.weight)
    rows = layout.inputs(arrays[met.data], y.shape)
    matrix = layout.matrix(weight)
    np.testing.assert_allclose(layout.weight(matrix, weight.shape), weight, rtol=1e-6)
    given = rows.rows(np.arange(rows.count)) @ matrix.transpose(0, 2, 1)
    if case.operator.bias in arrays:
        factor = case.attributes.get(case.operator.factor, 1.0)
        given = given + factor * arrays[case.operator.bias].reshape(len(matrix), 1, -1)
    np.testing.assert_allclose(given, layout.outputs(y), atol=1e-4)


def counted(case: Case, arrays: dict[int, Array], y: Array) -> int:
    shapes = tuple(arrays[i].shape if i in arrays else None for i in range(len(case.shapes)))
    return case.operator.macs(Call(case.op_type, case.attributes, shapes, (y.shape,)))


@pytest.mark.parametrize("case", (*CONVOLUTIONS, *PRODUCTS, *COUNTED), ids=str)
def test_with_ones_everywhere_the_outputs_count_the_products(case: Case) -> None:
    """Without bias and pads an output of ones is the number of products that it is the sum of."""
    scale = case.attributes.get("alpha", 1.0)
    arrays = {i: np.ones_like(a) for i, a in case.arrays().items()}
    if case.operator.bias in arrays:
        arrays[case.operator.bias][:] = 0
    y = case.run(arrays)
    assert counted(case, arrays, y) == round(float(y.sum()) / scale)


@pytest.mark.parametrize("case", RECURRENT, ids=str)
def test_a_recurrence_multiplies_every_gate_by_input_and_state(case: Case) -> None:
    (steps, batch, width), hidden = case.shapes[0], case.attributes["hidden_size"]
    expected = steps * batch * case.operator.gates * hidden * (width + hidden)
    assert counted(case, case.arrays(), np.zeros((steps, 1, batch, hidden))) == expected


@pytest.mark.parametrize("case", [c for c in LAYERS if not c.operator.underivable], ids=str)
def test_every_trained_input_has_the_gradient_of_finite_differences(case: Case) -> None:
    arrays = case.arrays()
    stored = set(case.stored)
    if case.operator.bias is not None and len(case.shapes) == 3:
        stored.add(case.operator.bias)
    y = case.run(arrays)
    model = Model(case.proto(arrays))
    x = {f"x{i}": a for i, a in arrays.items() if i not in case.stored}
    gradient = gradient_graph(model, {"y0": 1.0}, {"y0": y.shape}, x)
    assert set(gradient.weights) == {f"x{i}" for i in case.operator.trained if i in stored}
    session = open_session(gradient.proto, threads=1)
    rng = np.random.default_rng(5)
    feed = {**x, gradient.targets["y0"]: y + rng.normal(size=y.shape).astype(np.float32), **gradient.seed()}
    slopes = session.values(gradient.outputs(), {**feed, **gradient.weights})[1:]
    for (name, value), slope in zip(gradient.weights.items(), slopes, strict=True):
        way = rng.normal(size=value.shape).astype(np.float32)

        def loss(step: float, name=name, value=value, way=way) -> float:
            moved = {**gradient.weights, name: value + np.float32(step) * way}
            return float(session.values([gradient.loss], {**feed, **moved})[0][0])

        expected = (loss(1e-2) - loss(-1e-2)) / 2e-2
        # differences of float32 losses near 1
        assert float((slope.reshape(value.shape) * way).sum()) == pytest.approx(expected, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_refit_and_readings_find_what_is_described(case: Case) -> None:
    met: tuple[Contraction, ...] = case.operator.contractions(case.attributes)
    expected = {
        (f"x{m.data}" if m.data >= 0 else "y0", m.data_axis, f"x{m.weight}", m.reads % len(case.shapes[m.weight]))
        for m in met
        if m.weight in case.stored and m.groups == 1
    }
    found = find_readings(case.view())
    assert {(r.tensor, r.axis, r.weight, r.weight_axis) for r in found} == expected
    weights = Weights(Model(case.proto(case.arrays())))
    if case.operator.gates:
        (layer,) = find_recurrent(weights, weights, lambda *_: None)
        assert layer.node.op_type == case.op_type
    else:
        (reader,) = find_readers(weights)
        assert (reader.x, reader.weight_index) in {(f"x{m.data}", m.weight) for m in met}


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_the_channel_rule_gives_the_axes_of_a_weight_their_roles(case: Case) -> None:
    """What the rule calls `reads` and `writes` is what the description says."""
    state = analyse(Model(case.proto(case.arrays()))).state
    for met in case.operator.contractions(case.attributes):
        if met.weight in case.stored and met.groups == 1:
            rank = len(case.shapes[met.weight])
            assert state.roles[f"x{met.weight}", met.reads % rank] == "reads"
            assert state.roles[f"x{met.weight}", met.writes % rank] == "writes"


FORMULAS = (
    Case("NhwcFusedConv", ((2, 5, 6, 4), (6, 4, 3, 2)), domain=MICROSOFT),
    Case("MatMulNBits", ((2, 3, 32), (5, 1, 16), (5, 1)), domain=MICROSOFT, attributes={"N": 5, "K": 32}),
)
OUTPUTS = {"NhwcFusedConv": (2, 3, 5, 6), "MatMulNBits": (2, 3, 5)}
PRODUCTS_OF = {"NhwcFusedConv": 2 * 3 * 5 * 6 * 4 * 3 * 2, "MatMulNBits": 2 * 3 * 5 * 32}


@pytest.mark.parametrize("case", FORMULAS, ids=str)
def test_what_cannot_be_run_with_ones_counts_its_index_equation(case: Case) -> None:
    call = Call(case.op_type, case.attributes, tuple(case.shapes), (OUTPUTS[case.op_type],))
    assert case.operator.macs(call) == PRODUCTS_OF[case.op_type]


@pytest.mark.parametrize("operator", [o for o in operators() if o.packed], ids=lambda o: o.op_type)
def test_a_weight_of_integers_is_one_of_integers_for_onnx(operator: Operator) -> None:
    if operator.domain:
        assert operator_of(Case("QLinearConv", ())).packed == operator.packed
        return
    inputs = defs.get_schema(operator.op_type, 21).inputs
    weight, packed = inputs[operator.packed.weight], operator.packed
    assert "tensor(int8)" in weight.types
    assert "point" in inputs[packed.zero_point].name.replace("_", "")
    assert packed.scale is None or "scale" in inputs[packed.scale].name
