"""A small network, its data, and the command line, for the tests of jobs."""

from tests.cli.conftest import data, model, run

__all__ = ["data", "model", "run"]
