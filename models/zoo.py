"""The networks of this folder: structure-only graphs made runnable, and small trained ones.

from models import zoo
proto = zoo.build("resnet50")
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

FOLDER = Path(__file__).parent
SPREAD = 0.05
_GRAPHS = {path.name.split(".")[0]: path for path in sorted((FOLDER / "zoo").glob("*.onnx.gz"))}


def names() -> list[str]:
    """Return the names of the structure-only graphs."""
    return list(_GRAPHS)


def path(name: str) -> Path:
    """Return the packed file of a structure-only graph."""
    return _GRAPHS[name]


def build(name: str, *, inert: bool = False) -> ModelProto:
    """Return a structure-only graph with random weights of the original distribution: the same on every call.

    Args:
        inert: leave matrices constant that the architecture initialises so (zero heads, layer scales of 1e-6). They
            hide whatever is computed before them, so by default they get a spread of 0.05.
    """
    model = ModelProto.FromString(gzip.decompress(path(name).read_bytes()))
    for key, tensor in _tensors(model.graph):
        if tensor.doc_string.startswith('{"normal"'):
            _fill(tensor, key, inert)
    return model


def trained() -> list[Path]:
    """Return the files of the trained networks."""
    return sorted((FOLDER / "trained").glob("*/model*.onnx"))


def calibration(model: Path) -> Path:
    """Return the unlabeled inputs that belong to a trained network."""
    own = model.parent / "calib.npz"
    return own if own.exists() else FOLDER / "data" / "fmnist_calib.npz"


def _fill(tensor: TensorProto, key: str, inert: bool) -> None:
    """Draw normal(mean, std), clipped to [min, max], seeded by the name of the tensor."""
    mean, std, low, high = json.loads(tensor.doc_string)["normal"]
    if std == 0 and len(tensor.dims) > 1 and not inert:
        std, low, high = SPREAD, mean - 3 * SPREAD, mean + 3 * SPREAD
    random = np.random.default_rng(zlib.crc32(key.encode()))
    values = random.standard_normal(tuple(tensor.dims), dtype=np.float32)
    values *= np.float32(std)
    values += np.float32(mean)
    tensor.raw_data = np.clip(values, low, high, out=values).astype("<f4", copy=False).tobytes()
    tensor.ClearField("doc_string")


def _tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield the stored tensors of a graph and its subgraphs with a name for each."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t.name or node.output[0], attribute.t
            elif attribute.type == AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
            elif attribute.type == AttributeProto.GRAPHS:
                for body in attribute.graphs:
                    yield from _tensors(body)


def save_all(folder: Path) -> None:
    """Write every structure-only graph as a runnable file `<name>.onnx`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names():
        onnx.save(build(name), folder / f"{name}.onnx")
