"""One node of every operator that is described: shapes and attributes for which it can be run and counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.graph.view import View
from onnxprune.operators.operator import MICROSOFT, Operator, operator_of

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """A node. shapes: of its inputs, None for an omitted one. stored: inputs that are weights."""

    op_type: str
    shapes: tuple[tuple[int, ...] | None, ...]
    stored: tuple[int, ...] = (1,)
    domain: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def operator(self) -> Operator:
        operator = operator_of(self)
        assert operator is not None
        return operator

    def arrays(self, seed: int = 0) -> dict[int, Array]:
        rng = np.random.default_rng(seed)
        return {i: rng.normal(size=s).astype(np.float32) for i, s in enumerate(self.shapes) if s is not None}

    def proto(self, arrays: dict[int, Array], outputs: int = 1) -> onnx.ModelProto:
        """Return the node as a model whose stored inputs have these values; the others are inputs."""
        names = [f"x{i}" if shape is not None else "" for i, shape in enumerate(self.shapes)]
        made = [f"y{i}" for i in range(outputs)]
        node = helper.make_node(self.op_type, names, made, name="node", domain=self.domain, **self.attributes)
        kinds = {i: helper.np_dtype_to_tensor_dtype(array.dtype) for i, array in arrays.items()}
        inputs = [
            helper.make_tensor_value_info(f"x{i}", kinds[i], a.shape) for i, a in arrays.items() if i not in self.stored
        ]
        tensors = [numpy_helper.from_array(arrays[i], f"x{i}") for i in self.stored if i in arrays]
        results = [helper.make_tensor_value_info(name, 1, None) for name in made]
        graph = helper.make_graph([node], "g", inputs, results, tensors)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def view(self) -> View:
        return View(Model(self.proto(self.arrays())))

    def run(self, arrays: dict[int, Array]) -> Array:
        """Return the first output for these inputs."""
        feed = {f"x{i}": array for i, array in arrays.items() if i not in self.stored}
        (y,) = open_session(self.proto(arrays), threads=1).values(["y0"], feed)
        return y

    def __str__(self) -> str:
        return f"{self.domain or 'onnx'}:{self.op_type} {self.attributes or ''} {self.stored}"


X, W = (2, 4, 5, 6), (6, 4, 3, 2)
CONVOLUTIONS = (
    Case("Conv", (X, W)),
    Case("Conv", (X, (6, 2, 3, 2), (6,)), (1, 2), attributes={"group": 2, "strides": [2, 1]}),
    Case("Conv", ((2, 4, 9), (6, 4, 3)), attributes={"dilations": [2]}),
    Case("ConvTranspose", (X, (4, 6, 3, 2), (6,)), (1, 2)),
    Case("ConvTranspose", (X, (4, 3, 2, 2)), attributes={"group": 2, "strides": [2, 3]}),
)
PRODUCTS = (
    Case("MatMul", ((2, 3, 4), (4, 5))),
    Case("MatMul", ((6, 3), (2, 3, 5)), (0,)),
    *(
        Case("Gemm", ((4, 3) if a else (3, 4), (5, 4) if b else (4, 5), (5,)), (1, 2), "", {"transA": a, "transB": b})
        for a in (0, 1)
        for b in (0, 1)
    ),
    Case("Gemm", ((3, 4), (4, 5), (5,)), (1, 2), attributes={"alpha": 0.5, "beta": 2.0}),
)
RECURRENT = tuple(
    Case(
        op_type,
        ((3, 2, 4), (1, gates * 5, 4), (1, gates * 5, 5), (1, 2 * gates * 5)),
        (1, 2, 3),
        attributes={"hidden_size": 5},
    )
    for op_type, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
)
LAYERS = (*CONVOLUTIONS, *PRODUCTS, *RECURRENT)
"""What is refitted, read, differentiated."""

COUNTED = (
    Case("FusedConv", (X, W), domain=MICROSOFT, attributes={"activation": "Relu"}),
    Case("FusedGemm", ((3, 4), (4, 5)), domain=MICROSOFT, attributes={"activation": "Relu"}),
    Case("FusedGemm", ((4, 3), (5, 4)), (1,), MICROSOFT, {"transA": 1, "transB": 1, "activation": "Relu"}),
    Case("FusedMatMul", ((2, 3, 4), (4, 5)), domain=MICROSOFT),
    Case("FusedMatMul", ((2, 4, 3), (5, 4)), domain=MICROSOFT, attributes={"transA": 1, "transB": 1}),
    Case("FusedMatMul", ((4, 2, 3), (4, 2, 5)), (), MICROSOFT, {"transBatchA": 1, "transA": 1, "transBatchB": 1}),
    Case("Einsum", ((2, 3, 4), (4, 5)), attributes={"equation": "bik,kj->bij"}),
    Case("Einsum", ((2, 3, 4), (2, 5, 4)), (), attributes={"equation": "...ik,...jk->...ij"}),
)
"""Bilinear like the layers: with ones everywhere, an output is the number of its products."""
