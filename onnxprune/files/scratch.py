"""Temporary folders whose names say whose they are; what a killed process left of them is removed by a later one."""

from __future__ import annotations

import tempfile

from onnxprune.files import owner
from onnxprune.processes import journal


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder, as a context that removes it."""
    folder = tempfile.TemporaryDirectory(prefix=owner.folder_prefix(), ignore_cleanup_errors=True)
    journal.note("draft", folder.name)
    return folder
