"""Run a decoder of one token, its states fed back."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.graph.model import Model
from onnxprune.graph.states import fed_back
from onnxprune.graph.view import View
from tests.oracle import session


def decoded(model: onnx.ModelProto, words: np.ndarray) -> np.ndarray:
    """Return (n, steps, words): scores of the next word; states start as zeros, as do those that nothing gives."""
    opened = session(model)
    pairs = dict(fed_back(View(Model(model))))
    names = [value.name for value in opened.get_outputs()]
    states = {
        value.name: np.zeros([len(words), *value.shape[1:]], np.float32)
        for value in opened.get_inputs()
        if value.name != "input_ids"
    }
    scores = []
    for step in range(words.shape[1]):
        given = dict(zip(names, opened.run(None, {"input_ids": words[:, step : step + 1], **states}), strict=True))
        states |= {name: given[output] for output, name in pairs.items()}
        scores.append(given["logits"])
    return np.concatenate(scores, axis=1)


def state_sizes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return input -> its sizes behind the batch, without the token."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input if value.name != "input_ids"}
    return {name: [dim.dim_value for dim in dims[1:]] for name, dims in shapes.items()}
