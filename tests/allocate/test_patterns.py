"""Names, globs and ratio files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.allocate.name_patterns import Names, matching_groups, ratios_of_groups
from onnxprune.allocate.ratios import read_ratios
from onnxprune.channels.groups import Site
from onnxprune.errors import UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from tests.allocate.test_counts import group, site


def names_of() -> Names:
    """Two layers: /a/MatMul writes what /b/Gemm reads; b's weight arrives through a Transpose."""
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["h"], "/a/MatMul"),
        helper.make_node("Transpose", ["b.weight"], ["bt"], "/b/Transpose"),
        helper.make_node("MatMul", ["h", "bt"], ["y"], "/b/Gemm"),
    ]
    tensors = [numpy_helper.from_array(np.ones((4, 4), np.float32), n) for n in ("a.weight", "b.weight")]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy")
    model: onnx.ModelProto = helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors))
    middle = group("a.weight", site("a.weight", 4, axis=1), Site("b.weight", 1, np.arange(4)[:, None], "reads"))
    return Names(View(Model(model)), [middle])


@pytest.mark.parametrize("pattern", ["a.weight", "/a/*", "b.weight", "/b/Gemm", "*"])
def test_a_group_is_named_by_its_tensors_and_by_the_nodes_that_use_them(pattern):
    names = names_of()
    assert matching_groups(names, names.groups, [pattern], "skip") == {"a.weight"}


@pytest.mark.parametrize(("pattern", "found"), [("/a/*", {"a.weight"}), ("/b/*", set())])
def test_by_its_writers_it_is_not_named_by_its_readers(pattern, found):
    names = names_of()
    assert matching_groups(names, names.groups, [pattern], "only", roles=("writes",)) == found


def test_a_pattern_that_matches_nothing_names_what_is_close():
    names = names_of()
    with pytest.raises(UsageError, match=r"skip '/b/Gem' matches no node.*close names: /b/Gemm"):
        matching_groups(names, names.groups, ["/b/Gem"], "skip")


def test_the_first_pattern_that_means_a_group_gives_its_ratio():
    names = names_of()
    assert ratios_of_groups(names, names.groups, {"/b/*": 0.9, "/a/*": 0.25, "*": 0.5}) == {"a.weight": 0.25}


@pytest.mark.parametrize(("file", "text"), [("r.json", '{"/a/*": 0.25, "x": 0}'), ("r.yaml", "'/a/*': 0.25\nx: 0\n")])
def test_ratios_are_read_from_json_and_yaml(tmp_path, file, text):
    if file.endswith("yaml"):
        pytest.importorskip("yaml")
    (tmp_path / file).write_text(text)
    assert read_ratios(tmp_path / file) == {"/a/*": 0.25, "x": 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1.0}', "ratio 1.0"),
        ('{"a": "half"}', "ratio 'half'"),
        ('{"a": true}', "ratio True"),
        ("[1]", "give a table"),
        ('{"a": ', "is not JSON"),
    ],
)
def test_a_bad_ratio_file_is_refused_in_words(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_ratios(tmp_path / "r.json")


def test_a_missing_ratio_file_is_refused_in_words(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_ratios(tmp_path / "none.json")
