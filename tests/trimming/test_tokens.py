"""Rows of an embedding that go: kept ids give what they gave, others what was chosen for them."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.methods.quantization.weight_only import pack
from onnxprune.methods.trim import TrimOptions, trim
from onnxprune.methods.trimming.tiers import TIERS
from tests.micro.build import Net
from tests.oracle import run

WORDS, WIDTH = 400, 24
KEPT = [*range(40), 99]
IDS = np.array([[1, 2, 99, 7], [39, 0, 3, 5]])
RARE = np.array([[1, 300, 99, 41], [350, 0, 3, 398]])


def encoder(tied: bool = False, separate: bool = False, opset: int = 17, dtype: str = "float") -> onnx.ModelProto:
    """Embedding, mask from the ids, a layer, a mean; a head over the vocabulary where asked for."""
    net = Net(opset=opset, dtype=dtype)
    ids = net.input("n", "t", name="ids", dtype=np.int64)
    table = net.constant(net.rng.normal(size=(WORDS, WIDTH)).astype(net.dtype), "words")
    mask = net.Cast(net.unsqueeze(net.Not(net.Equal(ids, np.array(0))), 2), to=1 if dtype == "float" else 10)
    y = net.Mul(net.Tanh(net.linear(net.Gather(table, ids, axis=0), WIDTH, WIDTH)), mask)
    net.output(net.reduce("Mean", y, [1], keepdims=0))
    if tied:
        net.output(net.MatMul(y, net.transpose(table, 1, 0)))
    if separate:
        net.output(net.linear(y, WIDTH, WORDS))
    return net.model()


def cut(model: onnx.ModelProto, **more: object) -> onnx.ModelProto:
    result = trim(model, TrimOptions(tokens={"ids": "0-39,99"}, **more)).model.proto  # type: ignore[arg-type]
    onnx.checker.check_model(result, full_check=True)
    return result


@pytest.mark.parametrize("rare", ["int8", "int5", "nearest", "unk=3"])
@pytest.mark.parametrize("opset", [11, 17])
def test_kept_ids_give_the_same_bits(rare: str, opset: int) -> None:
    model = encoder(opset=opset)
    assert np.array_equal(run(model, {"ids": IDS})[0], run(cut(model, rare=rare), {"ids": IDS})[0])


@pytest.mark.parametrize(("rare", "near", "share"), [("int8", 0.9999, 0.6), ("int5", 0.998, 0.5)])
def test_rare_ids_give_nearly_the_same_from_their_copy_in_few_bits(rare: str, near: float, share: float) -> None:
    model = encoder()
    small = cut(model, rare=rare)
    one, other = run(model, {"ids": RARE})[0], run(small, {"ids": RARE})[0]
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > near
    assert small.ByteSize() < share * model.ByteSize()


def test_an_unknown_token_stands_for_rare_ids() -> None:
    model = encoder()
    unknown = np.where(np.isin(RARE, KEPT), RARE, 3)
    assert np.array_equal(run(model, {"ids": unknown})[0], run(cut(model, rare="unk=3"), {"ids": RARE})[0])


def test_the_nearest_row_stands_for_a_rare_id() -> None:
    net = Net()
    ids = net.input("n", name="ids", dtype=np.int64)
    rows = np.eye(6, 3, dtype=np.float32)
    rows[3:] = [[0.1, 0.9, 0], [0, 0.2, -3], [5, 1, 1]]
    net.output(net.Gather(net.constant(rows, "words"), ids, axis=0))
    small = trim(net.model(), TrimOptions(tokens={"ids": "0-2"}, rare="nearest")).model.proto
    found = run(small, {"ids": np.arange(6)})[0]
    assert np.array_equal(found, rows[[0, 1, 2, 1, 1, 0]])


@pytest.mark.parametrize("width", [9, 10, 11])
def test_packed_rows_come_back_within_a_level(width: int) -> None:
    rows = np.random.default_rng(0).normal(size=(5, width))
    codes, scales = TIERS["int5"].encode(rows)
    levels = np.concatenate([codes % 40, codes // 40 % 40, codes // 1600], axis=1)[:, :width].astype(int) - 20
    inner = np.abs(rows) < scales * 19
    assert inner.mean() > 0.8
    assert np.abs(levels * scales - rows)[inner].max() <= scales.max() / 2 * 1.001


def test_half_precision_keeps_its_type() -> None:
    model = encoder(dtype="half")
    small = cut(model)
    assert np.array_equal(run(model, {"ids": IDS})[0], run(small, {"ids": IDS})[0])


@pytest.mark.parametrize("tied", [True, False])
def test_scores_are_spread_to_the_old_width(tied: bool) -> None:
    model = encoder(tied=tied, separate=not tied)
    scores = model.graph.output[1].name
    small = cut(model, scatter=(scores,))
    one, other = run(model, {"ids": IDS})[1], run(small, {"ids": IDS})[1]
    assert np.allclose(one[..., KEPT], other[..., KEPT], rtol=1e-5, atol=1e-5)
    others = np.setdiff1d(np.arange(WORDS), KEPT)
    assert (other[..., others] == np.finfo(np.float32).min).all()
    assert small.ByteSize() < 0.75 * model.ByteSize()


@pytest.mark.parametrize("tied", [True, False])
def test_scores_follow_the_tokens(tied: bool) -> None:
    model = encoder(tied=tied, separate=not tied)
    scores = model.graph.output[1].name
    small = cut(model, keep={f"{scores}:2": "tokens"}, rare="unk=0")
    one, other = run(model, {"ids": IDS})[1], run(small, {"ids": IDS})[1]
    assert np.allclose(one[..., KEPT], other, rtol=1e-5, atol=1e-5)


def test_a_shared_table_that_another_layer_reads_stays_for_that_layer() -> None:
    model = encoder(tied=True)
    one, other = run(model, {"ids": IDS}), run(cut(model), {"ids": IDS})
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_callers_can_give_new_numbers() -> None:
    model = encoder()
    result = trim(model, TrimOptions(tokens={"ids": "0-39,99"}, renumber=True))
    ids = np.where(IDS == 99, 40, IDS)
    assert np.array_equal(run(model, {"ids": IDS})[0], run(result.model.proto, {"ids": ids})[0])
    assert "0 to 40" in result.warnings[0]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tokens": {"idz": "1"}}, UsageError, "no input 'idz'"),
        ({"tokens": {"ids": "400"}}, UsageError, "outside"),
        ({"tokens": {"ids": "the"}}, UsageError, "no label"),
        ({"tokens": {"ids": ""}}, UsageError, "nothing is kept"),
        ({"tokens": {"ids": "0-399"}}, NothingToPruneError, "all 400 rows stay"),
        ({"tokens": {"ids": "1"}, "rare": "unk=5"}, UsageError, "stays was expected"),
        ({"tokens": {"ids": "1"}, "rare": "some"}, UsageError, "choose one of"),
        ({"scatter": ("y",)}, UsageError, "say with tokens"),
    ],
)
def test_what_makes_no_sense_is_one_line(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        trim(encoder(), TrimOptions(**options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rare", ["unk=3", "nearest"])
@pytest.mark.parametrize("kind", ["bytes", "uint4"])
@pytest.mark.parametrize("zeros", [False, True])
def test_packed_rows_go_with_their_scales_and_zero_points(rare: str, kind: str, zeros: bool) -> None:
    net = Net(opset=21)
    ids = net.input("n", 3, name="ids", dtype=np.int64)
    codes, middle = (net.rng.integers(0, 16, (20, size)).astype(np.uint8) for size in (32, 2))
    codes[15] = codes[3]
    scales = np.full((20, 2), 0.1, np.float32)
    middle[15] = middle[3]
    if kind == "bytes":
        codes, middle, more = pack(codes, 4), pack(middle, 4), {"bits": 4}
    else:
        codes, middle, more = codes.astype(ml_dtypes.uint4), middle.astype(ml_dtypes.uint4), {}
    given = [codes, ids, scales, *([middle] if zeros else [])]
    net.output(net.ms("GatherBlockQuantized", *given, gather_axis=0, quantize_axis=1, block_size=16, **more))
    model = net.model()
    result = trim(model, TrimOptions(tokens={"ids": "0-9"}, rare=rare)).model.proto
    asked = np.array([[0, 9, 3], [5, 15, 15]])
    expected, found = run(model, {"ids": asked})[0], run(result, {"ids": asked})[0]
    assert np.array_equal(expected, found)
    assert all(t.dims[0] == 10 for t in result.graph.initializer if len(t.dims) == 2)
    with pytest.raises(UsageError, match="few bits"):
        trim(model, TrimOptions(tokens={"ids": "0-9"}))


@pytest.mark.parametrize("rare", ["int8", "int5", "nearest", "unk=3"])
@pytest.mark.parametrize("head", ["none", "tied", "separate"])
def test_a_table_in_a_file_beside_the_model_is_cut_alike_a_piece_at_a_time(
    rare: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.methods.trimming.table_rows.PIECE_BYTES", 4 * WIDTH * 7)
    model = encoder(tied=head == "tied", separate=head == "separate")
    options = TrimOptions(
        tokens={"ids": "0-39,99"}, rare=rare, scatter=(model.graph.output[1].name,) if head != "none" else ()
    )
    inside = trim(model, options).model.proto
    onnx.save(model, tmp_path / "large.onnx", save_as_external_data=True, size_threshold=0)
    onnxprune.save(trim(tmp_path / "large.onnx", options).model, tmp_path / "small.onnx")
    small = onnx.load(tmp_path / "small.onnx")
    for one, other in zip(run(inside, {"ids": RARE}), run(small, {"ids": RARE}), strict=True):
        assert np.array_equal(one, other)


def test_two_inputs_look_up_tables_in_files_one_after_the_other(tmp_path: Path) -> None:
    net = Net()
    tables = [net.constant(net.rng.normal(size=(WORDS, WIDTH)).astype(net.dtype)) for _ in range(2)]
    inputs = [net.input("n", name=name, dtype=np.int64) for name in "ab"]
    net.output(net.Add(*(net.Gather(table, ids) for table, ids in zip(tables, inputs, strict=True))))
    options = TrimOptions(tokens={"a": "0-39", "b": "100-120,3"}, rare="int8")
    feeds = {"a": np.array([1, 200, 39]), "b": np.array([100, 3, 399])}
    onnx.save(net.model(), tmp_path / "large.onnx", save_as_external_data=True, size_threshold=0)
    onnxprune.save(trim(tmp_path / "large.onnx", options).model, tmp_path / "small.onnx")
    inside, small = trim(net.model(), options).model.proto, onnx.load(tmp_path / "small.onnx")
    assert np.array_equal(run(inside, feeds)[0], run(small, feeds)[0])
