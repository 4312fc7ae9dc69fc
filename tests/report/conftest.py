"""Fixtures of the command line, for reports that it writes."""

from tests.cli.conftest import data as data
from tests.cli.conftest import model as model
from tests.cli.conftest import run as run
