"""Runs the command line as `python -m onnxprune`."""

from onnxprune.cli import main

main()
