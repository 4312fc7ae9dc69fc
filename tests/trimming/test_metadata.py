"""Names of classes in the forms in which exporters keep them: read, and written back in the same form."""

from __future__ import annotations

import json

import onnx
import pytest

from onnxprune.errors import UsageError
from onnxprune.methods.trim import TrimOptions, trim
from tests.micro.build import Net
from tests.trimming.heads import features, linear

NAMES = ["cat", "dog", "big bird", "fish", "cow"]
LEFT = ["dog", "cow"]
FORMS = {
    "table of numbers": (repr(dict(enumerate(NAMES))), repr(dict(enumerate(LEFT)))),
    "table backwards": (repr(dict(reversed(list(enumerate(NAMES))))), repr(dict(enumerate(LEFT)))),
    "table of texts": (json.dumps({str(n): k for n, k in enumerate(NAMES)}), json.dumps({"0": "dog", "1": "cow"})),
    "counted from one": (json.dumps({str(n): k for n, k in enumerate(NAMES, 1)}), json.dumps({"1": "dog", "2": "cow"})),
    "numbers by name": (json.dumps({k: n for n, k in enumerate(NAMES)}), json.dumps({"dog": 0, "cow": 1})),
    "list": (json.dumps(NAMES), json.dumps(LEFT)),
    "list of Python": (repr(NAMES), repr(LEFT)),
    "records": (
        json.dumps([{"id": n, "name": k, "kind": "animal"} for n, k in enumerate(NAMES)]),
        json.dumps([{"id": n, "name": k, "kind": "animal"} for n, k in enumerate(LEFT)]),
    ),
    "records with numbers of their own": (
        json.dumps([{"id": 7 * n, "name": k} for n, k in enumerate(NAMES)]),
        json.dumps([{"id": 7, "name": "dog"}, {"id": 28, "name": "cow"}]),
    ),
    **{repr(mark): (mark.join(NAMES), mark.join(LEFT)) for mark in (",", ", ", ";", "\t", "\n", "\r\n")},
    "lines with an end": ("\n".join(NAMES) + "\n", "\n".join(LEFT) + "\n"),
    "characters": ("\n".join([",", ";", " ", "dog", "cow"]), "dog\ncow"),
}


def classifier(**metadata: str) -> onnx.ModelProto:
    net = Net()
    net.output(linear(net, features(net), len(NAMES)))
    model = net.model()
    onnx.helper.set_model_props(model, metadata)
    return model


def kept(model: onnx.ModelProto, spec: str = "dog,cow") -> dict[str, str]:
    name = model.graph.output[0].name
    result = trim(model, TrimOptions(keep={f"{name}:1": spec})).model.proto
    assert result.graph.output[0].type.tensor_type.shape.dim[1].dim_value == len(spec.split(","))
    return {entry.key: entry.value for entry in result.metadata_props}


@pytest.mark.parametrize("form", FORMS)
def test_names_are_read_and_written_in_their_form(form: str) -> None:
    before, after = FORMS[form]
    assert kept(classifier(names=before, stride="1,2,3,4,5")) == {"names": after, "stride": "1,2,3,4,5"}


def test_both_directions_of_a_table_follow() -> None:
    one, other = FORMS["table of texts"], FORMS["numbers by name"]
    found = kept(classifier(id2label=one[0], label2id=other[0], letters="a,b,c,d,e"))
    assert found == {"id2label": one[1], "label2id": other[1], "letters": "a,b,c,d,e"}


@pytest.mark.parametrize("value", ["{}", "[]", "7", json.dumps({"2": "cat", "3": "dog"}), json.dumps([{"id": 1}] * 5)])
def test_what_lists_no_names_is_no_list(value: str) -> None:
    with pytest.raises(UsageError, match="no label 'dog'"):
        kept(classifier(names=value))
