"""The command line. Nothing heavy is imported here: `onnxprune --help` answers at once."""

from onnxprune.cli.group import main

__all__ = ["main"]
