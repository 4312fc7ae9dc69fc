"""Keys of the context's `meta`, under which commands find what the group noted."""

from __future__ import annotations

VERBOSE = "onnxprune.verbose"
"""Whether -v was given."""
ARGUMENTS = "onnxprune.arguments"
"""The words of the command line."""
LISTING = "onnxprune.listing"
"""Whether a list of commands is being made."""
