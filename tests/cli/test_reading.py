"""Every command tells what was mended while it read a model, and writes the mended one."""

import json
from pathlib import Path

import onnx
import pytest

from tests import networks
from tests.cli.conftest import Run


def nameless() -> onnx.ModelProto:
    """Return the convnet whose graph has no name."""
    proto = networks.convnet()
    proto.graph.ClearField("name")
    return proto


def shapeless() -> onnx.ModelProto:
    """Return the convnet whose output has no shape."""
    proto = networks.convnet()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def old() -> onnx.ModelProto:
    """Return the convnet in IR version 3, with weights that are no inputs."""
    proto = networks.convnet()
    proto.ir_version = 3
    return proto


FLAWS = {"no name": nameless, "no shape was declared": shapeless, "IR version 3": old}
COMMANDS = (
    ("inspect",),
    ("prune", "--ratio", 0.5, "--compensate", "none"),
    ("sparsify", "--sparsity", 0.5),
    ("factorize", "--params", 0.6),
    ("quantize", "--mode", "fp16"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_command_tells_what_was_mended_and_writes_it(
    run: Run, tmp_path: Path, flaw: str, words: tuple[object, ...]
) -> None:
    path = networks.store(FLAWS[flaw](), tmp_path / "net.onnx")
    before = path.read_bytes()
    out = [] if words[0] == "inspect" else ["-o", tmp_path / "out.onnx"]
    result = run(words[0], path, *words[1:], *out, "--json")
    assert result.exit_code == 0, result.stderr
    warnings = json.loads(result.stdout)["warnings"]
    assert sum(flaw in text and text.startswith("mended while reading") for text in warnings) == 1, warnings
    assert path.read_bytes() == before
    if out:
        made = onnx.load(tmp_path / "out.onnx")
        onnx.checker.check_model(made)
        assert made.graph.name and made.ir_version > 3 and made.graph.output[0].type.tensor_type.HasField("shape")
