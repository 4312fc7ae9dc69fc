"""What the tests of the command line share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from onnxprune.cli.group import cli
from tests import networks

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run the command line in this process; paths may be given as such."""

    def invoke(*args: object) -> Result:
        return CliRunner().invoke(cli, [str(arg) for arg in args])

    return invoke


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small convolutional network in a folder of its own."""
    return networks.store(networks.convnet(), tmp_path / "net.onnx")
