"""How many experts stay: as a number or a share, from three doors, and what makes no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner

import onnxprune
from onnxprune.cli.group import cli
from onnxprune.errors import UsageError
from onnxprune.evidence.dropped import masked_original
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from tests import mixtures
from tests.channels import test_rules_experts
from tests.micro.build import Net
from tests.oracle import random_inputs, relative_error, run


def fused(k: int = 2) -> onnx.ModelProto:
    return test_rules_experts.mixture(Net(), "silu", k=k).model()


def packed() -> onnx.ModelProto:
    return test_rules_experts.packed_mixture(Net(), 4, 32).model()


def written() -> onnx.ModelProto:
    return mixtures.mixture("scattered").model()


MODELS = {"MoE": fused, "QMoE": packed, "written out": written}


def _sizes(result: onnxprune.PruneResult) -> dict[str, tuple[int, int]]:
    """Return kind of the groups that lost something -> size, kept."""
    return {g.kind: (g.size, int(result.keep[g.name].sum())) for g in result.channels.groups if g.name in result.keep}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("wanted", [2, "3", 0.5, "0.75"])
def test_so_many_experts_are_left_and_nothing_else_goes(kind: str, wanted: object) -> None:
    model = MODELS[kind]()
    result = prune(model, PruneOptions(experts=wanted, compensate="none"))  # type: ignore[arg-type]
    ((size, kept),) = _sizes(result).values()
    assert kept == (int(wanted) if wanted in (2, "3") else round(float(wanted) * size))  # type: ignore[arg-type]
    assert set(_sizes(result)) == {"expert"}
    masked = masked_original(result.channels, result.keep, result.short).proto
    feeds = random_inputs(model, np.random.default_rng(1), 8)
    for expected, found in zip(run(masked, feeds), run(result.model.proto, feeds), strict=True):
        assert relative_error(expected, found) < 1e-4  # packed weights are rounded


@pytest.mark.parametrize("more", [{"exact_only": True}, {"params": 0.3}, {"scope": "global"}])
def test_beside_other_targets_experts_have_their_own_number(more: dict[str, object]) -> None:
    options = PruneOptions(
        experts=3, align=1, compensate="none", **({"ratio": 0.5} | more if "params" not in more else more)
    )  # type: ignore[arg-type]
    sizes = _sizes(prune(written(), options))
    assert sizes["expert"] == (mixtures.EXPERTS, 3) and "channel" in sizes


def test_with_data_they_go_although_no_refit_knows_them() -> None:
    data = {"x": np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)}
    found = onnxprune.prune(fused(), experts=2, data=data, compensate="bias")
    assert _sizes(found)["expert"] == (4, 2)


BAD = {
    "fewer than are taken, fused": (fused, 1, "takes 2 at once; keep 2 or more"),
    "fewer than are taken, packed": (packed, "0.25", "takes 2 at once; keep 2 or more"),
    "fewer than are taken, written out": (written, 1, "TopK 'TopK_16' takes 2 at once"),
    "more than there are": (fused, 9, "has 4"),
    "as many as there are": (fused, 4, "every mixture has so many"),
    "none": (fused, 0, "how many are left"),
    "a share above 1": (fused, 1.5, "their share up to 1"),
    "a word": (fused, "many", "their share up to 1"),
    "yes": (fused, True, "their share up to 1"),
    "no mixture": (lambda: _plain(), 2, "no mixture of experts"),
}


def _plain() -> onnx.ModelProto:
    net = Net()
    net.output(net.linear(net.Relu(net.linear(net.input("n", 8), 8, 16)), 16, 3))
    return net.model()


@pytest.mark.parametrize("kind", BAD)
def test_what_makes_no_sense_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    draw, wanted, message = BAD[kind]
    with pytest.raises((UsageError, onnxprune.NothingToPruneError), match=message):
        prune(draw(), PruneOptions(experts=wanted, compensate="none"))  # type: ignore[arg-type]
    onnx.save(draw(), tmp_path / "model.onnx")
    words = ["prune", tmp_path / "model.onnx", "--experts", wanted, "-o", tmp_path / "small.onnx"]
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code in (2, 4) and len(result.output.splitlines()) == 1
    assert not (tmp_path / "small.onnx").exists()


def test_three_doors_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(written(), "model.onnx")
    common = ["--compensate", "none", "--threads", "1"]
    words = ["prune", "model.onnx", "--experts", "4", *common, "-o", "words.onnx"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    steps = [{"prune": {"experts": 4, "compensate": "none"}}]
    Path("recipe.yaml").write_text(yaml.safe_dump({"model": "model.onnx", "threads": 1, "steps": steps}))
    assert CliRunner().invoke(cli, ["run", "recipe.yaml", "-o", "recipe.onnx"]).exit_code == 0
    found = onnxprune.prune("model.onnx", experts=4, compensate="none", run=onnxprune.Run(threads=1))
    onnxprune.save(found.model, "python.onnx")
    assert len({Path(f"{door}.onnx").read_bytes() for door in ("words", "recipe", "python")}) == 1
