"""Runs the command line from a checkout."""

from onnxprune.cli import main

if __name__ == "__main__":
    main()
