"""Runs the command line as `python -m onnxprune.cli`."""

from onnxprune.cli import main

main()
