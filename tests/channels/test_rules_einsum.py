"""Einsum: parsing, broadcasting, diagonals and contractions."""

import pytest

from onnxprune.channels.rules.einsum import Equation, parse
from tests.channels.halving import halve
from tests.micro.build import Net


def test_an_equation_without_an_arrow_keeps_the_letters_that_occur_once() -> None:
    assert parse("bi, io", [2, 2]) == Equation(("bi", "io"), "bo")


def test_axes_of_an_ellipsis_are_aligned_from_the_right() -> None:
    assert parse("...i,...ij->...j", [4, 3]) == Equation(("210i", "0ij"), "210j")


@pytest.mark.parametrize(("equation", "ranks"), [("ij,jk->ik", [2]), ("ij->i", [3]), ("ijk->i", [2])])
def test_letters_that_do_not_fit_are_refused(equation: str, ranks: list[int]) -> None:
    with pytest.raises(ValueError, match="operands"):
        parse(equation, ranks)


def stream(net: Net, size: int = 16) -> str:
    return net.linear(net.input("batch", 6, 8), 8, size)


@pytest.mark.parametrize("equation", ["bti,io->bto", "bti,io", "...i,io->...o", "b t i , i o -> b o t", "bti,oi->bto"])
def test_contracted_channels_go(equation: str) -> None:
    net = Net()
    weight = net.weight(12, 16) if "oi" in equation else net.weight(16, 12)
    y = net.Einsum(stream(net), weight, equation=equation)
    last_is_time = parse(equation, [3, 2]).result.endswith("t")
    net.output(net.linear(net.Relu(net.transpose(y, 0, 2, 1) if last_is_time else y), 12, 3))
    assert halve(net).share < 0.45


def test_two_activations_may_be_contracted_over_their_channels() -> None:
    net = Net()
    x = net.input("batch", 6, 8)
    scores = net.Einsum(net.linear(x, 8, 16), net.linear(x, 8, 16), equation="bti,bsi->bts")
    net.output(net.linear(scores, 6, 3))
    halved = halve(net)
    assert [group.exact for group in halved.channels.groups] == [True]


def test_a_diagonal_ties_both_axes() -> None:
    net = Net()
    gram = net.Einsum(*[stream(net)] * 2, equation="bti,btj->bij")
    net.output(net.linear(net.Einsum(gram, equation="bii->bi"), 16, 3))
    halved = halve(net)
    assert halved.shape("MatMul", 1) == [8, 8]


def test_heads_are_recognised() -> None:
    net = Net()
    y = stream(net)
    q, k, v = (net.reshape(net.linear(y, 16, 24), 0, 0, 4, 6) for _ in range(3))
    scores = net.Softmax(net.Einsum(q, k, equation="bihd,bjhd->bhij"), axis=-1)
    y = net.Einsum(scores, v, equation="bhij,bjhd->bihd")
    net.output(net.linear(net.reshape(y, 0, 0, 24), 24, 3))
    assert "head" in halve(net).kinds
