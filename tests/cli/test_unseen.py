"""A result that nothing ran is not written: the original must be seen to run, or --no-verify says that it need not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper, parser

from tests import networks

Run = Callable[..., Result]


def network(text: str, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    proto.graph.initializer.extend(networks.weights(**shapes))
    return proto


def short_table() -> onnx.ModelProto:
    """Positions that are computed from data lie behind the end of their table."""
    proto = network(
        """(int64[n, s] ids) => (float[n, s, 8] y) {
            p = Add(ids, far)
            e = Gather(table, p)
            h = MatMul(e, w)
            r = Relu(h)
            y = MatMul(r, v)
        }""",
        table=(4, 16), w=(16, 64), v=(64, 8),
    )  # fmt: skip
    proto.graph.initializer.append(numpy_helper.from_array(np.array(50, np.int64), "far"))
    return proto


def wrong_weight() -> onnx.ModelProto:
    """A convolution reads other channels than enter it, which only a run shows where shapes are declared."""
    proto = network(
        """(float[1, 3, 8, 8] x) => (float[1, 8, 8, 8] y) {
            a = Conv(x, w)
            b = Conv(a, v)
            y = Relu(b)
        }""",
        w=(32, 3, 1, 1), v=(8, 1, 1, 32),
    )  # fmt: skip
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1, 8, 8, 8]))
    return proto


def never_square() -> onnx.ModelProto:
    """An input is reshaped to two numbers of elements."""
    proto = network(
        """(float[n, 16] x) => (float[q, 4] y) {
            a = MatMul(x, w)
            r = Relu(a)
            b = MatMul(r, v)
            s = Reshape(b, five)
            t = Reshape(b, seven)
            z = ReduceSum(t)
            y = Add(s, z)
        }""",
        w=(16, 64), v=(64, 4),
    )  # fmt: skip
    targets = {"five": [5, 4], "seven": [7, 4]}
    proto.graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in targets.items())
    return proto


@pytest.mark.parametrize("make", [short_table, wrong_weight, never_square])
@pytest.mark.parametrize("command", [("prune", "--ratio", 0.5), ("quantize", "--mode", "fp16")])
def test_an_original_that_runs_nowhere_gives_nothing_but_without_verification(
    run: Run, tmp_path: Path, make: Callable[[], onnx.ModelProto], command: tuple[object, ...]
) -> None:
    source, target = networks.store(make(), tmp_path / "net.onnx"), tmp_path / "out.onnx"
    result = run(command[0], source, *command[1:], "-o", target)
    assert result.exit_code in (2, 4), result.stderr
    assert not target.exists() and len(result.stderr.splitlines()) == 1
    if command[0] == "prune" and result.exit_code == 2:
        assert "--no-verify" in result.stderr
        assert run(command[0], source, *command[1:], "-o", target, "--no-verify").exit_code == 0
        assert target.exists()


def test_at_the_only_size_that_runs_the_result_is_checked(run: Run, tmp_path: Path) -> None:
    proto = network(
        """(float[n, s, 16] x) => (float[n, s, 8] y) {
            p = Add(x, table)
            h = MatMul(p, w)
            r = Relu(h)
            y = MatMul(r, v)
        }""",
        table=(1, 9, 16), w=(16, 64), v=(64, 8),
    )  # fmt: skip
    source, target = networks.store(proto, tmp_path / "net.onnx"), tmp_path / "out.onnx"
    result = run(source, "--ratio", 0.5, "-o", target)
    assert result.exit_code == 0, result.stderr
    assert "It runs in onnxruntime, at [1, 9, 16]" in result.stdout + result.stderr
