"""Targets: their rules hold for every width that is kept, and recipes, doors and quantize follow them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnxprune
from models import zoo
from onnxprune.allocate.alignment import Widths
from onnxprune.cli.group import cli
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.hardware import host as machine
from onnxprune.hardware.target import PRECISIONS, target_named, targets
from onnxprune.methods.choice import choose
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.methods.width_rule import rounding
from tests.hardware.law import ROWS, violations
from tests.networks import convnet, store

GRAPHS = ("BERT", "LSTM", "mobilenet_v2", "resnext50_32x4d", "UNet", "WaveNet")


def chosen(channels: onnxprune.Channels, **options):
    return choose(channels, PruneOptions(score="random", **options))[0]


@pytest.mark.parametrize("graph", GRAPHS)
def test_no_kept_width_breaks_the_rule_of_any_target(graph):
    channels = onnxprune.analyse(zoo.build(graph))
    cut = 0
    for name in ROWS:
        try:
            keep = chosen(channels, target=name, ratio=0.4)
        except NothingToPruneError:
            continue
        cut += bool(keep)
        precision = rounding(PruneOptions(target=name), channels.view).precision
        assert violations(channels, keep, name, precision) == []
    assert cut > len(ROWS) // 2


def test_the_law_notices_widths_that_were_not_made_for_a_target():
    channels = onnxprune.analyse(zoo.build("mobilenet_v2"))
    assert violations(channels, chosen(channels, ratio=0.4), "qualcomm-htp", "int8")
    assert violations(channels, chosen(channels, ratio=0.4, align=1), "webgpu", "float32")


def test_every_row_can_be_read_and_says_where_it_is_from():
    assert len(targets()) >= 13
    for name, target in targets().items():
        assert target.source and target.about, name
        assert set(target.multiple) <= set(PRECISIONS), name
        assert target.precision is None or target.precision in target.multiple, name
        QuantizeOptions(target=name)


def test_narrow_groups_of_a_target_that_pads_them_are_left_alone_with_the_reason():
    result = onnxprune.prune(convnet(width=40), ratio=0.5, target="qualcomm-htp", compensate="none")
    assert {int(mask.sum()) for mask in result.keep.values()} == {32}
    with pytest.raises(NothingToPruneError, match="as narrow as qualcomm-htp computes at once"):
        onnxprune.prune(convnet(width=24), ratio=0.5, target="qualcomm-htp", compensate="none")


def test_what_a_target_forbids_stays_and_asking_for_it_by_name_is_refused():
    channels = onnxprune.analyse(zoo.build("BERT"), heads=False, head_dim=True)
    inside = [group.name for group in channels.groups if group.kind == "head-dim" and group.active]
    assert inside
    keep, reasons, _ = choose(channels, PruneOptions(target="tensorrt-fp16", score="random", ratio=0.5))
    assert not set(inside) & set(keep) and all("tensorrt-fp16" in reasons[name] for name in inside)
    with pytest.raises(UsageError, match="cannot be cut for this target"):
        choose(channels, PruneOptions(target="tensorrt-fp16", score="random", ratios={inside[0]: 0.5}))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (PruneOptions, {"target": "tensorrt"}),
        (QuantizeOptions, {"target": "qualcom-htp"}),
    ],
)
def test_an_unknown_target_is_told_with_the_nearest(kind, words):
    with pytest.raises(UsageError, match=r"target .*none of this name; did you mean (tensorrt-|qualcomm-htp)"):
        kind(**words)


@pytest.mark.parametrize("target", [5, [], b"webgpu"])
def test_a_target_is_a_text(target):
    for kind in (PruneOptions, QuantizeOptions):
        with pytest.raises(UsageError, match=r"target .*: give a text"):
            kind(**{"target": target, **({"ratio": 0.4} if kind is PruneOptions else {})})


def test_numbers_that_a_target_does_not_compute_in_are_refused():
    with pytest.raises(UsageError, match="'axis-artpec9' computes in int8, not in float16"):
        onnxprune.prune(convnet(), target="axis-artpec9", precision="float16")
    with pytest.raises(UsageError, match="computes in int8; mode fp16 does not fit"):
        QuantizeOptions(target="axis-artpec9", mode="fp16")


@pytest.mark.parametrize("target", ["axis-artpec9", "esp-dl", "ti-tinpu"])
def test_packed_weights_are_refused_where_nothing_computes_in_floats(target):
    with pytest.raises(UsageError, match="computes in int8; mode weight-only does not fit"):
        QuantizeOptions(target=target, mode="weight-only", bits=4)
    assert QuantizeOptions(target="webgpu", mode="weight-only", bits=4).bits == 4


def test_quantize_takes_its_types_from_the_target_where_nobody_says_otherwise():
    asked = QuantizeOptions(target="axis-artpec8")
    assert (asked.mode, asked.per_channel) == ("static", False)
    signed = QuantizeOptions(target="tensorrt-int8")
    assert (signed.activation_type, signed.symmetric) == ("s8", True)
    assert QuantizeOptions(target="tensorrt-int8", activation_type="u8").activation_type == "u8"
    assert QuantizeOptions(target="webgpu").mode is None
    assert (signed.measure, QuantizeOptions(target="cpu-vnni").measure) == (False, None)


def test_widths_of_a_prune_suit_the_step_after_it():
    data = np.random.default_rng(0).normal(size=(16, 3, 12, 12)).astype(np.float32)
    prune = onnxprune.step("prune", ratio=0.4, compensate="none")
    job = onnxprune.Job((prune, onnxprune.step("quantize", mode="static", guard=False)), convnet(width=24), {"x": data})
    assert job.steps[0].options.precision == "int8"
    alone = onnxprune.prune(convnet(width=24), ratio=0.4, compensate="none")
    followed = onnxprune.Job((prune, onnxprune.step("quantize", mode="dynamic")), convnet(width=24))
    widths = [int(mask.sum()) for mask in alone.keep.values()]
    suited = onnxprune.prune(convnet(width=24), ratio=0.4, compensate="none", precision="int8")
    assert widths == [14, 14] and [int(mask.sum()) for mask in suited.keep.values()] == [16, 16]
    assert followed.steps[0].options.precision == "int8"


def test_a_network_too_narrow_for_integer_widths_is_cut_as_for_floats_and_told():
    result = onnxprune.prune(convnet(width=32), ratio=0.25, compensate="none", precision="int8")
    assert [int(mask.sum()) for mask in result.keep.values()] == [24, 24]
    assert any("widths are those of float kernels" in warning for warning in result.warnings)
    assert str(result.rounding.widths) == str(Widths())


@pytest.mark.parametrize(
    ("later", "precision"),
    [("weight-only", None), ("fp16", "float16"), ("bf16", "float16")],
)
def test_only_a_step_that_changes_how_it_computes_changes_widths(later, precision):
    steps = onnxprune.step("prune"), onnxprune.step("quantize", mode=later)
    assert onnxprune.Job(steps, convnet()).steps[0].options.precision == precision
    said = onnxprune.step("prune", precision="float32"), steps[1]
    assert onnxprune.Job(said, convnet()).steps[0].options.precision == "float32"


def test_three_doors_take_the_same_target(tmp_path: Path):
    model, outputs = store(convnet(width=64), tmp_path / "m.onnx"), [tmp_path / f"{n}.onnx" for n in "abc"]
    words = ["prune", str(model), "--target", "ascend", "--compensate", "none", "-o", str(outputs[0])]
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["widths"]
    assert (told["target"], told["precision"], told["widths"]) == ("ascend", "float16", "multiples of 16")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("target: ascend\nsteps:\n  - prune: {compensate: none}\n")
    done = CliRunner().invoke(cli, ["run", str(recipe), "--model", str(model), "-o", str(outputs[1])])
    assert done.exit_code == 0, done.output
    onnxprune.save(onnxprune.prune(model, target="ascend", compensate="none").model, outputs[2])
    graphs = [onnx.load(path).graph.SerializeToString(deterministic=True) for path in outputs]
    assert graphs[0] == graphs[1] == graphs[2]


def test_a_method_that_widths_mean_nothing_to_refuses_a_target(tmp_path: Path):
    model = store(convnet(), tmp_path / "m.onnx")
    done = CliRunner().invoke(cli, ["sparsify", str(model), "--target", "ascend"])
    assert done.exit_code == 2 and "--target" in done.output


@pytest.mark.parametrize(
    ("architecture", "flags", "name"),
    [
        ("x86_64", "fpu avx avx2 avx512f avx512_vnni", "cpu-avx512"),
        ("x86_64", "fpu avx avx2", "cpu-avx2"),
        ("aarch64", "", "cpu-arm64"),
    ],
)
def test_this_machine_is_found(monkeypatch, architecture, flags, name):
    monkeypatch.setattr(machine.platform, "machine", lambda: architecture)
    monkeypatch.setattr(machine, "_flags", lambda: frozenset(flags.split()))
    assert machine.host.__wrapped__().name == name


def test_the_usual_widths_do_not_depend_on_the_machine():
    assert rounding(PruneOptions(), onnxprune.analyse(convnet()).view).widths == Widths()
    assert str(Widths()) == "multiples of 8 from 32 channels, 16 from 128"
    assert str(Widths.on(target_named("ncnn"), "float32")) == "multiples of 4 from 8 channels, 8 from 32"
