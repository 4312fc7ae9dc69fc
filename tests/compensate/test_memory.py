"""A refit within a bound of memory: what does not fit goes to files, and where that is not enough it says so."""

import errno
import gc
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.channels.analyse import analyse
from onnxprune.channels.rewrite import rewrite
from onnxprune.compensate import problem as problem_room
from onnxprune.compensate import shelf as room
from onnxprune.compensate.compensate import RefitOptions, compensate, kept_positions
from onnxprune.compensate.problem import LstsqOptions, Problem, RowBlocks
from onnxprune.compensate.shelf import Shelf
from onnxprune.errors import ModelError
from onnxprune.operators.layouts import Dense
from tests import plain
from tests.networks import convnet

RNG = np.random.default_rng(23)


def test_a_shelf_keeps_up_to_its_bound_and_writes_the_rest_to_files_that_go_with_it() -> None:
    shelf = Shelf(limit=1000)
    arrays = [RNG.normal(size=(10, 10)).astype(np.float32) for _ in range(4)]
    parcels = [shelf.put(array) for array in arrays]
    assert [parcel.path is None for parcel in parcels] == [True, True, False, False]
    assert shelf.taken == 800 and shelf.spilled == 800
    for parcel, array in zip(parcels, arrays, strict=True):
        np.testing.assert_array_equal(parcel.open(), array)
    files = [parcel.path for parcel in parcels[2:]]
    del parcels[0], parcels[-1], parcel
    gc.collect()
    assert shelf.taken == 400 and [path.exists() for path in files] == [True, False]
    folder = files[0].parent
    del parcels, shelf
    gc.collect()
    assert not folder.exists()


def test_a_full_disk_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room.np, "save", full)
    with pytest.raises(ModelError, match=r"beyond --memory do not fit into '.*' \(No space left on device\); raise"):
        Shelf(limit=0).put(np.zeros(3))


def refitted(memory: int | None, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[Shelf], tuple[str, ...]]:
    """Refit a small network; return the result, the shelves that were used, and warnings."""
    shelves: list[Shelf] = []

    def shelf(*args: object) -> Shelf:
        shelves.append(Shelf(*args))  # type: ignore[arg-type]
        return shelves[-1]

    monkeypatch.setattr("onnxprune.compensate.refit.Shelf", shelf)
    data = {"x": np.random.default_rng(0).normal(size=(64, 3, 12, 12)).astype(np.float32)}
    result = plain.prune(convnet(), ratio=0.5, align=1, data=data, memory=memory, compensate="lstsq")
    return result.model.proto.SerializeToString(), shelves, result.warnings


def test_activations_beyond_the_bound_wait_in_files_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    free, (shelf,), _ = refitted(None, monkeypatch)
    assert not shelf.spilled
    # 4 MB: the Gram matrices of this network fit, its activations of 64 samples do not
    bounded, (shelf,), warnings = refitted(4 << 20, monkeypatch)
    assert shelf.spilled > 1 << 20 and not any("--memory" in warning for warning in warnings)
    assert bounded == free


def test_a_refit_without_its_gram_matrices_says_so_and_still_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, warnings = refitted(500_000, monkeypatch)
    assert not any("Gram matrices are left out of the scores" in w for w in warnings)
    assert any("fitted on fewer rows, without a Gram matrix: --memory allows no more" in w for w in warnings)


def test_scores_without_gram_matrices_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, warnings = refitted(1000, monkeypatch)
    assert any("Gram matrices are left out of the scores: --memory allows no more" in w for w in warnings)


def test_fewer_rows_still_lower_the_error_of_every_layer() -> None:
    model = onnxprune.load(convnet())
    channels = analyse(model)
    keep = {group.name: np.arange(group.size) % 2 == 0 for group in channels.groups}
    feeds = [{"x": RNG.normal(size=(16, 3, 12, 12)).astype(np.float32)} for _ in range(4)]
    positions = kept_positions(channels, keep)
    options = RefitOptions(memory=500_000, threads=1)
    layers = compensate(model, rewrite(channels, keep), positions, feeds, options=options)
    bounded = [layer for layer in layers.layers if layer.bounded]
    assert bounded and all(layer.after < layer.before for layer in bounded)


def test_files_are_gone_after_a_refit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    refitted(4 << 20, monkeypatch)
    monkeypatch.undo()
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outs", [4, 200, 4000])
def test_blocks_of_rows_are_bounded_by_their_targets_too(monkeypatch: pytest.MonkeyPatch, outs: int) -> None:
    """Scores over a vocabulary are far wider than what they are computed from."""
    monkeypatch.setattr(problem_room, "CHUNK_BYTES", 1 << 16)
    batches = [RNG.normal(size=(600, 16)).astype(np.float32) for _ in range(6)]
    targets = [np.zeros((600, outs), np.float32)] * 6
    start = np.zeros((1, outs, 17))
    layer = Problem(Dense(), lambda: iter(batches), lambda: iter(targets), start, batches=6)
    blocks = list(RowBlocks(layer, LstsqOptions()))
    assert sum(rows.shape[1] for _, rows, _, _ in blocks) == 3600
    largest = 64 * 4 * max(17, outs // problem_room.TARGETS)  # the fewest rows of a block
    assert all(rows.nbytes <= max(2 * (1 << 16), largest) for _, rows, _, _ in blocks)
    assert all(wanted.nbytes // problem_room.TARGETS <= 2 * max(1 << 16, largest) for _, _, wanted, _ in blocks)
