"""What the tests of the command line share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Inputs for the model, in a folder of their own."""
    path = tmp_path / "data" / "x.npz"
    path.parent.mkdir()
    np.savez(path, x=np.random.default_rng(0).standard_normal((16, 3, 12, 12)).astype(np.float32))
    return path


def files(folder: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {path.name for path in folder.iterdir() if path.is_file()}
