"""The file that keeps how far gradient steps are: replaced as a whole, so that it is complete whenever one looks."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.files.staging import Staging, as_output_error, create
from onnxprune.types import Array

FORMAT = "onnxprune-finetune-2"


@dataclass(frozen=True)
class Snapshot:
    """A file and what it must belong to.

    key: of models, data and options: a file of others is refused.
    """

    path: Path
    key: tuple[str, ...]

    def write(self, values: Mapping[str, object], arrays: Mapping[str, Array]) -> None:
        """Replace the file.

        Raises:
            OutputError: it cannot be written.
        """
        head = json.dumps({"format": FORMAT, "key": list(self.key), "values": dict(values)})
        with Staging() as staging:
            draft = staging.add(self.path)
            with as_output_error(self.path), create(draft) as file:
                named = {"head": np.frombuffer(head.encode(), np.uint8), **arrays}
                np.savez(file, **named)  # type: ignore[arg-type]  # numpy types allow_pickle among them
            staging.commit()

    def read(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        """Return what the file holds, None if there is none.

        Raises:
            UsageError: it is of another run, or something else.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            head = json.loads(arrays.pop("head").tobytes())
            if head["format"] != FORMAT or head["key"] != list(self.key):
                raise KeyError("key")
            return head["values"], arrays
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"the state '{self.path}' is of another run (models, data or options): remove it, or name another."
            ) from error

    def remove(self) -> None:
        """Take the file away once it is not needed."""
        self.path.unlink(missing_ok=True)
