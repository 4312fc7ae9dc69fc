"""onnxprune bench: latency of one or more models."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli import options
from onnxprune.cli.screen import Screen


@click.command()
@click.argument("models", type=options.PATH, nargs=-1, required=True, metavar="MODEL [MODEL ..]")
def command(models: tuple[Path, ...]) -> None:
    """Measure latency."""
