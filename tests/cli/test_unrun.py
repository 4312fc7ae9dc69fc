"""A result that nothing ran is not written, unless it is asked for."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.errors import DataError, ModelError
from onnxprune.evidence import examine
from onnxprune.graph.model import load
from tests import networks
from tests.cli.conftest import Run, files


def text() -> onnx.ModelProto:
    """Return the convnet whose inputs are scaled by a number that comes as text."""
    return beside(helper.make_tensor_value_info("t", TensorProto.STRING, [1]), "Cast", ["t"], to=TensorProto.FLOAT)


def listed() -> onnx.ModelProto:
    """Return the convnet whose inputs are scaled by the first entry of a list."""
    proto = beside(helper.make_tensor_sequence_value_info("t", TensorProto.FLOAT, [1]), "SequenceAt", ["t", "first"])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int64), "first"))
    return proto


def beside(value: onnx.ValueInfoProto, operator: str, inputs: list[str], **attributes: int) -> onnx.ModelProto:
    """Return the convnet behind a Mul with what an operator makes of a second input."""
    proto = networks.convnet()
    proto.graph.input.append(value)
    proto.graph.value_info.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [1]))
    for number, node in enumerate(
        [helper.make_node(operator, inputs, ["s"], "made", **attributes), helper.make_node("Mul", ["x", "s"], ["xs"])]
    ):
        proto.graph.node.insert(number, node)
    proto.graph.node[2].input[0] = "xs"
    return proto


KINDS = {"Mystery": networks.custom, "'t' takes tensor(string)": text, "'t' takes seq": listed}
COMMANDS = (
    ("prune", "--ratio", 0.5),
    ("prune", "--ratio", 0.5, "--compensate", "none"),
    ("sparsify", "--sparsity", 0.5),
    ("factorize", "--params", 0.6),
    ("quantize", "--mode", "fp16"),
    ("quantize", "--mode", "weight-only", "--bits", 8),
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(map(str, words)))
@pytest.mark.parametrize("named", KINDS)
def test_no_command_writes_what_nothing_ran(run: Run, tmp_path: Path, named: str, words: tuple[object, ...]) -> None:
    path = networks.store(KINDS[named](), tmp_path / "net.onnx")
    result = run(words[0], path, *words[1:])
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.stderr
    assert named in result.stderr and files(tmp_path) == {"net.onnx"}


@pytest.mark.parametrize("named", KINDS)
def test_it_is_written_where_that_is_asked_for(run: Run, tmp_path: Path, named: str) -> None:
    path = networks.store(KINDS[named](), tmp_path / "net.onnx")
    plain = ("--ratio", 0.5, "--compensate", "none", "--no-verify")
    result = run("prune", path, *plain, "-o", tmp_path / "small.onnx", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["output"]["params"] < document["input"]["params"] and document["parity"] == {}
    assert document["verdict"]["status"] == "not judged"
    assert (tmp_path / "small.onnx").stat().st_size < path.stat().st_size


def test_python_verifies_like_the_command_line() -> None:
    with pytest.raises(ModelError, match=r"Mystery.*--no-verify"):
        onnxprune.prune(networks.custom(), ratio=0.5, compensate="none")
    with pytest.raises(DataError, match="cannot be drawn"):
        onnxprune.prune(listed(), ratio=0.5, compensate="none")
    assert onnxprune.prune(
        networks.custom(), ratio=0.5, compensate="none", run=onnxprune.Run(verify=False)
    ).plan.removed


def test_a_large_result_is_run_alone(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "LARGE_BYTES", 1000)
    result = run(model, "--ratio", 0.5, "--compensate", "none", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["parity"] == {}
    assert any("It runs in onnxruntime, at [1, 3, 12, 12]. Not compared" in t for t in document["verdicts"]), document
    assert load(model.with_name("net-pruned.onnx")).size_bytes < load(model).size_bytes


def test_a_large_result_that_does_not_run_is_not_written(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxprune.graph.session import Session

    plain = Session.run
    monkeypatch.setattr(examine, "LARGE_BYTES", 1000)

    def broken(self: Session, feeds: dict[str, np.ndarray]) -> object:
        if "pruned" in self.label:
            raise DataError("it stumbles.")
        return plain(self, feeds)

    monkeypatch.setattr(Session, "run", broken)
    result = run(model, "--ratio", 0.5, "--compensate", "none")
    assert result.exit_code == 1 and "it stumbles" in result.stderr and files(model.parent) == {"net.onnx"}
