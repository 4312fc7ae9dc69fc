"""Whether a failure is the model's: what onnxruntime itself refuses is no defect of the program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def refusal(arguments: Sequence[str]) -> str | None:
    """Return why onnxruntime refuses a model that is named on the command line, None where it takes them all."""
    from onnxprune.errors import ModelError
    from onnxprune.graph.session import open_session

    for argument in arguments:
        path = Path(argument)
        if argument.startswith("-") or not path.name.endswith((".onnx", ".onnx.gz", ".ort")) or not path.is_file():
            continue
        try:
            open_session(path, level="none").close()
        except ModelError as error:
            return str(error)
    return None
