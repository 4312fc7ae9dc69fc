"""A model whose weights lie in files is looked at and refitted level by level: the same result, and bounded memory."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.channels.analyse import analyse
from onnxprune.channels.rewrite import rewrite
from onnxprune.compensate import spill, stages, streamed_sums
from onnxprune.compensate.compensate import RefitOptions, compensate, kept_positions
from onnxprune.compensate.output_parts import parts_of
from onnxprune.compensate.problem import LstsqOptions
from onnxprune.compensate.readers import Reader
from onnxprune.compensate.refit import Walk
from onnxprune.errors import ModelError
from onnxprune.graph import mapped
from onnxprune.graph.model import Model, load
from onnxprune.graph.save import save
from onnxprune.graph.session import Session
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array
from tests import plain
from tests.compensate.small import run
from tests.networks import convnet

WIDTH, WORDS, SAMPLES = 32, 24, 40


def gated(layers: int = 3, width: int = WIDTH, turned: bool = False, words: int = WORDS) -> onnx.ModelProto:
    """A tower of gated feed-forward layers over words, as decoders have it; `turned`: weights are stored transposed."""
    random, nodes, stored = np.random.default_rng(0), list[onnx.NodeProto](), list[TensorProto]()

    def op(kind: str, *inputs: str, name: str = "", **more: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name or f"t{len(nodes)}"], f"n{len(nodes)}", **more))
        return str(nodes[-1].output[0])

    def product(x: str, inner: int, outer: int, name: str = "") -> str:
        weight = (random.standard_normal((inner, outer)) / inner**0.5).astype(np.float32)
        stored.append(numpy_helper.from_array(np.ascontiguousarray(weight.T) if turned else weight, f"w{len(stored)}"))
        read = op("Transpose", stored[-1].name, perm=[1, 0]) if turned else stored[-1].name
        return op("MatMul", x, read, name=name)

    stored.append(numpy_helper.from_array(random.standard_normal((words, width)).astype(np.float32), "table"))
    stored.append(numpy_helper.from_array(np.ones(width, np.float32), "gain"))
    x = op("Gather", "table", "ids")
    for _ in range(layers):
        y = op("LayerNormalization", x, "gain")
        inner = op("Mul", op("Sigmoid", product(y, width, 2 * width)), product(y, width, 2 * width))
        x = op("Add", x, product(inner, 2 * width, width))
    product(x, width, words, "y")
    ends = [("ids", TensorProto.INT64, ["n", 6]), ("y", TensorProto.FLOAT, ["n", 6, words])]
    graph = helper.make_graph(nodes, "g", *([helper.make_tensor_value_info(*end)] for end in ends), stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def words(count: int = SAMPLES, vocabulary: int = WORDS) -> Feed:
    """Samples of the model above."""
    return {"ids": np.random.default_rng(1).integers(0, vocabulary, (count, 6))}


def images() -> Feed:
    """Samples of a small convolutional network."""
    return {"x": np.random.default_rng(2).normal(size=(SAMPLES, 3, 12, 12)).astype(np.float32)}


NETWORKS: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[], Feed], dict[str, object]]] = {
    "gated layers": (gated, words, {"exact_only": True}),
    "weights stored transposed": (lambda: gated(turned=True), words, {"exact_only": True}),
    "the residual stream": (gated, words, {}),
    "convolutions": (convnet, images, {}),
}


def beside(proto: onnx.ModelProto, folder: Path) -> Path:
    """Write a model with all its weights in a file of their own."""
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return folder / "m.onnx"


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the smallest models as vast ones."""
    monkeypatch.setattr(mapped, "VAST_BYTES", 1)
    for room in (mapped, spill, stages, streamed_sums):
        monkeypatch.setattr(room, "SMALLEST_BYTES", 256)


def weights_of(model: Model, folder: Path) -> dict[str, Array]:
    """Return all weights of a model as they are written."""
    save(model, folder / "written.onnx")
    written = load(folder / "written.onnx")
    return {tensor.name: written.array(tensor) for tensor in written.proto.graph.initializer}


@pytest.mark.parametrize(
    ("name", "score"), [*((name, "lstsq") for name in NETWORKS), ("gated layers", "flap"), ("gated layers", "wanda")]
)
def test_a_model_in_files_is_scored_and_refitted_as_one_in_memory(
    tmp_path: Path, streaming: None, name: str, score: str
) -> None:
    make, draw, options = NETWORKS[name]
    settings = {"ratio": 0.4, "align": 1, "score": score, "compensate": "lstsq", **options}
    expected = plain.prune(make(), data=draw(), **settings)
    found = plain.prune(beside(make(), tmp_path), data=draw(), **settings)
    assert found.plan.removed == expected.plan.removed
    assert found.compensation is not None and any(layer.used for layer in found.compensation.layers)
    old, new = weights_of(expected.model, tmp_path), weights_of(found.model, tmp_path)
    assert old.keys() == new.keys()
    for key, array in old.items():
        assert new[key].shape == array.shape
        assert np.abs(new[key] - array).max(initial=0) <= 1e-6 * max(1.0, np.abs(array).max(initial=0))


@pytest.mark.parametrize("score", ["lstsq", "flap"])
def test_memory_does_not_grow_with_the_number_of_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: str
) -> None:
    """What is allocated, and what is handed to the runtime; pages of mapped files are the system's."""
    width, largest = 128, list[int]()
    monkeypatch.setattr(mapped, "VAST_BYTES", 1)
    for room in (mapped, spill, stages, streamed_sums):
        monkeypatch.setattr(room, "SMALLEST_BYTES", 1 << 15)
    opened = Session.__init__

    def counted(self: Session, native: object, label: str, stack: object, source: object) -> None:
        largest.append(source.ByteSize() if isinstance(source, onnx.ModelProto) else 0)
        opened(self, native, label, stack, source)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "__init__", counted)
    peaks = []
    for layers in (2, 6):
        folder = tmp_path / str(layers)
        folder.mkdir()
        file = beside(gated(layers, width), folder)
        gc.collect()
        tracemalloc.start()
        result = plain.prune(
            file,
            data=words(8),
            ratio=0.5,
            exact_only=True,
            align=1,
            score=score,
            compensate="lstsq",
            memory=1 << 22,
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert result.compensation is not None and sum(layer.used for layer in result.compensation.layers) >= layers
    layer = 3 * 4 * 2 * width * width
    assert peaks[1] - peaks[0] < layer  # four more layers
    assert max(largest) < layer


def test_new_weights_that_the_disk_has_no_room_for_are_told_in_one_line(
    tmp_path: Path, streaming: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ModelError, match=r"new weights do not fit into '.*' \(No space left on device\); free") as told:
        plain.prune(beside(gated(), tmp_path), data=words(), ratio=0.4, align=1, exact_only=True, compensate="lstsq")
    assert "\n" not in str(told.value)


def test_files_are_gone_when_nobody_can_ask_for_weights_any_more(
    tmp_path: Path, streaming: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    file = beside(gated(), tmp_path)
    result = plain.prune(file, data=words(), ratio=0.4, align=1, exact_only=True, compensate="lstsq")
    assert list(scratch.rglob("*.weights"))
    result.model.pending.clear()  # type: ignore[attr-defined]
    del result
    gc.collect()
    assert not list(scratch.rglob("*.weights"))


@pytest.mark.parametrize("memory", [30_000, 100_000, None])
@pytest.mark.parametrize("turned", [False, True])
def test_a_layer_of_many_outputs_is_fitted_in_parts_and_undoes_the_damage(
    monkeypatch: pytest.MonkeyPatch, turned: bool, memory: int | None
) -> None:
    """What goes is a mixture of what stays, so that the refit finds the original again, however it is divided."""
    random = np.random.default_rng(3)
    mixed = random.standard_normal((12, 6)) @ random.standard_normal((6, 12))
    arrays = {"a": mixed, "b": random.standard_normal((12, 600)), "c": random.standard_normal(600)}
    b = arrays["b"].T if turned else arrays["b"]
    stored = [numpy_helper.from_array(np.ascontiguousarray(v, np.float32), k) for k, v in (arrays | {"b": b}).items()]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Gemm", ["h", "b", "c"], ["y"], "second", transB=int(turned)),
    ]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", w])] for n, w in (("x", 12), ("y", 600))]
    graph = helper.make_graph(nodes, "g", *ends, stored)
    model = Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    counts: list[int] = []

    def counted(reader: Reader, options: LstsqOptions) -> list[slice]:
        counts.append(len(parts_of(reader, options)))
        return parts_of(reader, options)

    monkeypatch.setattr("onnxprune.compensate.refit.parts_of", counted)
    feeds = [{"x": random.standard_normal((32, 12)).astype(np.float32)} for _ in range(4)]
    channels = analyse(model)
    keep = {group.name: np.arange(group.size) % 3 != 1 for group in channels.groups}
    options = RefitOptions(mix=False, threads=1, **({} if memory is None else {"memory": memory}))
    refitted = compensate(model, rewrite(channels, keep), kept_positions(channels, keep), feeds, options=options)
    assert [layer.used for layer in refitted.layers] == [False, True]
    assert (max(counts) == 1) if memory is None else (max(counts) > 400_000 // memory)
    (y,), (expected,) = run(refitted.model, feeds), run(model, feeds)
    assert np.abs(y - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("score", ["lstsq", "flap"])
def test_too_little_disk_is_told_before_anything_is_done(
    tmp_path: Path, streaming: None, monkeypatch: pytest.MonkeyPatch, score: str
) -> None:
    """Products of channels are what scores by least squares need; new weights and what waits, the refit."""
    file = beside(gated(), tmp_path)
    options = {"ratio": 0.4, "align": 1, "exact_only": True, "compensate": "lstsq", "memory": 300_000, "score": score}
    said: list[str] = []
    prune(load(file), PruneOptions.of(**options), words(), progress=said.append)
    (told,) = [text for text in said if "GB of files" in text]
    assert told.startswith("refitting layers: about ")
    weights = sum(path.stat().st_size for path in tmp_path.glob("m.data"))
    asked: list[int] = []
    usage = shutil.disk_usage(tmp_path)

    def small(folder: str) -> object:
        asked.append(1)
        return usage._replace(free=weights // 4 if score == "flap" else 100)

    monkeypatch.setattr(shutil, "disk_usage", small)
    monkeypatch.setattr(Walk, "run", lambda *_: pytest.fail("it began"))
    with pytest.raises(ModelError, match=r"GB free, and up to .* GB of files are needed there") as error:
        prune(load(file), PruneOptions.of(**options), words())
    assert "\n" not in str(error.value)
    assert len(asked) == (1 if score == "lstsq" else 2)
