"""The one room of this layer that knows onnxruntime: sessions from bytes or files, run on dicts of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from onnxprune.errors import ModelError
from onnxprune.processes import engine
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array


class Session:
    """A model that can be run."""

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        threads: int | None = None,
        provider: str | None = None,
        folder: Path | None = None,
    ) -> None:
        """Open a model in memory; external weights are read from `folder`.

        Raises:
            ModelError: onnxruntime cannot run it.
        """
        onnxruntime = engine.onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = engine.bounded(threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = engine.providers(provider, onnxruntime.get_available_providers())
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder.resolve())
            )
        try:
            content = model.SerializeToString()
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as error:
            raise ModelError(f"onnxruntime cannot run the model: {_first_line(error)}") from error

    def run(self, outputs: Sequence[str], feed: Feed) -> list[Array]:
        """Return the named outputs.

        Raises:
            ModelError: the run fails.
        """
        try:
            return list(self._session.run(list(outputs), feed))
        except Exception as error:
            raise ModelError(f"onnxruntime failed while the model ran on the data: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
