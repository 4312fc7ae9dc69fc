"""The cases themselves: valid, run by onnxruntime, the same every time."""

import pytest

from tests.micro import CASES


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_valid_and_drawn_the_same_way_twice(name: str) -> None:
    assert CASES[name].model().SerializeToString() == CASES[name].model().SerializeToString()


def test_names_are_free_of_clashes_and_each_opset_range_is_covered() -> None:
    versions = {case.options.get("opset", 17) for case in CASES.values()}
    assert {7, 9, 10, 11, 12, 13, 14, 17, 18, 20, 21, 22, 23, 24, 26} <= versions
